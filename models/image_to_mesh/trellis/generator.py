"""The networks of TRELLIS at work: tokens, sparse structure, structured latent, mesh or Gaussians.

It knows no file of images and none of meshes. Each stage is one method and one turn of its network
on the device; between stages only small tensors live.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.context import InvalidInput
from models.image_to_mesh.trellis.conditioning import image_tokens, no_image
from models.image_to_mesh.trellis.gaussian_decoder import Gaussians, SlatGaussianDecoder
from models.image_to_mesh.trellis.mesh_decoder import SlatMeshDecoder
from models.image_to_mesh.trellis.release import SamplerSettings
from models.image_to_mesh.trellis.slat_flow import SlatFlow
from models.image_to_mesh.trellis.ss_decoder import SparseStructureDecoder, occupied
from models.image_to_mesh.trellis.ss_flow import SparseStructureFlow
from models.image_to_mesh.trellis.voxel_mesh import DecodedMesh, mesh_from_voxels
from models.nn.attention import KeysValues
from models.nn.dinov2 import DinoV2
from models.nn.guidance import Mixing
from models.nn.replay import Replayed, pays
from models.nn.residency import Residency
from models.nn.samplers import Step, rescaled_times, sample
from models.nn.sparse_tensor import SparseTensor
from models.nn.velocity import DenseVelocity, KnownTimes, SparseVelocity, Velocity

OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Networks:
    """Everything that has weights."""

    image: DinoV2
    structure_flow: SparseStructureFlow
    structure_decoder: SparseStructureDecoder
    latent_flow: SlatFlow
    mesh_decoder: SlatMeshDecoder
    gaussian_decoder: SlatGaussianDecoder


@dataclass(frozen=True)
class Generator:
    """latent_mean, latent_std: [C], what the decoders expect of a latent the flow sampled."""

    networks: Networks
    latent_mean: Sequence[float]
    latent_std: Sequence[float]
    residency: Residency

    @torch.no_grad()
    def look(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """(518, 518, 3) each -> fp32 [n, M, C] tokens, one row of them an image."""
        with self.residency.at_work(self.networks.image):
            return image_tokens(self.networks.image, pictures, self.residency.device)

    @torch.no_grad()
    def structure(
        self,
        tokens: Tensor,  # [n, M, C]
        noise: torch.Generator,  # of the CPU, so that a seed means the same on every device
        settings: SamplerSettings,
        mixing: Mixing = "stochastic",
        on_step: OnStep | None = None,
    ) -> Tensor:
        """int32 [N, 4]: which voxels exist. Raises InvalidInput where none does."""
        flow, decoder = self.networks.structure_flow, self.networks.structure_decoder
        shape = (1, flow.in_channels, *(flow.resolution,) * 3)
        start = torch.randn(shape, generator=noise).to(self.residency.device)
        with self.residency.at_work(flow):
            clock = self._clock(flow, settings)
            network = self._replayed() if self.recorded else flow
            velocity = DenseVelocity(network, batched=self.batched, clock=clock)
            latent = self._sample(velocity, flow, start, tokens, settings, mixing, on_step)
        with self.residency.at_work(decoder):
            coords = occupied(decoder(latent))
        if len(coords) == 0:
            raise InvalidInput(
                "No shape was found in the image: the network left every voxel empty.",
                code="structure_empty",
                next_step="Try another seed, or an image that shows the object larger.",
            )
        return coords

    @torch.no_grad()
    def latent(
        self,
        tokens: Tensor,  # [n, M, C]
        coords: Tensor,  # int32 [N, 4]
        noise: torch.Generator,
        settings: SamplerSettings,
        mixing: Mixing = "stochastic",
        on_step: OnStep | None = None,
    ) -> SparseTensor:
        """fp32 [N, C]: the structured latent, in the scale the decoders take it."""
        flow = self.networks.latent_flow
        start = torch.randn(len(coords), flow.in_channels, generator=noise)
        place = SparseTensor(start.to(coords.device), coords)
        with self.residency.at_work(flow):
            clock = self._clock(flow, settings)
            velocity = SparseVelocity(
                flow, place, batched=self.batched, clock=clock, recorded=self.recorded
            )
            feats = self._sample(velocity, flow, place.feats, tokens, settings, mixing, on_step)
        mean, std = (feats.new_tensor(list(v)) for v in (self.latent_mean, self.latent_std))
        return place.replace(feats * std + mean)

    @torch.no_grad()
    def mesh(self, latent: SparseTensor) -> DecodedMesh:
        """The surface of a latent with one batch item."""
        decoder = self.networks.mesh_decoder
        with self.residency.at_work(decoder):
            voxels = decoder(latent)
        return mesh_from_voxels(voxels.coords[:, 1:], voxels.feats, decoder.out_resolution)

    @torch.no_grad()
    def gaussians(self, latent: SparseTensor) -> Gaussians:
        """The Gaussians of a latent with one batch item."""
        decoder = self.networks.gaussian_decoder
        with self.residency.at_work(decoder):
            (raw,) = decoder.raw(decoder(latent))
            return decoder.activated(raw)

    @property
    def batched(self) -> bool:
        """Condition and its negative in one pass: larger products fill a GPU, not a CPU."""
        return self.residency.device.type == "cuda"

    @property
    def recorded(self) -> bool:
        """Passes become CUDA graphs where that is faster."""
        return pays(self.residency.device)

    def _replayed(self) -> Replayed:
        """The structure flow's recorded passes. Its grid has one size, so they serve all jobs, or
        one where weights come and go, and lie elsewhere each time."""
        return Replayed(self.networks.structure_flow) if self.residency.offload else self._kept

    @cached_property
    def _kept(self) -> Replayed:
        return Replayed(self.networks.structure_flow)

    def _clock(self, flow: SparseStructureFlow | SlatFlow, settings: SamplerSettings) -> KnownTimes:
        """What every step's time means to the flow's layers, computed for all steps at once."""
        times = rescaled_times(settings.steps, settings.rescale_t)[:-1]
        return KnownTimes(flow.modulations, times, self.residency.device)

    def _sample(
        self,
        velocity: Velocity,
        flow: SparseStructureFlow | SlatFlow,
        start: Tensor,
        tokens: Tensor,
        settings: SamplerSettings,
        mixing: Mixing,
        on_step: OnStep | None,
    ) -> Tensor:
        each: list[tuple[KeysValues, ...]] = [flow.contexts(image[None]) for image in tokens]
        return sample(
            velocity,
            start,
            each,
            times=rescaled_times(settings.steps, settings.rescale_t),
            negative=flow.contexts(no_image(tokens)),
            guidance=settings.guidance,
            mixing=mixing,
            on_step=on_step,
        )
