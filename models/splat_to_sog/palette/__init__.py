"""The palette of spherical harmonics: few whole vectors that stand for the scene's many.

Does not know splats or textures: rows in, entries and labels out. `build.py` is the way through.
"""

from __future__ import annotations

from models.splat_to_sog.palette.build import Palette, Palettes, build_palette, measure, relabel
from models.splat_to_sog.palette.rate import Trade, default_size

__all__ = [
    "Palette",
    "Palettes",
    "Trade",
    "build_palette",
    "default_size",
    "measure",
    "relabel",
]
