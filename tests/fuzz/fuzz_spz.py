"""Fuzzes the reader of .spz: header, and the contents of its gzip and zstd streams."""

from __future__ import annotations

from engine import main

if __name__ == "__main__":
    main("spz")
