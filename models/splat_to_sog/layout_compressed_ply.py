"""How .compressed.ply lays splats out: columns and value ranges, for reader and writer alike.

Does not read or write: it is what both sides must agree on, as `layout` is for SOG.
"""

from __future__ import annotations

CHUNK = 256
"""Splats that share bounds."""

BOUNDS = [f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"]
SCALE_BOUNDS = [f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"]
COLOUR_BOUNDS = [f"{end}_{channel}" for end in ("min", "max") for channel in "rgb"]
"""Columns of a chunk; files of the first age have no bounds of colours."""

PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
"""Columns of a splat: a word of 32 bits each."""

MAX_LOG_SCALE = 20.0
"""Readers clamp a chunk's bounds of scales to it."""

SH_RANGE = 4.0
"""Harmonics are coded within +- this."""
