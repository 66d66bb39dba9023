"""The CUDA rasteriser as a torch function with gradients; kernels and formulas are the product's.

Does not project: it takes Gaussians on the picture plane. The backward kernel is compiled behind
the forward ones, so both see the same tiles and the same alphas.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cupy
import numpy as np
import torch
from torch import Tensor

from models.splat_to_sog.device import kernel
from models.splat_to_sog.metrics.rasterise import TILE_PX
from models.splat_to_sog.metrics.rasterise_cuda import (
    SOURCE,
    Gaussians,
    bin_tiles,
    blend,
)


class Blend(torch.autograd.Function):
    """(means2d, conics, colours, opacities, radii, depths, width, height) -> picture [H, W, 3].

    Gaussians in any order; the depths [N] sort them. Black background. radii and depths only say
    what is drawn where and have no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,  # [N, 2] px
        conics: Tensor,  # [N, 3]
        colours: Tensor,  # [N, 3]
        opacities: Tensor,  # [N]
        radii: Tensor,  # [N, 2] px, 0: not drawn
        depths: Tensor,  # [N]
        width: int,
        height: int,
    ) -> Tensor:
        order = torch.argsort(depths)
        arrays = [t[order] for t in (means2d, conics, colours, opacities, radii)]
        gaussians = Gaussians(*(cupy.asarray(array) for array in arrays))
        tiles = bin_tiles(gaussians, width, height)
        out = blend(gaussians, tiles, width, height)
        ctx.saved = (order, gaussians, tiles, out, width, height)
        return torch.from_dlpack(out.picture).clone()

    @staticmethod
    def backward(ctx: Any, grad_picture: Tensor) -> Any:
        order, gaussians, tiles, out, width, height = ctx.saved
        inputs = (gaussians.means2d, gaussians.conics, gaussians.colours, gaussians.opacities)
        ranked = [
            torch.zeros(array.shape, dtype=torch.float32, device=order.device) for array in inputs
        ]
        kernel(_source(), "blend_backward")(
            (tiles.across, tiles.down),
            (TILE_PX, TILE_PX),
            (
                np.int32(width),
                np.int32(height),
                tiles.starts,
                tiles.keys,
                *inputs,
                *(np.float32(0),) * 3,
                out.transmittance,
                out.last,
                cupy.asarray(grad_picture.contiguous()),
                *(cupy.asarray(grad) for grad in ranked),
            ),
        )
        grads = [torch.empty_like(grad).index_copy_(0, order, grad) for grad in ranked]
        return (*grads, None, None, None, None)


@cache
def _source() -> str:
    return SOURCE.read_text() + Path(__file__).with_suffix(".cu").read_text()
