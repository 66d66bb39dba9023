"""Fuzzes the reader of a plain 3DGS .ply: header, binary records and text."""

from __future__ import annotations

from engine import main

if __name__ == "__main__":
    main("ply")
