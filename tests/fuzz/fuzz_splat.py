"""Fuzzes the reader of .splat, which has no header: what passes for one, and its records."""

from __future__ import annotations

from engine import main

if __name__ == "__main__":
    main("splat")
