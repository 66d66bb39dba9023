"""Reads a splat file of any accepted type: recognised by its first bytes, else by its name.

Does not know the formats themselves: each has a file of its own here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from models.context import InvalidInput
from models.splat_to_sog.filenames import LOD_META, META
from models.splat_to_sog.readers.compressed_ply import read_compressed_ply
from models.splat_to_sog.readers.container import FolderFiles
from models.splat_to_sog.readers.ksplat import looks_like_ksplat, read_ksplat
from models.splat_to_sog.readers.ply import read_ply
from models.splat_to_sog.readers.ply_header import read_header
from models.splat_to_sog.readers.sog import read_bundle, read_container, read_loose
from models.splat_to_sog.readers.splat import looks_like_splat, read_splat
from models.splat_to_sog.readers.spz import read_spz
from models.splat_to_sog.readers.streamed import Level
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import Splats

ACCEPTED = (
    "3DGS .ply, PlayCanvas .compressed.ply, .splat, .ksplat, .spz (v1 to v4), .sog (v1, v2), "
    f"a SOG {META} with its textures, or a streamed SOG ({LOD_META} with its chunks, or their ZIP)"
)

JSON_OBJECT = re.compile(rb"(\xef\xbb\xbf)?\s*\{\s*[\"}]|\s*\{\s*$")

KNOWN_OTHERS = (  # (first bytes, what to call it)
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"RIFF", "a RIFF file (WebP image?)"),
    (b"GIF8", "a GIF image"),
    (b"glTF", "a binary glTF mesh (.glb)"),
    (b"%PDF", "a PDF document"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"<", "an XML or HTML text"),
)


def read(
    path: Path, name: str, scratch: Scratch | None = None, level: Level | None = None
) -> Splats:
    """The scene in `path`: a file, or a folder that holds a loose or streamed SOG.

    name: what the user calls it, for messages. scratch: where its arrays go; without one they are
    in memory while half of what is free lasts, then in files. level: what to take of a streamed
    SOG, by default its finest level and its environment. Raises InvalidInput, with the field, the
    value and what is allowed.
    """
    scratch = Scratch() if scratch is None else scratch
    if path.is_dir():
        folder = FolderFiles(path, name)
        if not (folder.has(META) or folder.has(LOD_META)):
            raise _unknown(name, f"a folder without a {META} or {LOD_META}")
        return _not_empty(read_container(folder, scratch, level), name)
    return _not_empty(_read_file(path, name, scratch, level), name)


def read_files(
    files: Mapping[str, Path],
    name: str,
    scratch: Scratch | None = None,
    level: Level | None = None,
) -> Splats:
    """A loose or streamed SOG from its files by name ("meta.json", "0_0/meta.json"), wherever they
    lie; otherwise as `read`."""
    if not any(wanted in files and files[wanted].is_file() for wanted in (META, LOD_META)):
        raise _unknown(name, f"a set of files without a {META} or {LOD_META}")
    scratch = Scratch() if scratch is None else scratch
    return _not_empty(read_loose(files, name, scratch, level), name)


def _not_empty(splats: Splats, name: str) -> Splats:
    if not len(splats):
        raise InvalidInput(
            f"{name}: it holds 0 splats; at least 1 is needed.",
            code="splat_empty",
            next_step="Check that the export kept the scene.",
        )
    return splats


def _read_file(path: Path, name: str, scratch: Scratch, level: Level | None) -> Splats:
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] in (b"ply\n", b"ply\r", b"ply "):
        header = read_header(path, name)
        packed = "chunk" in header.elements
        return (read_compressed_ply if packed else read_ply)(header, name, scratch)
    if head[:4] == b"NGSP":
        return read_spz(path, name, scratch)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return read_bundle(path, name, scratch, level)
    # Two formats begin with any bytes, so that a name goes before the weaker signs of others.
    suffix = Path(name).suffix.lower()
    if suffix == ".splat" and looks_like_splat(path, named=True):
        return read_splat(path, name, scratch)
    if head[:3] == b"\x1f\x8b\x08":
        return read_spz(path, name, scratch)
    if JSON_OBJECT.match(head):
        return read_container(FolderFiles(path.parent, name, meta=path), scratch, level)
    if suffix == ".ksplat" or looks_like_ksplat(path):
        return read_ksplat(path, name, scratch)
    if looks_like_splat(path, named=False):
        return read_splat(path, name, scratch)
    raise _unknown(name, _describe(head))


def _describe(head: bytes) -> str:
    if not head:
        return "an empty file"
    for magic, what in KNOWN_OTHERS:
        if head.startswith(magic):
            return what
    return f"a file that begins with {head[:8].hex(' ')} ({head[:8]!r})"


def _unknown(name: str, saw: str) -> InvalidInput:
    return InvalidInput(
        f"{name}: this is {saw}, not a splat. Accepted: {ACCEPTED}.",
        code="splat_type",
        next_step="Export the scene in one of these formats and send that file.",
    )
