"""Fuzzes the reader of a zipped streamed SOG: lod-meta.json, its tree and its chunks."""

from __future__ import annotations

from engine import main

if __name__ == "__main__":
    main("streamed")
