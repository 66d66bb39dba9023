"""How .spz marks and scales what it stores, for reader and writer alike.

Does not read or write: it is what both sides must agree on, as `layout` is for SOG.
"""

from __future__ import annotations

MAGIC = b"NGSP"

FLAG_ANTIALIASED = 1
FLAG_EXTENSIONS = 2
"""Vendor data follows the arrays."""

COLOUR_SCALE = 0.15
"""A colour's byte is 255 (sh0 COLOUR_SCALE + 0.5)."""
