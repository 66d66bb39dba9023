"""Writes a 3DGS .ply: binary little-endian floats in the order of the reference code.

Does not drop or change a value: what is written reads back bit for bit, NaN included.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import Model, Splats
from models.splat_to_sog.stages import OnStage
from models.splat_to_sog.writers.formats import PlyOptions
from models.splat_to_sog.writers.written import STAGE, Written, new_file

BLOCK_ROWS = 1 << 15  # 7.7 MB of records at degree 3: interleaved in cache

MODEL_COMMENTS: dict[Model, tuple[str, ...]] = {
    "default": (),
    "antialiased": ("SplatRenderMode: mip", "antialiased 1"),  # Brush; Postshot
    "2dgs": ("SplatRenderMode: 2dgs",),
}


def write_ply(splats: Splats, path: Path, options: PlyOptions, on_stage: OnStage) -> Written:
    """Columns as Inria's `gaussian_model.py` saves them; 2DGS scenes have no scale_2."""
    scale_axes = 2 if splats.model == "2dgs" else 3
    rest = 3 * splats.shN.shape[2]
    names = [
        *("x", "y", "z"),
        *(("nx", "ny", "nz") if options.normals else ()),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(rest)),
        "opacity",
        *(f"scale_{i}" for i in range(scale_axes)),
        *(f"rot_{i}" for i in range(4)),
    ]
    comments = MODEL_COMMENTS[splats.model]
    with new_file(path) as file:
        file.write(header(comments, [("vertex", len(splats), [("float", n) for n in names])]))
        for rows in chunks(len(splats), BLOCK_ROWS):
            on_stage(STAGE, rows.start / len(splats))
            columns = [
                splats.means[rows],
                *([np.zeros_like(splats.means[rows])] if options.normals else []),
                splats.sh0[rows],
                splats.shN[rows].reshape(rows.stop - rows.start, rest),
                splats.opacities[rows, None],
                splats.scales[rows, :scale_axes],
                splats.quats[rows],
            ]
            file.write(np.concatenate(columns, axis=1).astype("<f4", copy=False).data)
    return Written((path,))


def header(
    comments: tuple[str, ...],
    elements: list[tuple[str, int, list[tuple[str, str]]]],  # name, rows, (type, property)
) -> bytes:
    """The header of a binary little-endian PLY."""
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {comment}" for comment in comments]
    for name, count, properties in elements:
        lines.append(f"element {name} {count}")
        lines += [f"property {kind} {name}" for kind, name in properties]
    return "\n".join([*lines, "end_header", ""]).encode("ascii")
