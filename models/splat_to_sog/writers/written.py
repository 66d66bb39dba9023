"""What became of a scene that was written, and the half-written file that nobody must see.

Does not know any format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from models.context import InvalidInput
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import COEFFICIENTS, Splats

STAGE = "write"


@dataclass(frozen=True)
class Written:
    """The files, the one to open first; lost: what the format cannot hold, and of how many."""

    files: tuple[Path, ...]
    lost: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under `path` once it is complete, and not at all after an error."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w+b") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def require_finite(splats: Splats, name: str) -> None:
    """Refuse what a packed format has no code for: NaN, and infinities but for the legal ones.

    Legal: opacity of +-inf, log-scale of -inf (`splats.drop_non_finite` keeps those).
    """
    for rows in chunks(len(splats)):
        broken = {
            "position": ~np.isfinite(splats.means[rows]),
            "scale": np.isnan(splats.scales[rows]) | np.isposinf(splats.scales[rows]),
            "rotation": ~np.isfinite(splats.quats[rows]),
            "opacity": np.isnan(splats.opacities[rows]),
            "colour": ~np.isfinite(splats.sh0[rows]),
            "harmonics": ~np.isfinite(splats.shN[rows]),
        }
        for what, mask in broken.items():
            if mask.any():
                row = rows.start + int(np.argwhere(mask)[0][0])
                raise InvalidInput(
                    f"{name}: the {what} of splat {row} is not finite; a packed format holds "
                    "finite numbers only.",
                    code="splat_not_finite",
                    next_step="Drop the splats that are not finite first, or write a .ply.",
                )


def within_degree(splats: Splats, highest: int) -> tuple[Splats, dict[str, int]]:
    """(the scene without the bands above `highest`: a view, nothing is copied; what that loses)."""
    if splats.degree <= highest:
        return splats, {}
    cut = replace(splats, shN=splats.shN[:, :, : COEFFICIENTS[highest]])
    return cut, {f"harmonics above degree {highest}": len(splats)}
