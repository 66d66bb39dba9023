"""The palette's work on an NVIDIA GPU: nearest entries and k-means through CuPy.

Does not know sizes, prices or textures: `build` decides them. The kernels are CUDA C++ in
kernels.cu, compiled by NVRTC for the card at hand (sm_75 and up; sm_90 has one of its own) when a
process first needs them. Sums run in a fixed order: same rows and seed, same bytes.
"""

from __future__ import annotations

import functools
import importlib
import math
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import Unavailable
from models.splat_to_sog.device import UPDATE_COMPILER, import_cupy
from models.splat_to_sog.stages import OnStep

Float32 = NDArray[np.float32]
Labels = NDArray[np.intp]
Array = Any  # a CuPy array: the library is an extra, and imported when it is asked for

GROUP = 16  # the constants of kernels.cu
TILE = 128
BLOCK_ROWS = 512
BIAS_COLUMNS = 3
MAX_COLUMNS = 48 - BIAS_COLUMNS

CENTRE_ROWS = 4096

RMS = 4.0
"""Rows are scaled to this root mean square norm: half precision then holds what matters of them."""

FAR = 32.0
"""Rows beyond this many times the root mean square, at most 1 in 500, are searched exactly."""

CHUNK_ROWS = 1 << 20  # rows that are labelled at once
EXACT_ELEMENTS = 1 << 28


