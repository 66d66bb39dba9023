"""The exact split of `codebook.optimal_partition` on an NVIDIA GPU: the same intervals to the bit.

Does not know what the points are. Layer after layer needs the one before it whole, so one thread
block does it all out of shared memory, depth by depth as the CPU does: 1,024 points in 256
intervals take milliseconds, where the CPU needs a quarter of a second of short numpy calls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.device import kernel, on_device

THREADS = 1024
MAX_POINTS = 1024

SOURCE = r"""
#define THREADS 1024
#define POINTS 1024
#define INF __longlong_as_double(0x7ff0000000000000ll)

__shared__ double w[POINTS + 1], wx[POINTS + 1], wxx[POINTS + 1], layers[2][POINTS];
__shared__ int split[POINTS + 2];  // shifted by one: the ends bound the search

// Of points i..j by their mean. Each step is rounded as the CPU rounds it: no fused multiply-add.
__device__ double cost(int i, int j)
{
    const double dw = __dsub_rn(w[j + 1], w[i]), dx = __dsub_rn(wx[j + 1], wx[i]);
    const double spread = __ddiv_rn(__dmul_rn(dx, dx), dw);
    return fmax(__dsub_rn(__dsub_rn(wxx[j + 1], wxx[i]), spread), 0.0);
}

extern "C" __global__ void __launch_bounds__(THREADS) partition(
    const double* sums,  // [3, m + 1] running sums of weights, weights x, weights x^2
    int* splits,         // [size, m] first point of the last interval; row 0 is not written
    int m, int size)
{
    const int thread = threadIdx.x;
    for (int i = thread; i <= m; i += THREADS) {
        w[i] = sums[i];
        wx[i] = sums[m + 1 + i];
        wxx[i] = sums[2 * (m + 1) + i];
    }
    __syncthreads();
    for (int j = thread; j < m; j += THREADS) layers[0][j] = cost(0, j);
    int top = 1;
    while (top <= m - 1) top *= 2;
    if (top < 2) top = 2;
    for (int k = 1; k < size; ++k) {
        const double* previous = layers[(k - 1) & 1];
        double* best = layers[k & 1];
        if (thread == 0) split[0] = k, split[m + 1] = m - 1;
        __syncthreads();
        for (int step = top; step; step /= 2) {
            const int count = step - 1 < m ? (m - step) / (2 * step) + 1 : 0;
            int lanes = 32;  // that share the search for one j; fewer where there are many
            while (lanes > 2 && count * lanes > THREADS) lanes /= 2;
            const int groups = THREADS / lanes, lane = thread % lanes;
            for (int first = 0; first < count; first += groups) {
                const int member = first + thread / lanes;
                const bool real = member < count;
                const int j = real ? step - 1 + 2 * step * member : 0;
                int low = 0, high = -1;
                if (real) {
                    low = max(split[j - step + 1], k);
                    high = max(min(split[min(j + step, m) + 1], j), low);
                }
                double least = INF;
                int where = 0x7fffffff;
                for (int i = low + lane; i <= high; i += lanes) {
                    const double total = __dadd_rn(previous[i - 1], cost(i, max(i, j)));
                    if (total < least) least = total, where = i;
                }
                for (int other = lanes / 2; other; other /= 2) {
                    const double its = __shfl_xor_sync(0xffffffffu, least, other);
                    const int at = __shfl_xor_sync(0xffffffffu, where, other);
                    if (its < least || (its == least && at < where)) least = its, where = at;
                }
                if (real && lane == 0) {
                    split[j + 1] = where;
                    splits[(long long)k * m + j] = where;
                    best[j] = j >= k ? least : INF;
                }
            }
            __syncthreads();
        }
    }
}
"""


def splits_on_device(
    sums: NDArray[
        np.float64
    ],  # [3, M + 1]: 0, then running sums of weights, weights x, weights x^2
    size: int,
    device: str,
) -> NDArray[np.intp]:  # [size, M]
    """For every number of intervals and every last point: the first point of the last interval."""
    points = sums.shape[1] - 1
    if points > MAX_POINTS:
        raise ValueError(f"{points} points; at most {MAX_POINTS}")
    with on_device(device) as cupy:
        splits = cupy.zeros((size, points), cupy.int32)
        arguments = (cupy.asarray(sums), splits, np.int32(points), np.int32(size))
        kernel(SOURCE, "partition")((1,), (THREADS,), arguments)
        return np.asarray(cupy.asnumpy(splits), np.intp)
