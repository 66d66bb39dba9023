"""Fuzzes the reader of .ksplat: headers, sections and buckets."""

from __future__ import annotations

from engine import main

if __name__ == "__main__":
    main("ksplat")
