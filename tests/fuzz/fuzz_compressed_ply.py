"""Fuzzes the reader of PlayCanvas .compressed.ply: chunks, packed words and harmonics."""

from __future__ import annotations

from engine import main

if __name__ == "__main__":
    main("compressed_ply")