def kernel_options(columns: int, capability: int) -> tuple[str, list[str]]:
    """(name of the search kernel, options for NVRTC) for rows of this many columns on sm_NN."""
    steps = -(-(columns + BIAS_COLUMNS) // 16)
    hopper = capability == 90  # its asynchronous matrix units exist on this card alone
    target = "90a" if hopper else str(capability)
    options = [f"--gpu-architecture=sm_{target}", f"-DKSTEPS={steps}", "--std=c++17"]
    return ("assign_hopper", [*options, "-DWGMMA"]) if hopper else ("assign", options)


def kernel_source() -> str:
    return resources.files(__package__).joinpath("kernels.cu").read_text()


@functools.cache
def load_kernels(capability: int, columns: int, ordinal: int) -> tuple[str, Any]:
    """(name of the search kernel, the compiled module), once per process, device and width."""
    cuda = importlib.import_module("cupy").cuda
    nvrtc = cuda.nvrtc
    name, options = kernel_options(columns, capability)
    program = nvrtc.createProgram(kernel_source(), "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        cubin = nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise Unavailable(
            f"NVRTC {nvrtc.getVersion()} cannot compile for sm_{capability}: {error}\n{log}",
            code="kernel_compiler",
            next_step=UPDATE_COMPILER,
        ) from error
    finally:
        nvrtc.destroyProgram(program)
    with cuda.Device(ordinal):
        module = cuda.function.Module()
        module.load(cubin)
    return name, module


class Rows:
    """Rows on a device, prepared for many searches: as given, and centred, scaled and rounded.

    Raises Unavailable where the device, CuPy or its compiler are missing.
    """

    def __init__(self, rows: Float32, device: str, frame: Rows | None = None) -> None:
        """`frame`: rows whose centre and scale these take, so that all are labelled alike."""
        self.xp, found = import_cupy(device)
        self.device = found
        if rows.shape[1] > MAX_COLUMNS:
            raise ValueError(f"{rows.shape[1]} columns; at most {MAX_COLUMNS}")
        with found:
            self._prepare(rows, frame)

    def _prepare(self, rows: Float32, frame: Rows | None) -> None:
        xp = self.xp
        self.n, self.d = rows.shape
        self.kernel, self.module = load_kernels(
            int(self.device.compute_capability), self.d, int(self.device.id)
        )
        self.x = xp.asarray(np.ascontiguousarray(rows, np.float32))
        if frame is None:
            self.centre, self.scale = self._frame()
        else:
            self.centre, self.scale = frame.centre, frame.scale
        norms = xp.square(self.x - self.centre).sum(axis=1)
        self.far = xp.flatnonzero(norms > (RMS * FAR / self.scale) ** 2)
        padded = BLOCK_ROWS * -(-self.n // BLOCK_ROWS)
        columns = 16 * -(-(self.d + BIAS_COLUMNS) // 16)
        self.halves = xp.empty((padded, columns), xp.uint16)
        self._launch(
            "pack_rows",
            self.halves.size,
            *(self.x, self.centre, self.scale, self.n, self.d, padded, self.halves),
        )

    def _frame(self) -> tuple[Array, np.float32]:
        """Where rows are and how far they spread, whatever a few of them do: medians of a sample,
        and the root mean square of all but the farthest thousandth."""
        xp = self.xp
        centre = xp.median(self.x[:: -(-self.n // CENTRE_ROWS)], axis=0)
        norms = xp.sort(xp.square(self.x - centre).sum(axis=1))
        rms = math.sqrt(float(norms[: max(1, self.n - self.n // 1000)].mean()))
        return centre, np.float32(RMS / rms if rms > 0 else 1)

    def _launch(self, name: str, threads: int, *arguments: Any, block: int = 256) -> None:
        values = [np.int32(a) if isinstance(a, int) else a for a in arguments]
        self.module.get_function(name)((-(-threads // block),), (block,), values)

    def nearest(self, entries: Array) -> tuple[Array, Array]:
        """(label i32, squared distance f32) of each row: exact among the 16 entries of the winning
        group; see `kernels.cu`."""
        xp, count = self.xp, len(entries)
        with self.device:
            padded = TILE * -(-count // TILE)
            bias, least = xp.empty(count, xp.float32), xp.empty(count, xp.float32)
            limit = np.float32(RMS * FAR)
            self._launch(
                "score_bias",
                count,
                *(entries, self.centre, self.scale, limit, count, self.d, bias, least),
            )
            halves = xp.empty((padded, self.halves.shape[1]), xp.uint16)
            grouped = xp.empty((padded // GROUP, self.d, GROUP), xp.float32)
            self._launch(
                "pack_entries",
                padded,
                *(entries, self.centre, bias, least.max(), self.scale),
                *(count, padded, self.d, halves, grouped),
            )
            group = xp.empty(self.n, xp.int32)
            self._search(halves, padded // TILE, group)
            labels, distance = xp.empty(self.n, xp.int32), xp.empty(self.n, xp.float32)
            self._launch(
                "rescore",
                GROUP * self.n,
                *(self.x, grouped, group, self.n, self.d, count, labels, distance),
            )
            if len(self.far):
                self._search_exactly(entries, labels, distance)
        return labels, distance

    def label(self, entries: Float32) -> Labels:
        """Nearest entry of each row, here and not on the device."""
        with self.device:
            on_device = self.xp.asarray(np.ascontiguousarray(entries, np.float32))
            return np.asarray(self.nearest(on_device)[0].get(), np.intp)

    def _search(self, halves: Array, tiles: int, group: Array) -> None:
        rows, threads = (512, 384) if self.kernel == "assign_hopper" else (256, 128)
        grid = len(self.halves) // rows
        arguments = (self.halves, halves, np.int32(self.n), np.int32(tiles), group)
        self.module.get_function(self.kernel)((grid,), (threads,), arguments)

    def _search_exactly(self, entries: Array, labels: Array, distance: Array) -> None:
        """The few rows too far out for half precision."""
        xp = self.xp
        step = max(1, EXACT_ELEMENTS // (len(entries) * self.d))
        for start in range(0, len(self.far), step):
            index = self.far[start : start + step]
            gaps = xp.square(self.x[index, None, :] - entries).sum(axis=2)
            chosen = gaps.argmin(axis=1)
            labels[index] = chosen
            distance[index] = gaps[xp.arange(len(index)), chosen]

    def centroids(self, weights: Array, labels: Array, entries: Array) -> Array:
        """Weighted mean of each entry's rows; entries without rows stay. Returns their counts."""
        xp = self.xp
        with self.device:
            order = xp.argsort(labels).astype(xp.int32)  # stable: a fixed order of summing
            starts = xp.searchsorted(labels[order], xp.arange(len(entries) + 1)).astype(xp.int32)
            self.module.get_function("move_entries")(
                (len(entries),), (256,), (self.x, weights, order, starts, np.int32(self.d), entries)
            )
            return xp.diff(starts)

    def draw(self, odds: Array, count: int, seed: int) -> Array:
        """`count` different rows, in proportion to `odds` ([n], 0 is never drawn), sorted."""
        xp = self.xp
        keys = xp.empty(self.n, xp.float32)
        self._launch("draw_keys", self.n, odds, np.uint32(seed & 0xFFFFFFFF), self.n, keys)
        return xp.sort(xp.argsort(keys)[:count])


def k_means(
    rows: Rows,
    weights: Array,  # [N] f32
    size: int,  # 1..N
    seed: int,
    iterations: int = 10,
    on_step: OnStep = lambda fraction: None,
) -> tuple[Array, Array, Array]:
    """(entries [K, D], labels [N], squared distances [N]) by Lloyd's algorithm over all rows.

    An entry left without rows moves onto the row that is served worst.
    """
    xp = rows.xp
    with rows.device:
        entries = _first_entries(rows, weights, size, seed)
        labels, distance = rows.nearest(entries)
        for iteration in range(iterations):
            on_step(iteration / iterations)
            counts = rows.centroids(weights, labels, entries)
            empty = xp.flatnonzero(counts == 0)
            if len(empty) and iteration < iterations - 1:
                worst = xp.argsort(-distance * weights)[: len(empty)]
                entries[empty] = rows.x[worst]
            labels, distance = rows.nearest(entries)
        return entries, labels, distance


def _first_entries(rows: Rows, weights: Array, size: int, seed: int) -> Array:
    """Half drawn evenly, the rest in rounds in proportion to the weighted error so far."""
    xp = rows.xp
    if size >= rows.n:
        return rows.x.copy()
    odds = xp.ones(rows.n, xp.float32)
    chosen = fresh = rows.draw(odds, -(-size // 2), seed)
    best = xp.full(rows.n, xp.inf, xp.float32)
    while (left := size - len(chosen)) > 0:
        best = xp.minimum(best, rows.nearest(rows.x[fresh])[1])
        odds = best * weights + np.float32(1e-30)
        odds[chosen] = 0
        seed += 1
        fresh = rows.draw(odds, -(-left // 2) if left > 1024 else left, seed)
        chosen = xp.concatenate([chosen, fresh])
    return rows.x[xp.sort(chosen)]


def train(
    rows: Rows,
    weights: Float32,
    size: int,
    seed: int,
    on_step: OnStep = lambda fraction: None,
) -> tuple[Float32, NDArray[np.float64], float]:
    """(entries [K, D], weight that each serves [K], weighted mean squared error)."""
    with rows.device:
        w = rows.xp.asarray(weights)
        entries, labels, distance = k_means(rows, w, min(size, rows.n), seed, on_step=on_step)
        # on the CPU: in a fixed order
        served = np.bincount(labels.get(), weights, len(entries)).astype(np.float64)
        return entries.get(), served, float((distance * w).sum() / w.sum())


def relabel(rows: Float32, entries: Float32, device: str) -> Labels:
    """Nearest entry of each row, chunk by chunk; within 1e-4 of the least squared error."""
    out = np.empty(len(rows), np.intp)
    frame = None
    for start in range(0, len(rows), CHUNK_ROWS):
        part = Rows(rows[start : start + CHUNK_ROWS], device, frame)
        frame = frame or part
        out[start : start + part.n] = part.label(entries)
    return out
