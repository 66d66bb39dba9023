"""What a price will cost and lose, before anything is coded: an error in pictures, and bytes.

Does not know textures. Both are rough by a factor that is the same at all prices of a scene: good
for where to try first, and for how far to go from what was tried (`targets`).
"""

from __future__ import annotations

import math

import numpy as np

from models.splat_to_sog.columns import Columns
from models.splat_to_sog.importance import ATTRIBUTES
from models.splat_to_sog.palette import Palettes

FINEST_BITS = 100.0  # of a splat without harmonics at the finest steps
LEAST_BITS = 20.0  # of one at the coarsest
OVERHEAD_BYTES = 4000  # of the description, headers and code tables
LEAST_ERROR = 1e-12  # 120 dB: pictures are told apart up to there


class Prediction:
    """columns and palettes of one scene (None: without harmonics) at any price."""

    def __init__(self, columns: Columns, palettes: Palettes | None) -> None:
        self.columns, self.palettes = columns, palettes
        self._members = np.bincount(columns.classes.of, minlength=columns.classes.count)

    def psnr_db(self, price: float) -> float:
        """Of pictures of the scene as it would be read back."""
        error = self.columns.predicted_error(price)
        found = self.palettes.predicted(price) if self.palettes else None
        if found is not None:
            error += found.error
        return -10 * math.log10(max(error, LEAST_ERROR))

    def bytes(self, price: float) -> float:
        """Of all files."""
        found = self.palettes.predicted(price) if self.palettes else None
        harmonics = 0.0 if found is None else found.bits
        return (self._column_bits(price) + harmonics) / 8 + OVERHEAD_BYTES

    def _column_bits(self, price: float) -> float:
        """A number's step twice as large saves a bit of it."""
        count = int(self._members.sum())
        steps = self.columns.classes.steps(price)
        finest, worth = self.columns.finest
        saved = 0.0
        for name, numbers in ATTRIBUTES.items():
            ratio = worth[name] * steps[name] ** 2 / 12 / np.maximum(finest[name], 1e-300)
            bits = np.log2(np.clip(ratio, 1, 2.0**16)) / 2
            saved += numbers * float(self._members @ bits)
        return max(count * FINEST_BITS - saved, count * LEAST_BITS)
