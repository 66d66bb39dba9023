"""The fused steps: Triton's kernels where they can run, plain PyTorch elsewhere.

It knows where each can run, and no kernel.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.nn.backends import own_kernels
from models.nn.fused import reference
from models.nn.fused.steps import Norm, Update

if TYPE_CHECKING:
    from models.nn.attention.segments import Segments

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
FIRST_WITH_BFLOAT16 = (8, 0)
WIDEST = 4096
"""Channels of a row that one program of the kernels holds."""


def residual_norm(
    x: Tensor,  # [N, C]
    update: Update | None,
    norm: Norm | None,
    rows: Segments,  # of each item
) -> tuple[Tensor, Tensor]:  # [N, C], [norm.rows, C]
    """x with `update`, and its norm; without a norm twice the same. Rounded once each by the
    kernels, unless the norm is `stepwise`."""
    if fusible(x) and x.shape[1] <= WIDEST and laid_out(update, norm):
        from models.nn.fused import triton_norms

        return triton_norms.residual_norm(x, update, norm, rows)
    return reference.residual_norm(x, update, norm, rows)


def qk_rms_norm(
    qkv: Tensor,  # [N, 3, H, D]; may be overwritten
    q_gamma: Tensor,  # fp32 [H, D]
    k_gamma: Tensor,  # fp32 [H, D]
) -> tuple[Tensor, Tensor, Tensor]:  # [N, H, D] each
    """x / |x| * gamma * sqrt(D) of queries and keys, head by head; values as they are."""
    if fusible(qkv):
        from models.nn.fused import triton_norms

        return triton_norms.qk_rms_norm(qkv, q_gamma, k_gamma)
    return reference.qk_rms_norm(qkv, q_gamma, k_gamma)


def linear_gelu(
    x: Tensor,  # [N, C]
    weight: Tensor,  # [C', C]
    bias: Tensor,  # [C']
) -> Tensor:  # [N, C']
    """gelu(x @ weight.T + bias), the tanh form: in the product's own last step on CUDA."""
    if x.is_cuda and x.dtype in (torch.float16, torch.bfloat16) and not torch.is_grad_enabled():
        return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)
    return reference.linear_gelu(x, weight, bias)


def fusible(x: Tensor) -> bool:
    """Whether the kernels compute this: rows on a CUDA device, no gradient asked for."""
    return (
        x.is_cuda
        and x.dtype in DTYPES
        and x.is_contiguous()
        and not (torch.is_grad_enabled() and x.requires_grad)
        and not torch.compiler.is_compiling()  # a trace cannot follow what comes next
        and ours_compute(x)
    )


def ours_compute(x: Tensor) -> bool:
    """Whether Triton kernels of ours may compute on this tensor's device, in its dtype."""
    return x.is_cuda and own_kernels() and computed_in(x.dtype, x.device)


def laid_out(update: Update | None, norm: Norm | None) -> bool:
    """Whether all of it lies as the kernel reads it: rows one after the other, and what items have
    of their own in chunks of one table, or one row for all."""
    rows = [] if update is None else [update.h, update.rest]
    chunks = [] if update is None else [update.gate]
    if norm is not None:
        rows += [norm.weight, norm.bias]
        chunks += [norm.scale, norm.shift]
    forms = {
        (len(chunk), chunk.stride(0) if len(chunk) > 1 else 0, chunk.stride(1))
        for chunk in chunks
        if chunk is not None
    }
    return (
        all(row is None or row.is_contiguous() for row in rows)
        and len(forms) <= 1
        and all(step == 1 for _, _, step in forms)
    )


@cache
def computed_in(dtype: torch.dtype, device: torch.device) -> bool:
    modern = torch.cuda.get_device_capability(device) >= FIRST_WITH_BFLOAT16
    return modern or dtype != torch.bfloat16
