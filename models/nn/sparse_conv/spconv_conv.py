"""Sparse convolution by spconv 2.x, where it is installed: its native gather-GEMM-scatter.

It takes our kernel maps; of spconv only the computation is used. On CPU it is held to one thread:
spconv 2.3.8 scatters rows from several threads without locks, which gives a few rows wrong by as
much as they are large, and its own copy of libgomp does not hear torch.set_num_threads.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any, cast

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from models.nn.sparse_conv.kernel_map import KernelMap


def convolve(
    feats: Tensor,  # [N_in, Cin]
    weight: Tensor,  # [Cout, KX, KY, KZ, Cin]
    bias: Tensor | None,  # [Cout]
    kernel_map: KernelMap,
) -> Tensor:  # [N_out, Cout]
    """One convolution; fp16 partial sums are rounded to fp16 after every weight offset."""
    if 0 in (len(feats), kernel_map.n_out):
        empty = feats.new_zeros((kernel_map.n_out, weight.shape[0]))
        return empty if bias is None else empty + bias
    half_on_cpu = feats.device.type == "cpu" and feats.dtype in (torch.float16, torch.bfloat16)
    dtype = torch.float32 if half_on_cpu else feats.dtype
    pairs, counts = kernel_map.cached("spconv pairs", lambda: _pairs(kernel_map))
    ops: Any = import_module("spconv.pytorch.ops")
    with _one_thread(feats.device):
        # Not `subm=True`: that would take the centre apart and mirror the pairs, ours have it all.
        # K=1 never comes here, so the reinterpreting shortcut of spconv's modules is not met.
        out = ops.indice_conv(
            feats.to(dtype), weight.to(dtype).contiguous(), pairs, counts, kernel_map.n_out
        )
    out = cast(Tensor, out).to(feats.dtype)
    return out if bias is None else out + bias


def _pairs(kernel_map: KernelMap) -> tuple[Tensor, Tensor]:
    """int32 [2, V, N] of input and output rows, -1 at the end of each; int32 [V] of their counts.

    Sorting by absence, stably, brings what is there to the front.
    """
    found = kernel_map.neighbours
    absent = found < 0
    order = torch.sort(absent.byte(), dim=1, stable=True).indices
    inputs = found.gather(1, order)
    outputs = torch.where(inputs < 0, -1, order.int())
    counts = (~absent).sum(dim=1, dtype=torch.int32)
    return torch.stack((inputs, outputs)), counts.cpu()


def _one_thread(device: torch.device) -> AbstractContextManager[Any]:
    if device.type != "cpu":
        return nullcontext()
    return cast(AbstractContextManager[Any], _thread_pools().limit(limits=1, user_api="openmp"))


@cache
def _thread_pools() -> ThreadpoolController:
    """All of this process; asked once spconv has been imported, so that its pool is one of them."""
    return ThreadpoolController()
