"""The fused steps by the Triton kernels: which tile, which pointers, what is allocated.

Knows nothing of modules. For inference: no gradient flows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
from torch import Tensor

from models.nn.fused.steps import Norm, Update
from models.nn.fused.triton_norm_kernels import qk_rms_norm as qk_rms_norm_kernel
from models.nn.fused.triton_norm_kernels import residual_norm as residual_norm_kernel

if TYPE_CHECKING:
    from models.nn.attention.segments import Segments

TILE = 2048
"""Numbers a program holds: two rows of 1024. Measured on an H200 among 1024 to 8192."""
WARPS = 4
HEADS = 32  # of a program of the QK norm


def tile_rows(channels: int) -> tuple[int, int]:
    """Rows and padded channels of a program."""
    block = triton.next_power_of_2(channels)
    return max(1, TILE // block), block


def options(stepwise: bool) -> dict[str, int]:
    """What the kernel of a norm is compiled with.

    No fusion where each operation is to round: LLVM multiplies and adds in fp16 what is rounded to
    fp16, which gives the same numbers, and then contracts the two to an FMA, which does not.
    """
    return {"num_warps": WARPS, "enable_fp_fusion": not stepwise}


def residual_norm(
    x: Tensor,  # [N, C], contiguous
    update: Update | None,
    norm: Norm | None,
    rows: Segments,
) -> tuple[Tensor, Tensor]:  # [N, C], [norm.rows, C]
    """As `functional.residual_norm`."""
    n, channels = x.shape
    if update is None and norm is None:
        return x, x
    out_x = x if update is None else torch.empty_like(x)
    wanted = n if norm is None or norm.rows is None else norm.rows
    out_y = out_x if norm is None else x.new_empty(wanted, channels)
    h, gate, rest = (None, None, None) if update is None else (update.h, update.gate, update.rest)
    affine = norm is not None and norm.weight is not None
    modulate = norm is not None and norm.scale is not None
    stepwise = norm is not None and norm.stepwise
    scale = None if norm is None else norm.weight if affine else norm.scale
    shift = None if norm is None else norm.bias if affine else norm.shift
    per_item = [chunk for chunk in (gate, None if affine else scale) if chunk is not None]
    each = bool(per_item) and len(per_item[0]) > 1
    by_table = not rows.uniform and (each or rest is not None)
    tile, block = tile_rows(channels)
    if n:
        with torch.cuda.device_of(x):
            residual_norm_kernel[(triton.cdiv(n, tile),)](
                x,
                x if h is None else h,
                x if rest is None else rest,
                x if gate is None else gate,
                x if scale is None else scale,
                x if shift is None else shift,
                out_x,
                out_y,
                rows.item_index(x.device) if by_table else x,
                n,
                n if h is None else len(h),
                wanted,
                rows.longest or 1,
                0 if rest is None else len(rows) - len(rest),
                per_item[0].stride(0) if each else 0,
                0.0 if norm is None else norm.eps,
                C=channels,
                ADD=update is not None,
                REST=rest is not None,
                GATE=gate is not None,
                NORM=norm is not None,
                AFFINE=affine,
                MODULATE=modulate,
                SILU=norm is not None and norm.silu,
                STEPWISE=stepwise,
                ITEMS=by_table,
                ROWS=tile,
                BLOCK=block,
                **options(stepwise),
            )
    return out_x, out_y


def qk_rms_norm(
    qkv: Tensor,  # [N, 3, H, D], contiguous; queries and keys are overwritten
    q_gamma: Tensor,  # fp32 [H, D]
    k_gamma: Tensor,  # fp32 [H, D]
) -> tuple[Tensor, Tensor, Tensor]:  # [N, H, D] each, views of it
    n, _, heads, width = qkv.shape
    if n:
        with torch.cuda.device_of(qkv):
            qk_rms_norm_kernel[(triton.cdiv(n * heads, HEADS), 2)](
                qkv,
                q_gamma,
                k_gamma,
                n,
                width**0.5,
                H=heads,
                D=width,
                ROWS=HEADS,
                BLOCK=triton.next_power_of_2(width),
                num_warps=WARPS,
            )
    q, k, v = qkv.unbind(1)
    return q, k, v
