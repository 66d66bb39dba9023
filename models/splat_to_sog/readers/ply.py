"""Reads a 3DGS .ply: properties of any type and order, others passed over.

Does not know the packed variant of the format: that is `compressed_ply`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.readers.ply_header import EXPORT_STEP, Element, PlyHeader
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import COEFFICIENTS, Float32, Model, Splats

MEANS = ("x", "y", "z")
SH0 = ("f_dc_0", "f_dc_1", "f_dc_2")
SCALES = ("scale_0", "scale_1", "scale_2")
QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")

WIDE = 6
"""From this many neighbouring columns on, copying row by row beats column by column (measured)."""


def read_ply(header: PlyHeader, name: str, scratch: Scratch | None = None) -> Splats:
    """The `vertex` element as splats. Without scale_2 it is a 2DGS scene: flat along that axis."""
    vertex = header.elements.get("vertex")
    if vertex is None:
        raise InvalidInput(
            f"{name}: the PLY has no element 'vertex' "
            f"(it has: {', '.join(header.elements) or 'none'}).",
            code="splat_header",
            next_step=EXPORT_STEP,
        )
    have = list(vertex.properties)
    flat = "scale_2" not in have and "scale_1" in have
    scale_columns = SCALES[:2] if flat else SCALES
    missing = [c for c in (*MEANS, *SH0, "opacity", *scale_columns, *QUATS) if c not in have]
    if missing:
        raise InvalidInput(
            f"{name}: element 'vertex' lacks the properties {', '.join(missing)}: "
            "a 3DGS .ply has x y z, f_dc_0..2, opacity, scale_0..2 and rot_0..3.",
            code="splat_header",
            next_step="A point cloud or a mesh is not a splat: train or export a Gaussian splat.",
        )
    rest = _rest_columns(have, name)
    model = "2dgs" if flat else model_of(header.comments)
    splats = Splats.empty(
        vertex.count, COEFFICIENTS.index(len(rest) // 3), scratch=scratch, model=model
    )
    targets = (
        (splats.means, MEANS),
        (splats.scales, scale_columns),
        (splats.quats, QUATS),
        (splats.opacities[:, None], ("opacity",)),
        (splats.sh0, SH0),
        (splats.shN.reshape(vertex.count, len(rest)), rest),
    )
    runs = [run for target, columns in targets for run in _runs(vertex, target, columns)]
    stride = vertex.dtype.itemsize

    def columns_of(rows: slice, records: NDArray[Any]) -> None:
        data = records.view(np.uint8)
        for run in runs:
            shape, strides = (len(records), run.width), (stride, run.dtype.itemsize)
            source = np.ndarray(shape, run.dtype, data, run.offset, strides)
            target = run.target[rows, run.first : run.first + run.width]
            if run.width >= WIDE:
                target[:] = source
            else:
                for column in range(run.width):
                    target[:, column] = source[:, column]
        if flat:
            splats.scales[rows, 2] = -np.inf

    header.each_block("vertex", columns_of, name)
    return splats


@dataclass(frozen=True)
class _Run:
    """Neighbouring properties of one type that are neighbours in the scene's array as well."""

    target: Float32  # [N, C]
    first: int  # column of the target
    width: int
    offset: int  # byte in the record
    dtype: np.dtype[Any]


def _runs(vertex: Element, target: Float32, columns: tuple[str, ...]) -> list[_Run]:
    fields: Mapping[str, Any] = vertex.dtype.fields or {}
    runs: list[_Run] = []
    for column, name in enumerate(columns):
        dtype, offset = fields[name][:2]
        last = runs[-1] if runs else None
        if last and last.dtype == dtype and last.offset + last.width * dtype.itemsize == offset:
            runs[-1] = _Run(target, last.first, last.width + 1, last.offset, dtype)
        else:
            runs.append(_Run(target, column, 1, offset, dtype))
    return runs


def model_of(comments: tuple[str, ...]) -> Model:
    """How the scene was trained, from the comments that Brush and Postshot write; the last wins."""
    model: Model = "default"
    for comment in comments:
        match comment.replace(":", " ").lower().split():
            case ["splatrendermode", "mip"] | ["antialiased", "1" | "true"]:
                model = "antialiased"
            case ["splatrendermode", "2dgs"]:
                model = "2dgs"
            case ["splatrendermode", "default"] | ["antialiased", "0" | "false"]:
                model = "default"
    return model


def _rest_columns(have: list[str], name: str) -> tuple[str, ...]:
    """f_rest_0 .. f_rest_(3K-1), all of them or none."""
    found = {column for column in have if column.startswith("f_rest_")}
    count = len(found)
    rest = tuple(f"f_rest_{i}" for i in range(count))
    allowed = [3 * k for k in COEFFICIENTS]
    if count not in allowed or found != set(rest):
        raise InvalidInput(
            f"{name}: element 'vertex' has {count} f_rest properties; allowed are f_rest_0 up to "
            f"f_rest_(n-1) with n of {', '.join(map(str, allowed))} (degree 0 to 4).",
            code="splat_header",
            next_step=EXPORT_STEP,
        )
    return rest
