"""The networks of Direct3D-S2 at work: tokens, coarse shape, 512^3, 1024^3.

It knows no file of images and none of meshes. Each stage is one method and one turn of its network
on the device; between stages only what the next one needs lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.context import InvalidInput
from models.image_to_mesh.direct3d_s2.dense_vae import occupied
from models.image_to_mesh.direct3d_s2.image_tokens import no_object, object_patches, object_tokens
from models.image_to_mesh.direct3d_s2.near_surface import (
    OUTSIDE,
    Field,
    near_surface_of_blocks,
    near_surface_of_grid,
)
from models.image_to_mesh.direct3d_s2.preprocess import Picture
from models.image_to_mesh.direct3d_s2.refiner import OnPatch, Refiner
from models.image_to_mesh.direct3d_s2.release import Release, Sampler
from models.image_to_mesh.direct3d_s2.sign_refiner import SignRefiner
from models.image_to_mesh.direct3d_s2.sparse_decoder import SdfDecoder
from models.image_to_mesh.direct3d_s2.sparse_dit import SparseDiT
from models.image_to_mesh.trellis.conditioning import image_tokens, no_image
from models.image_to_mesh.trellis.ss_decoder import SparseStructureDecoder
from models.image_to_mesh.trellis.ss_flow import SparseStructureFlow
from models.nn.dinov2 import DinoV2
from models.nn.guidance import Guidance
from models.nn.replay import Replayed, pays
from models.nn.residency import Residency
from models.nn.samplers import Step, sample, shifted_times
from models.nn.sparse_tensor import SparseTensor
from models.nn.spatial_sparse_attention import block_order
from models.nn.velocity import (
    Condition,
    DenseVelocity,
    KnownTimes,
    SparseVelocity,
    Velocity,
)

OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Networks:
    """Everything that has weights; of the autoencoders, the decoders."""

    image: DinoV2
    dense_flow: SparseStructureFlow
    dense_vae: SparseStructureDecoder
    sparse_flow_512: SparseDiT
    sparse_vae_512: SdfDecoder
    refiner: Refiner
    sparse_flow_1024: SparseDiT
    sparse_vae_1024: SdfDecoder
    sign_refiner: SignRefiner | None


@dataclass(frozen=True)
class Seen:
    """tokens: fp32 [1, M, C] of the image. objects: those on the object, as release 1.0 takes
    them."""

    tokens: Tensor
    objects: SparseTensor


@dataclass(frozen=True)
class Generator:
    networks: Networks
    release: Release
    residency: Residency

    @property
    def device(self) -> torch.device:
        return self.residency.device

    @contextmanager
    def turn(self, *networks: nn.Module) -> Iterator[None]:
        """Within the block these networks are on the device.

        What the allocator kept is given back after it: every turn has tensors of other sizes, which
        would come on top of those blocks.
        """
        with self.residency.at_work(*networks):
            yield
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def look(self, picture: Picture) -> Seen:
        with self.turn(self.networks.image):
            tokens = image_tokens(self.networks.image, [picture.rgb], self.device)
        alpha = torch.from_numpy(picture.alpha.copy()).to(self.device)[None]
        return Seen(tokens, object_tokens(tokens, object_patches(alpha)))

    @torch.no_grad()
    def coarse(
        self,
        seen: Seen,
        noise: torch.Generator,  # of the CPU, so that a seed means the same on every device
        sampler: Sampler,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """int32 [N, 4]: cells of the 64^3 grid near the surface. Raises InvalidInput for none."""
        flow, decoder = self.networks.dense_flow, self.networks.dense_vae
        shape = (1, flow.in_channels, *(flow.resolution,) * 3)
        start = torch.randn(shape, generator=noise).to(self.device)
        dtype = flow.input_layer.weight.dtype

        def network(x: Tensor, t: tuple[Tensor, ...], cond: Condition) -> Tensor:
            velocity: Tensor = flow(x.to(dtype), t, cond)
            return velocity.float()

        with self.turn(flow):
            clock = _clock(flow, sampler, self.device)
            batched = self.device.type == "cuda"
            # A recording for each job: its weights may lie elsewhere at the next.
            run = Replayed(network) if pays(self.device) else network
            velocity = DenseVelocity(run, batched=batched, clock=clock)
            conditions = flow.contexts(seen.tokens), flow.contexts(no_image(seen.tokens))
            latent = _sample(velocity, start, conditions, sampler, on_step)
        with self.turn(decoder):
            coords = occupied(decoder(latent.to(dtype)))
        return _some(coords)

    @torch.no_grad()
    def latent(
        self,
        flow: SparseDiT,
        seen: Seen,
        coords: Tensor,  # int32 [N, 4]
        noise: torch.Generator,
        sampler: Sampler,
        on_step: OnStep | None = None,
    ) -> SparseTensor:
        """fp32 [N, C] on the same cells, block by block."""
        coords = coords[block_order(coords, flow.selection_block_size)]
        start = torch.randn(len(coords), flow.in_channels, generator=noise)
        place = SparseTensor(start.to(self.device), coords)
        with self.turn(flow):
            # One condition at a time: these products fill a device, and take half the memory.
            velocity = SparseVelocity(flow, place, clock=_clock(flow, sampler, self.device))
            conditions = (
                (flow.contexts(seen.tokens), flow.contexts(no_image(seen.tokens)))
                if flow.cond_proj is None
                else (flow.contexts(seen.objects), flow.contexts(no_object(seen.objects)))
            )
            feats = _sample(velocity, place.feats, conditions, sampler, on_step)
        return place.replace(feats)

    @torch.no_grad()
    def surface_512(self, latent: SparseTensor, on_patch: OnPatch) -> Field:
        """Decode, refine, and keep what lies beside the surface."""
        decoder, refiner = self.networks.sparse_vae_512, self.networks.refiner
        with self.turn(decoder, refiner):
            decoded = decoder(latent, head=refiner.head)
        with self.turn(refiner):
            grid = refiner(decoded, on_patch)
            field = near_surface_of_grid(grid, 2 * self.release.surface_level)
        return field

    @torch.no_grad()
    def surface_1024(self, latent: SparseTensor, on_patch: OnPatch) -> Field:
        """Decode in chunks, find which side is inside, keep what lies beside the surface."""
        decoder, refiner = self.networks.sparse_vae_1024, self.networks.sign_refiner
        with self.turn(decoder):
            sdf = decoder(latent).sdf
        if refiner is None:
            elsewhere = sdf.values.new_full((1, 1, 1), OUTSIDE)
        else:
            with self.turn(refiner):
                elsewhere = refiner(sdf, on_patch)
        return near_surface_of_blocks(sdf, self.release.surface_level, elsewhere)


def _clock(
    flow: SparseStructureFlow | SparseDiT, sampler: Sampler, device: torch.device
) -> KnownTimes:
    """What every step's time means to the flow's layers, computed for all steps at once."""
    return KnownTimes(flow.modulations, shifted_times(sampler.steps, sampler.shift)[:-1], device)


def _sample(
    velocity: Velocity,
    start: Tensor,
    conditions: tuple[Condition, Condition],  # of the image, of none
    sampler: Sampler,
    on_step: OnStep | None,
) -> Tensor:
    """A guidance of 0 is none, as the reference has it."""
    return sample(
        velocity,
        start,
        conditions[:1],
        times=shifted_times(sampler.steps, sampler.shift),
        negative=conditions[1],
        guidance=Guidance(sampler.guidance) if sampler.guidance > 0 else None,
        on_step=on_step,
    )


def _some(coords: Tensor) -> Tensor:
    if len(coords) == 0:
        raise InvalidInput(
            "No shape was found in the image: the network left every cell empty.",
            code="structure_empty",
            next_step="Try another seed, or an image that shows the object larger.",
        )
    return coords
