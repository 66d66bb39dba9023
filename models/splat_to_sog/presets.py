"""Presets: what one bit may cost in rendered squared error.

Does not know quantisers.
"""

from __future__ import annotations

from models.splat_to_sog.options import Preset

PRICES: dict[Preset, float] = {"quality": 2e-8, "small": 2e-7, "tiny": 1e-6}
"""Mean squared error of a picture per bit a splat; divided by the number of splats."""
