"""Reads antimatter15's .splat: 32-byte records without a header, a name or harmonics.

Having no first bytes of its own, the format is known by a file's name, or by its records looking
like splats. Rotation bytes are (byte - 128) / 128, as its first writer and viewer have it; tools
that read byte / 127.5 - 1 turn every splat by up to half a degree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.layout import alpha_to_logit
from models.splat_to_sog.readers.blocks import each_block
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import SH_C0, Splats

RECORD = np.dtype(
    [
        ("position", "<f4", 3),
        ("scale", "<f4", 3),  # standard deviation, not its logarithm
        ("rgba", "u1", 4),
        ("rotation", "u1", 4),  # w, x, y, z
    ]
)
SAMPLE = 4096  # records looked at
PLAUSIBLE_SHARE = 0.5
LARGEST_UNIT = 1e6  # scene units; larger coordinates are other formats' bytes


def read_splat(path: Path, name: str, scratch: Scratch | None = None) -> Splats:
    size = path.stat().st_size
    if size % RECORD.itemsize:
        raise _bad(
            name,
            f"{size} bytes are not a whole number of {RECORD.itemsize}-byte records: it is cut "
            "short or of another format",
        )
    splats = Splats.empty(size // RECORD.itemsize, 0, scratch=scratch)

    def decode(rows: slice, records: NDArray[Any]) -> None:
        splats.means[rows] = records["position"]
        with np.errstate(divide="ignore"):
            splats.scales[rows] = np.log(records["scale"])  # 0 = flat; negative: NaN, dropped
        splats.quats[rows] = (records["rotation"].astype(np.float32) - 128) / 128
        rgba = records["rgba"]
        splats.sh0[rows] = (rgba[:, :3] / 255 - 0.5) / SH_C0
        splats.opacities[rows] = alpha_to_logit(rgba[:, 3])

    each_block(path, 0, len(splats), RECORD, decode, name)
    return splats


def looks_like_splat(path: Path, named: bool) -> bool:
    """Whether most of the first records have small finite positions and scales, and unit rotations.

    named: the file is called .splat, so that rotations may be half a unit too short or too long.
    Of random bytes, one record in two thousand passes when it is not.
    """
    records = np.fromfile(path, RECORD, count=SAMPLE)
    if not len(records):
        return False
    with np.errstate(invalid="ignore"):
        near = (np.abs(records["position"]) < LARGEST_UNIT).all(axis=1)
        sized = ((records["scale"] >= 0) & (records["scale"] < LARGEST_UNIT)).all(axis=1)
        length = np.linalg.norm((records["rotation"].astype(np.float32) - 128) / 128, axis=1)
    unit = np.abs(length - 1) < (0.5 if named else 0.05)  # 8 bits round by 0.008 a component
    return bool((near & sized & unit).mean() >= PLAUSIBLE_SHARE)


def _bad(name: str, problem: str) -> InvalidInput:
    return InvalidInput(
        f"{name}: .splat: {problem}.",
        code="splat_truncated",
        next_step="Upload the complete file, or export the scene as .ply, .spz or .sog.",
    )
