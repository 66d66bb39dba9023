"""Is this file what the safetensors format says it is, and is it whole: by its header alone.

Knows nothing of the tensors' meaning and loads none. Format: 8 bytes of little-endian length, that
much JSON naming each tensor's dtype, shape and byte range, then the bytes, without a gap
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

LONGEST_HEADER_BYTES = 100_000_000  # the limit of the format's own library
PICKLE_STARTS = (b"\x80", b"PK")  # a bare pickle, or torch.save's ZIP with one inside


class NotSafetensors(ValueError):
    """The message is a clause: "it is a pickle", "its header is cut off"."""


def whole_size(path: Path) -> int:
    """Bytes the file must have, as its header says. Raises NotSafetensors, OSError."""
    with path.open("rb") as file:
        start = file.read(9)
        if not start.endswith(b"{") or len(start) < 9:  # lengths may look like a pickle's start
            pickled = start.startswith(PICKLE_STARTS)
            raise NotSafetensors("it is a pickle" if pickled else "it does not begin with a header")
        (length,) = struct.unpack("<Q", start[:8])
        if length > LONGEST_HEADER_BYTES:
            raise NotSafetensors(f"its header claims {length:,} bytes")
        header = b"{" + file.read(length - 1)
    if len(header) < length:
        raise NotSafetensors("its header is cut off")
    try:
        tensors = json.loads(header)
        ends = [_end_of(tensors[name]) for name in tensors if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise NotSafetensors("its header is not one of tensors") from None
    return 8 + int(length) + max(ends, default=0)


def _end_of(tensor: Any) -> int:
    """One past a tensor's last byte, counted from the end of the header."""
    start, end = tensor["data_offsets"]
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start <= end:
        raise ValueError("a byte range runs backwards")
    return end


def check(path: Path) -> None:
    """Raises NotSafetensors when the file is none, or not as long as its header says."""
    expected, size = whole_size(path), path.stat().st_size
    if size != expected:
        raise NotSafetensors(f"it has {size:,} bytes, its header says {expected:,}")
