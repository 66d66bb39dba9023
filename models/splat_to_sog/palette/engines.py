"""Where a palette is trained and rows are labelled: on this machine's cores or on a GPU.

Does not know sizes, prices or what rows mean. Both do the same for `build`, each its own way: the
CPU in two levels, since work there grows with what is compared; a GPU compares all with all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.device import import_cupy
from models.splat_to_sog.palette import rate
from models.splat_to_sog.palette.cells import nearest_by_cells
from models.splat_to_sog.palette.k_means import no_step
from models.splat_to_sog.palette.nearest import FLAT_SIZE, nearest, threads
from models.splat_to_sog.palette.two_level import train
from models.splat_to_sog.stages import OnStep
from models.splat_to_sog.threads import threads_are_ours

if TYPE_CHECKING:
    from models.splat_to_sog.palette.device import Rows

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Labels = NDArray[np.intp]


class Cpu:
    """Threads of its own while it is entered, one a core."""

    def __enter__(self) -> Cpu:
        self.ours = threads_are_ours()
        self.ours.__enter__()
        self.pool = threads()
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.ours.__exit__(None, None, None)

    def train(
        self, rows: Float32, weights: Float32, size: int, seed: int, on_step: OnStep = no_step
    ) -> tuple[Float32, Float64]:
        return train(rows, weights, size, seed, self.pool, on_step)

    def trained(self, seed: int) -> rate.Train:
        def run(rows: Float32, weights: Float32, size: int) -> tuple[Float32, Float64, float]:
            entries, served = self.train(rows, weights, size, seed)
            _, distance = self._search(rows, entries)
            return entries, served, float(np.average(distance, weights=weights))

        return run

    def _search(self, rows: Float32, entries: Float32) -> tuple[Labels, Float32]:
        if len(entries) <= FLAT_SIZE:
            return nearest(rows, entries, self.pool)
        return nearest_by_cells(rows, entries, self.pool)

    def label(self, rows: Float32, entries: Float32) -> Labels:
        return self._search(rows, entries)[0]


class Gpu:
    """Keeps the rows it was given last on the device: they are trained on, then labelled."""

    def __init__(self, device: str) -> None:
        from models.splat_to_sog.palette import device as gpu

        self.gpu, self.device = gpu, device
        import_cupy(device)
        self._rows: Float32 | None = None

    def __enter__(self) -> Gpu:
        return self

    def __exit__(self, *error: object) -> None:
        """Its arrays die with their names."""

    def train(
        self, rows: Float32, weights: Float32, size: int, seed: int, on_step: OnStep = no_step
    ) -> tuple[Float32, Float64]:
        entries, served, _ = self.gpu.train(self._moved(rows), weights, size, seed, on_step)
        return entries, served

    def trained(self, seed: int) -> rate.Train:
        def run(rows: Float32, weights: Float32, size: int) -> tuple[Float32, Float64, float]:
            found: tuple[Float32, Float64, float]
            found = self.gpu.train(self._moved(rows), weights, size, seed)
            return found

        return run

    def label(self, rows: Float32, entries: Float32) -> Labels:
        if rows is self._rows:
            return self._on_device.label(entries)
        return self.gpu.relabel(rows, entries, self.device)

    def _moved(self, rows: Float32) -> Rows:
        if rows is not self._rows:
            self._on_device, self._rows = self.gpu.Rows(rows, self.device), rows
        return self._on_device


Engine = Cpu | Gpu


def engine_of(device: str) -> Engine:
    """To be entered with `with`. Raises Unavailable for a device that is missing."""
    return Cpu() if device == "cpu" else Gpu(device)
