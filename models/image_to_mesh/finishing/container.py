"""The container of binary glTF 2.0: a header, the document as JSON, the binary chunk.

Knows nothing of what is in them. Format: Khronos glTF 2.0 specification, sections 3.6.2 and 4.4.
"""

from __future__ import annotations

import json
import struct
from typing import Any

FLOAT, UINT16, UINT32 = 5126, 5123, 5125
VERTEX_BUFFER, INDEX_BUFFER = 34962, 34963


def glb(document: dict[str, Any], binary: bytes) -> bytes:
    """Both chunks, each padded to four bytes."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    return b"".join(
        (
            struct.pack("<4sII", b"glTF", 2, total),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(binary), b"BIN\0"),
            binary,
        )
    )
