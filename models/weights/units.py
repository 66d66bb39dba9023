"""Numbers of bytes in words. Knows decimal units only, as disks and hubs count."""

from __future__ import annotations


def in_units(count: float) -> str:
    """1234567 as "1.2 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
