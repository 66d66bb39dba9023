"""Fuzzes the reader of a .sog bundle: archive, description and texels of versions 1 and 2."""

from __future__ import annotations

from engine import main

if __name__ == "__main__":
    main("sog")
