"""Bundles files into a .sog: a ZIP that every reader opens, with the same bytes every time.

Does not know what the files contain. The PlayCanvas engine wants the end record in the last 22
bytes (no comment), no Zip64, stored or deflated entries, names at the root.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from models.splat_to_sog.filenames import META

TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP can say: bytes must not depend on the clock
MAX_BYTES = (1 << 32) - 1  # beyond this Zip64 would be needed


def bundle(files: Mapping[str, bytes]) -> bytes:
    """The archive. WebP is stored, meta.json deflated and placed last."""
    out = io.BytesIO()
    write_bundle(files, out)
    return out.getvalue()


def write_bundle(files: Mapping[str, bytes], out: BinaryIO) -> None:
    """The archive, file by file into `out`, which must be seekable."""
    if sum(map(len, files.values())) + 1024 * len(files) > MAX_BYTES:
        raise ValueError("a .sog bundle holds at most 4 GiB")
    with zipfile.ZipFile(out, "w", allowZip64=False) as archive:
        for name in sorted(files, key=lambda name: name == META):
            archive.writestr(_entry(name), files[name], compresslevel=9)


def write_archive(files: Mapping[str, Path], out: BinaryIO) -> None:
    """A plain ZIP of files by their names in it, streamed; any tool unpacks it, no engine opens it.

    Unlike a bundle it has folders, and Zip64 records where its size asks for them.
    """
    with zipfile.ZipFile(out, "w") as archive:
        for name, path in files.items():
            entry = _entry(name)
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, TIMESTAMP)
    info.create_system = 3  # Unix, wherever this runs
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
    return info
