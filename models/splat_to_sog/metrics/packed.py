"""Gaussians in a picture as the compiled loops read them: one line of the processor's cache each.

Does not project or draw. In no order: a tile sorts what lies in it, which costs less than to sort
everything, since a tile's share stays in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.metrics.project import front_to_back
from models.splat_to_sog.metrics.rasterise import ALPHA_MIN, Float32, Projected

U, V, A, B, C, OPACITY, HALF_WIDTH, HALF_HEIGHT, FLOOR, RED, GREEN, BLUE = range(12)
COLUMNS = 12


@dataclass(frozen=True)
class Packed:
    """M Gaussians; the one of least (depth, index) is drawn first."""

    table: Float32  # [M, COLUMNS]; FLOOR: the exponent at which alpha is ALPHA_MIN
    depths: NDArray[np.uint32]  # [M] bits of a positive float32, or a rank
    rows: NDArray[np.int32]  # [M] of the scene

    def sorted(self) -> Projected:
        """As the plain rasteriser takes them."""
        order = front_to_back(self.depths)
        table = self.table[order]
        return Projected(
            means2d=np.ascontiguousarray(table[:, U : V + 1]),
            conics=np.ascontiguousarray(table[:, A : C + 1]),
            colours=np.ascontiguousarray(table[:, RED : BLUE + 1]),
            opacities=np.ascontiguousarray(table[:, OPACITY]),
            radii=np.ascontiguousarray(table[:, HALF_WIDTH : HALF_HEIGHT + 1]),
            rows=self.rows[order],
        )


def pack(projected: Projected) -> Packed:
    """The other way: their place in the list is their depth."""
    table = np.empty((len(projected), COLUMNS), np.float32)
    table[:, U : V + 1] = projected.means2d
    table[:, A : C + 1] = projected.conics
    table[:, OPACITY] = projected.opacities
    table[:, HALF_WIDTH : HALF_HEIGHT + 1] = projected.radii
    table[:, FLOOR] = np.log(np.float32(ALPHA_MIN) / projected.opacities)
    table[:, RED : BLUE + 1] = projected.colours
    return Packed(table, np.arange(len(projected), dtype=np.uint32), projected.rows)
