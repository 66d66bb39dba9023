"""Sparse convolution by the Triton kernels: one launch a layer, features gathered on the way.

Knows which plan and which arrangement of a kernel map a call gets, nothing of modules. For
inference: no gradient flows. Weights are read as they are stored, nothing is packed.
"""

from __future__ import annotations

from functools import cache
from statistics import median

import torch
import triton
from torch import Tensor

from models.nn.sparse_conv import torch_conv
from models.nn.sparse_conv.kernel_map import KernelMap
from models.nn.sparse_conv.triton_kernels import implicit_gemm, sum_splits
from models.nn.sparse_conv.triton_map import VOLUME_LIMIT, Arrangement, arrange
from models.nn.sparse_conv.triton_tiles import Card, Plan, Problem, precision_of
from models.nn.sparse_conv.triton_tuning import measure_plan, plan_for

_SUM_ROWS, _SUM_COLUMNS = 32, 64


def convolve(
    feats: Tensor,  # [N_in, Cin] fp16, bf16 or fp32
    weight: Tensor,  # [Cout, KX, KY, KZ, Cin]
    bias: Tensor | None,  # [Cout]
    kernel_map: KernelMap,
    residual: Tensor | None = None,  # [N_out, Cout]
) -> Tensor:  # [N_out, Cout]
    """bias + residual + sum over v of weight[:, v] @ feats[map[v]], summed in fp32, rounded once.

    fp32 keeps its precision unless `torch.backends.cuda.matmul.allow_tf32` is set. Kernels of
    more than 31 offsets, and bf16 before sm_80, are left to the reference.
    """
    card = card_of(feats.device)
    if kernel_map.volume > VOLUME_LIMIT or (feats.dtype == torch.bfloat16 and card.capability < 80):
        out = torch_conv.convolve(feats, weight, bias, kernel_map)
        return out if residual is None else out + residual
    if kernel_map.n_out == 0:
        return feats.new_empty((0, weight.shape[0]))
    with torch.cuda.device_of(feats):
        arrangement = arrangement_of(kernel_map)
        plan = plan_for(card, problem_of(feats, weight, kernel_map))
        return launch(plan, feats, weight, bias, residual, arrangement)


def arrangement_of(kernel_map: KernelMap) -> Arrangement:
    """Built on first use, kept with the map."""
    return kernel_map.cached("triton_arrangement", lambda: arrange(kernel_map.neighbours))


@cache
def card_of(device: torch.device) -> Card:
    properties = torch.cuda.get_device_properties(device)
    return Card(10 * properties.major + properties.minor, properties.multi_processor_count)


def problem_of(feats: Tensor, weight: Tensor, kernel_map: KernelMap) -> Problem:
    """tf32 follows PyTorch's own switch, off unless someone sets it."""
    tf32 = torch.backends.cuda.matmul.allow_tf32
    precision = precision_of(card_of(feats.device).capability, feats.dtype, tf32)
    channels = feats.shape[1], weight.shape[0]
    return Problem(feats.dtype, kernel_map.n_out, *channels, kernel_map.volume, precision)


def tune(feats: Tensor, weight: Tensor, kernel_map: KernelMap, repeats: int = 9) -> Plan:
    """Times all candidate plans for such a layer; from then on the fastest is used for it."""
    arrangement = arrangement_of(kernel_map)

    def milliseconds(plan: Plan) -> float:
        launch(plan, feats, weight, None, None, arrangement)  # compiles
        times = []
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            launch(plan, feats, weight, None, None, arrangement)
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return float(median(times))

    with torch.cuda.device_of(feats):
        problem = problem_of(feats, weight, kernel_map)
        return measure_plan(card_of(feats.device), problem, milliseconds)


def _rounds(dtype: torch.dtype) -> bool:
    """Whether fp32 may be rounded to tf32: PyTorch's own switch, off unless someone sets it."""
    return dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32


def launch(
    plan: Plan,
    feats: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    arrangement: Arrangement,
) -> Tensor:
    """As `convolve`, with the plan given."""
    tile, splits, n = plan.tile, plan.splits, arrangement.n
    matrices = weight.flatten(1, 3)  # [Cout, V, Cin]
    channels_out, _, channels_in = matrices.shape
    feats = feats.contiguous()
    residual = None if residual is None else residual.contiguous()
    out = feats.new_empty((n, channels_out))
    partial = None
    if splits > 1:
        shape = (splits, arrangement.padded, channels_out)
        partial = feats.new_empty(shape, dtype=torch.float32)
    tiles = triton.cdiv(n, tile.rows) * triton.cdiv(channels_out, tile.width)
    implicit_gemm[(tiles, splits)](
        feats,
        matrices,
        arrangement.table,
        arrangement.masks,
        arrangement.rows,
        bias,
        residual,
        out if partial is None else partial,
        arrangement.padded,
        IN=channels_in,
        OUT=channels_out,
        OUT_STRIDE=matrices.stride(0),
        OFFSET_STRIDE=matrices.stride(1),
        IN_STRIDE=matrices.stride(2),
        HAS_BIAS=bias is not None and splits == 1,
        HAS_RESIDUAL=residual is not None and splits == 1,
        PRECISION=plan.precision,
        WIDE=max(feats.numel(), arrangement.table.numel()) >= 1 << 31,
        BLOCK_M=tile.rows,
        BLOCK_N=tile.columns,
        TAIL_N=tile.tail,
        BLOCK_K=tile.depth,
        SPLITS=splits,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    if partial is not None:
        blocks = triton.cdiv(n, _SUM_ROWS), triton.cdiv(channels_out, _SUM_COLUMNS)
        sum_splits[blocks](
            partial,
            arrangement.rows,
            bias,
            residual,
            out,
            arrangement.padded,
            OUT=channels_out,
            HAS_BIAS=bias is not None,
            HAS_RESIDUAL=residual is not None,
            SPLITS=splits,
            BLOCK_M=_SUM_ROWS,
            BLOCK_N=_SUM_COLUMNS,
        )
    return out
