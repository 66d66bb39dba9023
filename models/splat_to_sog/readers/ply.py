"""Reads a 3DGS .ply: binary floats in any property order, extra columns passed over.

Does not know the packed variant of the format: that is `compressed_ply`.
"""

from __future__ import annotations

import numpy as np

from models.context import InvalidInput
from models.splat_to_sog.readers.ply_header import EXPORT_STEP, PlyHeader
from models.splat_to_sog.splats import COEFFICIENTS, Model, Splats

BLOCK_ROWS = 1 << 16  # one block of wide records stays in cache while its columns are picked

MEANS = ("x", "y", "z")
SH0 = ("f_dc_0", "f_dc_1", "f_dc_2")
SCALES = ("scale_0", "scale_1", "scale_2")
QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")


def read_ply(header: PlyHeader, name: str) -> Splats:
    """The `vertex` element as splats. Without scale_2 it is a 2DGS scene: flat along that axis."""
    vertex = header.elements.get("vertex")
    if vertex is None:
        raise InvalidInput(
            f"{name}: the PLY has no element 'vertex' "
            f"(it has: {', '.join(header.elements) or 'none'}).",
            code="splat_header",
            next_step=EXPORT_STEP,
        )
    have = [property_name for property_name, _ in vertex.properties]
    flat = "scale_2" not in have and "scale_1" in have
    required = (*MEANS, *SH0, "opacity", *(SCALES[:2] if flat else SCALES), *QUATS)
    missing = [column for column in required if column not in have]
    if missing:
        raise InvalidInput(
            f"{name}: element 'vertex' lacks the properties {', '.join(missing)}: "
            "a 3DGS .ply has x y z, f_dc_0..2, opacity, scale_0..2 and rot_0..3.",
            code="splat_header",
            next_step="A point cloud or a mesh is not a splat: train or export a Gaussian splat.",
        )
    rest = _rest_columns(have, name)
    columns = (*required, *rest)
    records = header.records("vertex")
    table = np.empty((len(columns), vertex.count), np.float32)
    for start in range(0, vertex.count, BLOCK_ROWS):
        block = np.array(records[start : start + BLOCK_ROWS])
        for row, column in enumerate(columns):
            table[row, start : start + len(block)] = block[column]
    position = {column: row for row, column in enumerate(columns)}

    def stack(names: tuple[str, ...]) -> np.ndarray:  # [N, len(names)]
        return np.ascontiguousarray(table[[position[column] for column in names]].T)

    if flat:
        scales = np.full((vertex.count, 3), -np.inf, np.float32)
        scales[:, :2] = stack(SCALES[:2])
    else:
        scales = stack(SCALES)
    return Splats(
        means=stack(MEANS),
        scales=scales,
        quats=stack(QUATS),
        opacities=table[position["opacity"]].copy(),
        sh0=stack(SH0),
        shN=stack(rest).reshape(vertex.count, 3, len(rest) // 3),
        model="2dgs" if flat else model_of(header.comments),
    )


def model_of(comments: tuple[str, ...]) -> Model:
    """How the scene was trained, from the comments that Brush and Postshot write."""
    for comment in comments:
        match comment.replace(":", " ").lower().split():
            case ["splatrendermode", "mip"] | ["antialiased", "1" | "true"]:
                return "antialiased"
            case ["splatrendermode", "2dgs"]:
                return "2dgs"
    return "default"


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
