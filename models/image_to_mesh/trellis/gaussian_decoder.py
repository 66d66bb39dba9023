"""The Gaussian decoder: each voxel of a structured latent becomes a few Gaussians around it.

It knows no file format: `Gaussians` are plain tensors with every activation applied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.image_to_mesh.trellis.slat_decoder import SlatDecoder
from models.nn.sparse_tensor import SparseTensor

IDENTITY = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class GaussianSettings:
    """How raw numbers become Gaussians; the names in a checkpoint's `representation_config`.

    lr:           factor of each raw attribute, by its name there
    voxel_size:   reach of a Gaussian's centre, in voxels around the voxel's own
    filter_size:  least standard deviation, in units of the object's box (`3d_filter_kernel_size`)
    scaling_bias: standard deviation, opacity_bias: opacity, of raw numbers that are zero
    """

    num_gaussians: int
    voxel_size: float
    scaling_bias: float
    opacity_bias: float
    filter_size: float
    perturb_offset: bool = True
    lr: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> GaussianSettings:
        """Raises ValueError where a checkpoint asks for what this decoder does not do."""
        activation = config.get("scaling_activation", "exp")
        if activation != "softplus":
            raise ValueError(f"scaling_activation is {activation!r}; only 'softplus' is known.")
        names = {**{name: name for name in cls.__dataclass_fields__}}
        names["filter_size"] = "3d_filter_kernel_size"
        return cls(**{own: config[name] for own, name in names.items() if name in config})  # type: ignore[arg-type]


@dataclass(frozen=True)
class RawGaussians:
    """As the network says them, fp32, G of each voxel in turn.

    xyz [P, 3] in the unit cube 0..1; features_dc [P, 3]; scaling [P, 3]; rotation [P, 4];
    opacity [P, 1]: before bias and activation.
    """

    xyz: Tensor
    features_dc: Tensor
    scaling: Tensor
    rotation: Tensor
    opacity: Tensor


@dataclass(frozen=True)
class Gaussians:
    """means: fp32 [P, 3] in -0.5..0.5, z up; sh0: [P, 3] harmonics of degree 0; scales: [P, 3]
    standard deviations, > 0; quaternions: [P, 4] w first, unit length; opacities: [P] 0..1."""

    means: Tensor
    sh0: Tensor
    scales: Tensor
    quaternions: Tensor
    opacities: Tensor


LAYOUT = {"xyz": 3, "features_dc": 3, "scaling": 3, "rotation": 4, "opacity": 1}
"""Columns of the decoder's output: of each attribute, all Gaussians of the voxel."""


class SlatGaussianDecoder(SlatDecoder):
    offset_perturbation: Tensor

    def __init__(
        self,
        resolution: int,
        model_channels: int,
        latent_channels: int,
        num_blocks: int,
        num_heads: int,
        settings: GaussianSettings,
        mlp_ratio: float = 4,
        window_size: int = 8,
        qk_rms_norm: bool = False,
    ) -> None:
        super().__init__(
            resolution,
            model_channels,
            latent_channels,
            num_blocks,
            num_heads,
            mlp_ratio,
            window_size,
            qk_rms_norm,
        )
        self.settings = settings
        count = settings.num_gaussians
        self.out_layer = nn.Linear(model_channels, count * sum(LAYOUT.values()))
        with torch.device("cpu"):  # on the meta device this alone would import torch's compiler
            offsets = spread_offsets(count, settings.voxel_size)
        self.register_buffer("offset_perturbation", offsets)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """[N, latent_channels] -> [N, 14 G] raw numbers, the dtype of x."""
        h = self.features(x)
        feats = h.feats.to(x.dtype)
        return h.replace(self.out_layer(F.layer_norm(feats, feats.shape[-1:])))

    def raw(self, decoded: SparseTensor) -> list[RawGaussians]:
        """The raw Gaussians of each batch item of what `forward` returned."""
        count, lr = self.settings.num_gaussians, self.settings.lr
        columns = decoded.feats.split([count * width for width in LAYOUT.values()], dim=1)
        values = {
            name: column.reshape(len(column), count, width) * lr.get(f"_{name}", 1.0)
            for (name, width), column in zip(LAYOUT.items(), columns, strict=True)
        }
        offsets = values["xyz"]
        if self.settings.perturb_offset:
            offsets = offsets + self.offset_perturbation
        reach = 0.5 * self.settings.voxel_size / self.resolution
        centres = (decoded.coords[:, None, 1:] + 0.5) / self.resolution
        values["xyz"] = centres + reach * torch.tanh(offsets)
        return [
            RawGaussians(**{name: value[rows].flatten(0, 1) for name, value in values.items()})
            for rows in decoded.layout
        ]

    def activated(self, raw: RawGaussians) -> Gaussians:
        """Gaussians as a renderer takes them."""
        settings = self.settings
        scale_bias = math.log(math.expm1(settings.scaling_bias))  # softplus of it is the bias
        opacity_bias = math.log(settings.opacity_bias / (1 - settings.opacity_bias))
        scales = F.softplus(raw.scaling + scale_bias)
        return Gaussians(
            means=raw.xyz - 0.5,
            sh0=raw.features_dc,
            scales=(scales.square() + settings.filter_size**2).sqrt(),
            quaternions=F.normalize(raw.rotation + raw.rotation.new_tensor(IDENTITY), dim=1),
            opacities=torch.sigmoid(raw.opacity + opacity_bias).squeeze(1),
        )


def spread_offsets(count: int, voxel_size: float) -> Tensor:
    """fp32 [count, 3]: where a voxel's Gaussians start, before tanh: a Hammersley set."""
    points = [(i / count, _radical_inverse(i, 2), _radical_inverse(i, 3)) for i in range(count)]
    return torch.atanh((torch.tensor(points, dtype=torch.float32) * 2 - 1) / voxel_size)


def _radical_inverse(index: int, base: int) -> float:
    """The digits of `index` mirrored behind the point (van der Corput)."""
    value, share = 0.0, 1.0
    while index:
        share /= base
        index, digit = divmod(index, base)
        value += digit * share
    return value
