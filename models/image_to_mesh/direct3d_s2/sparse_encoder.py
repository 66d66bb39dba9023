"""The encoder of the sparse autoencoder: signed distances on voxels to a latent an eighth as fine.

Three halvings with convolutions, then windowed transformer blocks. It knows no mesh. Pools divide
by one more than they hold, as the checkpoints were trained.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.image_to_mesh.direct3d_s2.sparse_torso import SparseTorso
from models.nn.resample import downsample
from models.nn.sparse_conv import SparseConv3d
from models.nn.sparse_layers import SparseGroupNorm32
from models.nn.sparse_tensor import SparseTensor

GROUPS = 32


class SdfEncoder(SparseTorso):
    def __init__(
        self,
        model_channels: int,
        latent_channels: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: float = 4,
    ) -> None:
        super().__init__(model_channels, model_channels, num_blocks, num_heads, mlp_ratio)
        widths = [model_channels // n for n in (16, 8, 4, 1)]
        self.input_layer1 = nn.Linear(1, widths[0])
        self.downsample = nn.ModuleList(
            _Halve(narrow, wide) for narrow, wide in zip(widths, widths[1:], strict=False)
        )
        self.out_layer = nn.Linear(model_channels, 2 * latent_channels)

    def forward(
        self,
        sdf: SparseTensor,  # [N, 1]
        factor: float = 1.0,
    ) -> tuple[SparseTensor, SparseTensor]:
        """Mean and log-variance [M, latent_channels] on cells of 8^3 voxels."""
        weight = self.input_layer1.weight
        h = sdf.replace(self.input_layer1(sdf.feats.to(weight.dtype)))
        for block in self.downsample:
            h = block(h)
        h = self.features(h, factor)
        feats: Tensor = self.out_layer(F.layer_norm(h.feats, h.feats.shape[-1:]))
        mean, log_variance = feats.chunk(2, dim=1)
        return h.replace(mean), h.replace(log_variance.clamp(-30, 20))


class _Halve(nn.Module):
    """norm - SiLU - pool - convolution - norm - SiLU - convolution, beside a pooled skip."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.act_layers = nn.ModuleList([SparseGroupNorm32(GROUPS, channels)])
        self.out_layers = nn.ModuleList(
            [
                SparseConv3d(channels, out_channels, 3, layout="torchsparse"),
                SparseGroupNorm32(GROUPS, out_channels),
                nn.SiLU(),
                SparseConv3d(out_channels, out_channels, 3, layout="torchsparse"),
            ]
        )
        self.skip_connection = SparseConv3d(channels, out_channels, 1, layout="torchsparse")

    def forward(self, x: SparseTensor) -> SparseTensor:  # [N, C] -> [M, C']
        h = self.act_layers[0](x)
        h = downsample(h.replace(F.silu(h.feats)), 2, "trellis")
        first, norm, silu, second = self.out_layers
        h = norm(first(h))
        h = second(h.replace(silu(h.feats)))
        # Pooled anew, on the very same sites: they are kept with those of x.
        out: SparseTensor = h + self.skip_connection(downsample(x, 2, "trellis"))
        return out
