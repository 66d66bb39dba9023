"""Names that SOG gives its files, for whoever reads, writes, archives or recognises them.

Knows no contents, and imports nothing: the table of formats may be listed without numpy.
"""

from __future__ import annotations

META = "meta.json"
"""Describes one SOG; its textures lie beside it."""

LOD_META = "lod-meta.json"
"""Describes a streamed SOG; its chunks lie in folders beside it, each with a META of its own."""

TEXTURE = ".webp"
"""The ending of every texture."""
