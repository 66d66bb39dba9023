"""Reads a splat file of any accepted type: recognised by its first bytes, never by its name.

Does not know the formats themselves: each has a file of its own here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models.context import InvalidInput
from models.splat_to_sog.readers.compressed_ply import read_compressed_ply
from models.splat_to_sog.readers.ply import read_ply
from models.splat_to_sog.readers.ply_header import read_header
from models.splat_to_sog.readers.sog import META, read_bundle, read_loose
from models.splat_to_sog.readers.spz import read_spz
from models.splat_to_sog.splats import Splats

ACCEPTED = (
    "3DGS .ply, PlayCanvas .compressed.ply, .spz (v2 to v4), .sog (v2) "
    "or a SOG meta.json with its textures"
)

KNOWN_OTHERS = (  # (first bytes, what to call it)
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"RIFF", "a RIFF file (WebP image?)"),
    (b"GIF8", "a GIF image"),
    (b"glTF", "a binary glTF mesh (.glb)"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip file"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"<", "an XML or HTML text"),
)


def read(path: Path, name: str) -> Splats:
    """The scene in `path`: a file, or a folder that holds a loose SOG.

    name: what the user calls it, for messages. Raises InvalidInput, with the field, the value
    and what is allowed.
    """
    if path.is_dir():
        splats = read_files(_textures_beside(path) | {META: path / META}, name)
    else:
        splats = _read_file(path, name)
    return _not_empty(splats, name)


def read_files(files: Mapping[str, Path], name: str) -> Splats:
    """A loose SOG from its files by name, wherever they lie."""
    if META not in files or not files[META].is_file():
        raise _unknown(name, f"a set of files without a {META}")
    return _not_empty(read_loose(files, name), name)


def _not_empty(splats: Splats, name: str) -> Splats:
    if not len(splats):
        raise InvalidInput(
            f"{name}: it holds 0 splats; at least 1 is needed.",
            code="splat_empty",
            next_step="Check that the export kept the scene.",
        )
    return splats


def _read_file(path: Path, name: str) -> Splats:
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] in (b"ply\n", b"ply\r", b"ply "):
        header = read_header(path, name)
        return (
            read_compressed_ply(header, name)
            if "chunk" in header.elements
            else read_ply(header, name)
        )
    if head[:4] == b"NGSP" or head[:2] == b"\x1f\x8b":
        return read_spz(path, name)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return read_bundle(path, name)
    if head.lstrip()[:1] == b"{":
        return read_loose(_textures_beside(path.parent) | {META: path}, name)
    raise _unknown(name, _describe(head))


def _textures_beside(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.glob("*.webp")) if path.is_file()}


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
