"""Bundles files into a .sog: a ZIP that every reader opens, with the same bytes every time.

Does not know what the files contain. The PlayCanvas engine wants the end record in the last 22
bytes (no comment), no Zip64, stored or deflated entries, names at the root.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP can say: bytes must not depend on the clock
MAX_BYTES = (1 << 32) - 1  # beyond this Zip64 would be needed
LAST = "meta.json"


def bundle(files: Mapping[str, bytes]) -> bytes:
    """The archive. WebP is stored, meta.json deflated and placed last."""
    if sum(map(len, files.values())) + 1024 * len(files) > MAX_BYTES:
        raise ValueError("a .sog bundle holds at most 4 GiB")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", allowZip64=False) as archive:
        for name in sorted(files, key=lambda name: name == LAST):
            info = zipfile.ZipInfo(name, TIMESTAMP)
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = 0o644 << 16
            method = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
            archive.writestr(info, files[name], compress_type=method, compresslevel=9)
    return out.getvalue()
