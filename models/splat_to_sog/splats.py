"""Splats: one Gaussian scene as plain arrays, and the checks that make it safe to encode.

Knows nothing of files: readers make it, the encoder and the writers take it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.scratch import Scratch, chunks
from models.splat_to_sog.threads import in_threads

Float32 = NDArray[np.float32]
Model = Literal["default", "antialiased", "2dgs"]

COEFFICIENTS = (0, 3, 8, 15, 24)
"""Spherical-harmonics coefficients a channel above the constant one, by degree 0..4."""

SH_C0 = 0.28209479177387814
"""Constant band: display colour = 0.5 + SH_C0 * sh0."""


@dataclass(frozen=True)
class Splats:
    """A scene of N Gaussians in the space of a 3DGS .ply (y down, z forward); never modified."""

    means: Float32  # [N, 3] centre, scene units
    scales: Float32  # [N, 3] natural log of the standard deviation, scene units; -inf = flat
    quats: Float32  # [N, 4] rotation w, x, y, z; of any length
    opacities: Float32  # [N] logit; +-inf = fully opaque or invisible
    sh0: Float32  # [N, 3] constant SH coefficient of red, green, blue
    shN: Float32  # [N, 3, K] channel, coefficient; K of COEFFICIENTS  # noqa: N815
    model: Model = "default"

    def __post_init__(self) -> None:
        n = len(self.means)
        wanted = {
            "means": (n, 3),
            "scales": (n, 3),
            "quats": (n, 4),
            "opacities": (n,),
            "sh0": (n, 3),
            "shN": (n, 3, self.shN.shape[-1]),
        }
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name}: {array.dtype} {array.shape}, expected float32 {shape}")
        if self.shN.shape[2] not in COEFFICIENTS:
            raise ValueError(
                f"shN: {self.shN.shape[2]} coefficients, expected one of {COEFFICIENTS}"
            )

    @classmethod
    def empty(
        cls, count: int, degree: int, scratch: Scratch | None = None, model: Model = "default"
    ) -> Splats:
        """Room for `count` splats, uninitialised: the caller fills every row before use."""
        empty = np.empty if scratch is None else scratch.empty
        return cls(
            means=empty((count, 3), np.float32),
            scales=empty((count, 3), np.float32),
            quats=empty((count, 4), np.float32),
            opacities=empty((count,), np.float32),
            sh0=empty((count, 3), np.float32),
            shN=empty((count, 3, COEFFICIENTS[degree]), np.float32),
            model=model,
        )

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Spherical-harmonics degree, 0..4."""
        return COEFFICIENTS.index(self.shN.shape[2])

    def take(
        self, rows: NDArray[np.intp] | NDArray[np.bool_], scratch: Scratch | None = None
    ) -> Splats:
        """The splats of these rows (indices [M] or mask [N]), in that order; all of them: self."""
        if rows.dtype == np.bool_:
            if len(rows) == len(self) and rows.all():
                return self
            rows = np.flatnonzero(rows)
        taken = Splats.empty(len(rows), self.degree, scratch, self.model)
        for name in ATTRIBUTES:
            source, target = getattr(self, name), getattr(taken, name)
            for chunk in _pieces(target):
                target[chunk] = source[rows[chunk]]
        return taken

    def cut_degree(self, degree: int, scratch: Scratch | None = None) -> Splats:
        """The same splats without the bands above `degree`."""
        if degree >= self.degree:
            return self
        kept = COEFFICIENTS[degree]
        empty = np.empty if scratch is None else scratch.empty
        harmonics = empty((len(self), 3, kept), np.float32)
        for chunk in _pieces(self.shN):
            harmonics[chunk] = self.shN[chunk, :, :kept]
        return replace(self, shN=harmonics)


PIECE_BYTES = 4 << 20
"""What a pass over an attribute handles at once: it stays in cache, and copies of it are small."""

MAX_THREADS = 8
"""Of a pass that memory bounds."""


