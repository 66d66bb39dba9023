"""ReconViaGen's networks at work: views, what they tell the flows, then TRELLIS's own stages.

It knows no file of images and none of meshes. Each stage is one method; between stages only the
conditions live: tokens of the whole object, tokens of each view, and the cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.image_to_mesh.reconviagen.latent_condition import LatentCondition
from models.image_to_mesh.reconviagen.structure_condition import StructureCondition
from models.image_to_mesh.reconviagen.vggt.network import Vggt
from models.image_to_mesh.trellis import generator as trellis
from models.image_to_mesh.trellis.conditioning import no_image
from models.image_to_mesh.trellis.gaussian_decoder import Gaussians
from models.image_to_mesh.trellis.generator import OnStep
from models.image_to_mesh.trellis.release import SamplerSettings
from models.image_to_mesh.trellis.voxel_mesh import DecodedMesh
from models.nn.residency import Residency
from models.nn.samplers import rescaled_times, sample
from models.nn.sparse_tensor import SparseTensor
from models.nn.velocity import KnownTimes, SparseVelocity

OnLayer = Callable[[int], None]


@dataclass(frozen=True)
class Networks:
    """What ReconViaGen adds to TRELLIS's networks."""

    vggt: Vggt
    structure_condition: StructureCondition
    latent_condition: LatentCondition


@dataclass(frozen=True)
class Conditions:
    """What the flows are told of n views.

    structure: fp32 [1, T, C], of all views together. latent: fp32 [n, M, C], of each view.
    poses:     fp32 [n, 9], the views' cameras, encoded, on the CPU.
    """

    structure: Tensor
    latent: Tensor
    poses: Tensor


@dataclass(frozen=True)
class Generator:
    """base: TRELLIS's, with flows and decoders of ReconViaGen's release."""

    base: trellis.Generator
    networks: Networks

    @property
    def residency(self) -> Residency:
        return self.base.residency

    @torch.no_grad()
    def look(
        self,
        pictures: Sequence[npt.NDArray[np.uint8]],  # (518, 518, 3) each, on black
        on_layer: OnLayer | None = None,
    ) -> Conditions:
        """on_layer: called after each of VGGT's layers; what it raises ends the stage."""
        networks, residency = self.networks, self.residency
        tokens = self.base.look(pictures)  # [n, 1 + R + P, C]
        pixels = torch.from_numpy(np.stack(pictures)).to(residency.device).permute(0, 3, 1, 2)
        with residency.at_work(networks.vggt):
            seen = networks.vggt(pixels.float() / 255, on_layer)
        special = networks.vggt.aggregator.special  # class and registers are as many in DINOv2
        with residency.at_work(networks.structure_condition):
            patches = [layer[:, special:] for layer in seen.layers]
            structure = networks.structure_condition(patches, tokens[:, special:])
        with residency.at_work(networks.latent_condition):
            latent = networks.latent_condition(seen.layers, tokens)
        return Conditions(structure, latent, seen.poses.cpu())

    def structure(
        self,
        conditions: Conditions,
        noise: torch.Generator,  # of the CPU, so that a seed means the same on every device
        settings: SamplerSettings,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """int32 [N, 4]: which voxels exist. Raises InvalidInput where none does."""
        return self.base.structure(conditions.structure, noise, settings, on_step=on_step)

    @torch.no_grad()
    def latent(
        self,
        conditions: Conditions,
        coords: Tensor,  # int32 [N, 4]
        noise: torch.Generator,
        settings: SamplerSettings,
        on_step: OnStep | None = None,
    ) -> SparseTensor:
        """fp32 [N, C]: the structured latent, in the scale the decoders take it."""
        flow, views = self.base.networks.latent_flow, conditions.latent
        start = torch.randn(len(coords), flow.in_channels, generator=noise)
        place = SparseTensor(start.to(coords.device), coords)
        times = rescaled_times(settings.steps, settings.rescale_t)
        with self.residency.at_work(flow):
            clock = KnownTimes(flow.modulations, times[:-1], self.residency.device)
            feats = sample(
                SparseVelocity(flow, place, batched=self.base.batched, clock=clock),
                place.feats,
                [flow.contexts(views)],
                times=times,
                negative=flow.contexts(no_image(views)),
                guidance=settings.guidance,
                rows=place.layout,  # the spread that guidance brings back is the object's
                on_step=on_step,
            )
        mean, std = (
            feats.new_tensor(list(v)) for v in (self.base.latent_mean, self.base.latent_std)
        )
        return place.replace(feats * std + mean)

    def mesh(self, latent: SparseTensor) -> DecodedMesh:
        """The surface of a latent with one batch item."""
        return self.base.mesh(latent)

    def gaussians(self, latent: SparseTensor) -> Gaussians:
        """The Gaussians of a latent with one batch item."""
        return self.base.gaussians(latent)
