"""Orders on an NVIDIA GPU, the same as the CPU's for the same splats: the curve and the walk.

Does not know what the channels mean. The curve (`hilbert.py`): a thread a splat, then a stable
sort. The walk (`walk.py`): one thread block walks one block of splats out of shared
memory: all threads measure distances from where the walk is, the nearest is found by a reduction,
and it changes places with the first that is free. A million splats of 14 channels in blocks of
1,024 take 4 ms on an H200 (blocks of 256: 1.7 ms, of 4,096: 24 ms). CuPy compiles the kernel for
the card at hand, sm_75 and up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import Unavailable
from models.splat_to_sog.device import import_cupy, kernel, on_device
from models.splat_to_sog.order.walk import Coordinates

THREADS = 256
PART_SPLATS = 1 << 20  # whose coordinates are on the device at once
PLAIN_SHARED_BYTES = 48 << 10  # above, a kernel has to ask

SOURCE = r"""
// Key of a grid position along the curve, below its group. Skilling, 2004, as in hilbert.py.
extern "C" __global__ void curve_keys(
    const unsigned short* steps,  // [total, 3]
    const unsigned char* group,   // [total]
    unsigned long long* keys,     // [total]
    int total)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    unsigned int x[3] = {steps[3ll * i], steps[3ll * i + 1], steps[3ll * i + 2]};
    for (int bit = 15; bit; --bit) {
        const unsigned int below = (1u << bit) - 1;
        for (int axis = 0; axis < 3; ++axis) {
            if (x[axis] >> bit & 1) x[0] ^= below;
            else {
                const unsigned int exchanged = (x[0] ^ x[axis]) & below;
                x[0] ^= exchanged;
                x[axis] ^= exchanged;
            }
        }
    }
    x[1] ^= x[0];
    x[2] ^= x[1];
    unsigned int flip = 0;
    for (int bit = 15; bit; --bit)
        if (x[2] >> bit & 1) flip ^= (1u << bit) - 1;
    unsigned long long key = group[i];
    for (int bit = 15; bit >= 0; --bit)
        for (int axis = 0; axis < 3; ++axis) key = key << 1 | ((x[axis] ^ flip) >> bit & 1);
    keys[i] = key;
}

extern "C" __global__ void walk(
    const short* coordinates,  // [channels, total]
    unsigned short* placed,    // [total] position within its block of the splat at each place
    long long total, int channels, int span)
{
    extern __shared__ short shared[];
    short* x = shared;  // [channels, span]
    unsigned short* place = (unsigned short*)(shared + channels * span);  // [span]
    __shared__ unsigned int warp_best[2][32];
    const long long base = (long long)blockIdx.x * span;
    const int warps = blockDim.x / 32;
    for (int c = 0; c < channels; ++c)
        for (int i = threadIdx.x; i < span; i += blockDim.x)
            x[c * span + i] = coordinates[c * total + base + i];
    for (int i = threadIdx.x; i < span; i += blockDim.x) place[i] = i;
    __syncthreads();
    for (int at = 0; at < span - 2; ++at) {
        // Distance above, place below: the least is the nearest, and of equals the first.
        unsigned int best = 0xFFFFFFFFu;
        for (int i = at + 1 + threadIdx.x; i < span; i += blockDim.x) {
            int distance = 0;
            for (int c = 0; c < channels; ++c)
                distance += abs((int)x[c * span + i] - (int)x[c * span + at]);
            best = min(best, (unsigned int)distance << 16 | (unsigned int)i);
        }
        for (int lanes = 16; lanes; lanes >>= 1)
            best = min(best, __shfl_xor_sync(0xFFFFFFFFu, best, lanes));
        if (threadIdx.x % 32 == 0) warp_best[at & 1][threadIdx.x / 32] = best;
        __syncthreads();
        for (int w = 0; w < warps; ++w) best = min(best, warp_best[at & 1][w]);
        const int nearest = best & 0xFFFFu;
        for (int c = threadIdx.x; c <= channels; c += blockDim.x) {
            short* row = c < channels ? x + c * span : (short*)place;
            const short taken = row[nearest];
            row[nearest] = row[at + 1];
            row[at + 1] = taken;
        }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < span; i += blockDim.x) placed[base + i] = place[i];
}
"""


def hilbert_order_on_device(
    steps: NDArray[np.uint16],  # [N, 3]
    group: NDArray[np.uint8],  # [N]
    device: str,
) -> NDArray[np.intp]:  # [N]
    """Indices that sort by group, then along the curve, then by place: what
    `lexsort((hilbert_keys(steps), group))` returns."""
    with on_device(device) as cupy:
        keys = cupy.empty(len(steps), cupy.uint64)
        arguments = (cupy.asarray(steps), cupy.asarray(group), keys, np.int32(len(steps)))
        kernel(SOURCE, "curve_keys")((-(-len(steps) // THREADS),), (THREADS,), arguments)
        return np.asarray(cupy.asnumpy(cupy.argsort(keys)), np.intp)  # a stable sort


def walk_on_device(
    coordinates: Coordinates,
    order: NDArray[np.intp],  # [N]
    span: int,
    device: str,  # "cuda" or "cuda:1"
) -> NDArray[np.intp]:  # [N]
    """What `walk` returns. Raises Unavailable without CuPy, the device, or enough shared memory."""
    cupy, found = import_cupy(device)
    out = np.empty_like(order)
    whole = len(order) - len(order) % span
    step = max(1, PART_SPLATS // span) * span
    parts = [(start, min(start + step, whole), span) for start in range(0, whole, step)]
    if whole < len(order):
        parts.append((whole, len(order), len(order) - whole))
    with found:
        for start, stop, length in parts:
            rows = order[start:stop]
            placed = _walk_blocks(cupy, found, coordinates(rows), length).astype(np.intp)
            blocks = np.arange(0, stop - start, length)[:, None]
            out[start:stop] = rows[(placed.reshape(-1, length) + blocks).ravel()]
    return out


def _walk_blocks(cupy: Any, found: Any, values: NDArray[np.int16], span: int) -> NDArray[np.uint16]:
    channels, total = values.shape
    shared_bytes = 2 * (channels + 1) * span
    most = found.attributes["MaxSharedMemoryPerBlockOptin"]
    if shared_bytes > most:
        raise Unavailable(
            f"blocks of {span} splats need {shared_bytes} bytes of shared memory; "
            f"device {found.id} has {most} a block",
            next_step="Use shorter blocks, or device='cpu'.",
        )
    run = kernel(SOURCE, "walk")
    if shared_bytes > PLAIN_SHARED_BYTES:
        run.max_dynamic_shared_size_bytes = shared_bytes
    placed = cupy.empty(total, cupy.uint16)
    arguments = (
        cupy.asarray(np.ascontiguousarray(values)),
        placed,
        np.int64(total),
        np.int32(channels),
        np.int32(span),
    )
    run((total // span,), (THREADS,), arguments, shared_mem=shared_bytes)
    return np.asarray(cupy.asnumpy(placed))