def _pieces(array: NDArray[Any]) -> Iterator[slice]:
    """Slices that cover the array's rows, of about PIECE_BYTES each."""
    row_bytes = max(1, math.prod(array.shape[1:])) * array.itemsize
    return chunks(len(array), max(1, PIECE_BYTES // row_bytes))


ATTRIBUTES = ("means", "scales", "quats", "opacities", "sh0", "shN")


@dataclass(frozen=True)
class Cleaned:
    """A scene made safe. dropped: splats per reason; one splat may count under several."""

    splats: Splats
    dropped: dict[str, int]
    dropped_total: int
    repaired: dict[str, int]


REASONS = {  # attribute -> why a splat is dropped, and the infinities that are legal there
    "means": ("position not finite", ()),
    "scales": ("scale NaN or +inf", (-np.inf,)),
    "quats": ("rotation not finite", ()),
    "opacities": ("opacity NaN", (-np.inf, np.inf)),
    "sh0": ("colour not finite", ()),
    "shN": ("harmonics not finite", ()),
}


def drop_non_finite(splats: Splats, scratch: Scratch | None = None) -> Cleaned:
    """Drop splats no renderer can draw; count every reason. Nothing to drop: nothing is copied.

    Legal and kept: opacity +-inf (alpha exactly 1 or 0) and scale -inf (a flat axis). NaN anywhere,
    and infinities elsewhere, drop the splat. A zero quaternion has no direction: it is read as "no
    rotation", which is what renderers do with it, and counted under `repaired`.
    """
    kept_rows = np.ones(len(splats), bool)
    dropped: dict[str, int] = {}
    for attribute, (reason, legal) in REASONS.items():
        values = getattr(splats, attribute)
        pieces = list(_pieces(values))
        found = in_threads(partial(_undrawable, values, legal), pieces, MAX_THREADS)
        for chunk, bad in zip(pieces, found, strict=True):
            if bad is not None:
                dropped[reason] = dropped.get(reason, 0) + int(bad.sum())
                kept_rows[chunk] &= ~bad
    kept = splats.take(kept_rows, scratch)
    kept, zero = _with_rotations(kept, scratch)
    return Cleaned(
        splats=kept,
        dropped=dropped,
        dropped_total=len(splats) - len(kept),
        repaired={"rotation zero, read as none": zero} if zero else {},
    )


def _undrawable(
    all_values: Float32,  # [N, ...]
    legal: tuple[float, ...],
    rows: slice,
) -> NDArray[np.bool_] | None:  # [n]
    """Of these rows: those with a NaN or an infinity that is not legal; None when there is none.

    The sum of the whole block answers for nearly every block, at the speed of memory: it is finite
    only if every value is (and below +inf only if nothing is NaN or +inf).
    """
    values = all_values[rows].reshape(rows.stop - rows.start, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(values.sum(dtype=np.float32))
    if np.isfinite(total) or total in legal:
        return None
    fine = np.isfinite(values)
    for infinity in legal:
        fine |= values == infinity
    bad = np.logical_not(fine.all(axis=1))
    return bad if bad.any() else None


def _with_rotations(splats: Splats, scratch: Scratch | None) -> tuple[Splats, int]:
    """The scene with each zero quaternion made "no rotation", and how many there were."""
    zero = in_threads(
        lambda chunk: chunk.start + np.flatnonzero(~splats.quats[chunk].any(axis=1)),
        _pieces(splats.quats),
        MAX_THREADS,
    )
    rows = np.concatenate(zero) if zero else np.zeros(0, np.intp)
    if not len(rows):
        return splats, 0
    quats = (np.empty if scratch is None else scratch.empty)(splats.quats.shape, np.float32)
    for chunk in _pieces(quats):
        quats[chunk] = splats.quats[chunk]
    quats[rows] = (1, 0, 0, 0)
    return replace(splats, quats=quats), len(rows)
