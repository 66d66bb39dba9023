"""The choices of `rounding.py` on an NVIDIA GPU: the same steps and counts, to the bit.

Does not know what entries are for. A thread takes a triple (red, green and blue of a coefficient);
every operation is rounded as the CPU rounds it, none is fused, and symbols are counted in whole
numbers. What a symbol costs is worked out here between the rounds, as on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.device import kernel, on_device

Float32 = NDArray[np.float32]
Counts = NDArray[np.intp]

THREADS = 256

SOURCE = r"""
// Of the lanes that count the same symbol one adds for all.
__device__ void add_one(int* counts, long long symbol)
{
    const unsigned int same = __match_any_sync(__activemask(), symbol);
    if (threadIdx.x % 32 == __ffs(same) - 1) atomicAdd(counts + symbol, __popc(same));
}

__device__ void count(int* counts, long long first, int reach, int red, int green, int blue)
{
    const int symbols = 2 * reach + 1;
    add_one(counts, first + green + reach);
    add_one(counts, first + symbols + red - green + reach);
    add_one(counts, first + 2 * symbols + blue - green + reach);
}

__device__ float squared(float x) { return __fmul_rn(x, x); }

// codes == 0: to the nearest. Else the neighbours of least error + bill x bits.
extern "C" __global__ void choose(
    const float* entries,     // [total / k, 3, k]
    const int* group,         // [total / k]
    const float* step,        // [groups]
    const int* reach,         // [groups] of a symbol
    const long long* first,   // [groups] symbol of its codes: green, red - green, blue - green
    const float* price,       // [total / k] squared steps per bit
    const float* codes,       // bits of each symbol, or 0
    int* counts,              // of each symbol
    int* steps,               // [total / k, 3, k]
    long long total, int k)
{
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    const int e = i / k, g = group[e], r = reach[g];
    const long long at = 3ll * e * k + i % k;
    float value[3], gap[3];
    int low[3], best[3];
    for (int c = 0; c < 3; ++c) {
        value[c] = __fdiv_rn(entries[at + (long long)c * k], step[g]);
        const float under = floorf(value[c]);
        low[c] = (int)under;
        gap[c] = __fsub_rn(value[c], under);
        best[c] = (int)rintf(value[c]);
    }
    if (codes) {
        const float bill = price[e];
        const int symbols = 2 * r + 1;
        const float* green = codes + first[g] + r;
        float least = 0.0f;
        for (int up = 0; up < 2; ++up) {
            const int middle = low[1] + up;
            float cost = __fadd_rn(
                squared(up ? __fsub_rn(gap[1], 1.0f) : gap[1]), __fmul_rn(bill, green[middle]));
            int raised[3];
            for (int c = 0; c < 3; c += 2) {
                const float* code = green + (1 + c / 2) * symbols + low[c] - middle;
                const float down_cost = __fadd_rn(squared(gap[c]), __fmul_rn(bill, code[0]));
                const float up_cost =
                    __fadd_rn(squared(__fsub_rn(gap[c], 1.0f)), __fmul_rn(bill, code[1]));
                raised[c] = up_cost < down_cost;
                cost = __fadd_rn(cost, fminf(up_cost, down_cost));
            }
            if (!up || cost < least) {
                least = cost;
                best[0] = low[0] + raised[0];
                best[1] = middle;
                best[2] = low[2] + raised[2];
            }
        }
    }
    for (int c = 0; c < 3; ++c) steps[at + (long long)c * k] = best[c];
    count(counts, first[g], r, best[0], best[1], best[2]);
}
"""


def cheapest_on_device(
    entries: Float32,  # [P, 3K]
    group: NDArray[np.intp],  # [P] of one step each
    step: Float32,  # [G]
    reach: NDArray[np.intp],  # [G] of a difference of two neighbours, in steps
    price: Float32,  # [P] squared steps per bit
    codes_of: Callable[[Counts], Float32],  # counts [3, S] -> bits of each symbol
    rounds: int,
    device: str,
) -> tuple[NDArray[np.int32], list[Counts]]:
    """(whole steps [P, 3K], for each group how often each symbol was chosen [3, 2 reach + 1])."""
    lengths = 3 * (2 * reach + 1)
    first = np.cumsum(lengths) - lengths
    k = entries.shape[1] // 3
    total = len(entries) * k
    with on_device(device) as cupy:
        run = kernel(SOURCE, "choose")
        counts, codes = cupy.empty(int(lengths.sum()), cupy.int32), np.uintp(0)
        steps = cupy.empty(entries.shape, cupy.int32)
        fixed: list[Any] = [
            cupy.asarray(np.ascontiguousarray(array, kind))
            for array, kind in (
                (entries, np.float32),
                (group, np.int32),
                (step, np.float32),
                (reach, np.int32),
                (first, np.int64),
                (price, np.float32),
            )
        ]
        size = (-(-total // THREADS),), (THREADS,)
        for left in range(rounds, -1, -1):
            counts.fill(0)
            run(*size, (*fixed, codes, counts, steps, np.int64(total), np.int32(k)))
            split = np.split(counts.get().astype(np.intp), first[1:])
            found = [part.reshape(3, -1) for part in split]
            if left:
                codes = cupy.asarray(np.concatenate([codes_of(part).ravel() for part in found]))
        return steps.get(), found
