"""The palette of spherical harmonics: few whole vectors that stand for the scene's many.

Does not know splats or textures: rows in, entries and labels out. `build.py` is the way through.
"""

from __future__ import annotations

from models.splat_to_sog.palette.build import Palette, build_palette, relabel
from models.splat_to_sog.palette.rate import default_size

__all__ = ["Palette", "build_palette", "default_size", "relabel"]
