"""The files of a SOG, by their names in the scene: entries of a ZIP, or files wherever they lie.

Does not know what the files hold. An archive is not trusted: safe names, bounded counts, sizes and
ratios, checked before a byte is unpacked.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from models.context import InvalidInput
from models.splat_to_sog.filenames import LOD_META, META

MAX_ENTRIES = 16  # of one SOG
MAX_FILES = 1 << 16  # of a streamed one
MAX_META_BYTES = 4 << 20
MAX_LOD_META_BYTES = 64 << 20
MAX_TEXTURE_BYTES = 1 << 30
MAX_RATIO = 20  # WebP does not deflate: a real entry's ratio is close to 1
FREE_BYTES = 1 << 16  # below this size any ratio is believed

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}\.webp")
"""A texture."""

CHUNK_META = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}/){1,4}meta\.json")
"""The description of a chunk of a streamed SOG, relative to lod-meta.json."""


class Container(Protocol):
    """name: what the user calls it, for messages."""

    name: str

    def has(self, file: str) -> bool: ...

    def read(self, file: str) -> bytes:
        """The file's bytes. Raises InvalidInput when it is missing or too large."""

    def within(self, folder: str) -> Container:
        """The files below this folder ("0_0/"), by their names in it."""


class LooseFiles:
    """Files by their names in the scene ("means_l.webp", "0_0/meta.json"), wherever they lie."""

    def __init__(self, files: Mapping[str, Path], name: str, folder: str = "") -> None:
        self.files, self.name, self.folder = files, name, folder

    def has(self, file: str) -> bool:
        return self.folder + file in self.files

    def read(self, file: str) -> bytes:
        path = self.files.get(self.folder + file)
        if path is None:
            raise missing(self.name, self.folder + file, self.files)
        return _bounded(path, self.folder + file, self.name)

    def within(self, folder: str) -> LooseFiles:
        return LooseFiles(self.files, self.name, self.folder + folder)


class FolderFiles:
    """Files below a folder, looked for when they are asked for. meta: what stands for meta.json."""

    def __init__(self, root: Path, name: str, meta: Path | None = None, folder: str = "") -> None:
        self.root, self.name, self.meta, self.folder = root, name, meta, folder

    def has(self, file: str) -> bool:
        return self._path(file) is not None

    def read(self, file: str) -> bytes:
        path = self._path(file)
        if path is None:
            there = self.root / self.folder
            present = [found.name for found in there.iterdir()] if there.is_dir() else []
            raise missing(self.name, self.folder + file, present)
        return _bounded(path, self.folder + file, self.name)

    def within(self, folder: str) -> FolderFiles:
        return FolderFiles(self.root, self.name, None, self.folder + folder)

    def _path(self, file: str) -> Path | None:
        """With a stand-in, the folder's own descriptions are of other scenes."""
        if self.meta is not None and file in (META, LOD_META):
            return self.meta if file == META else None
        path = self.root / self.folder / file
        return path if path.is_file() else None


def _bounded(path: Path, file: str, name: str) -> bytes:
    limit = _limit(file)
    if path.stat().st_size > limit:
        raise refuse(name, f"'{file}' is larger than {limit} bytes", code="splat_limits")
    return path.read_bytes()


class ZipFiles:
    """Entries of a ZIP archive whose directory has been checked."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        name: str,
        entries: Mapping[str, zipfile.ZipInfo],
        folder: str = "",
    ) -> None:
        self.archive, self.name, self.entries, self.folder = archive, name, entries, folder

    def has(self, file: str) -> bool:
        return self.folder + file in self.entries

    def read(self, file: str) -> bytes:
        info = self.entries.get(self.folder + file)
        if info is None:
            raise missing(self.name, self.folder + file, self.entries)
        try:
            with self.archive.open(info) as stream:
                data = stream.read(info.file_size + 1)
        except ZIP_FAULTS as error:
            raise damaged(self.name, error) from error
        if len(data) != info.file_size:
            raise refuse(
                self.name,
                f"'{info.filename}' does not unpack to its {info.file_size} bytes",
                code="splat_archive",
            )
        return data

    def within(self, folder: str) -> ZipFiles:
        return ZipFiles(self.archive, self.name, self.entries, self.folder + folder)


ZIP_FAULTS = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError),
    *(ValueError, RuntimeError),  # offsets before the file; a password asked for
)
"""What the ZIP module raises at archives that are damaged or made to deceive."""


def open_zip(archive: zipfile.ZipFile, name: str) -> ZipFiles:
    """The archive's files, once every entry is seen to belong in a SOG, streamed or not."""
    infos = archive.infolist()
    streamed = any(info.filename == LOD_META for info in infos)
    most = MAX_FILES if streamed else MAX_ENTRIES
    if len(infos) > most:
        raise refuse(
            name,
            f"the archive has {len(infos)} entries; at most {most} belong in a .sog",
            code="splat_archive",
        )
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        file = info.filename
        if streamed and file.endswith("/"):
            continue
        if not (file == META or NAME.fullmatch(file) or (streamed and _in_streamed(file))):
            raise refuse(
                name,
                f"the archive has an entry {file[:80]!r}; "
                "only meta.json and *.webp at the root belong in a .sog",
                code="splat_archive",
            )
        if file in entries:
            raise refuse(name, f"the archive has two entries '{file}'", code="splat_archive")
        _check_entry(info, name)
        entries[file] = info
    if META not in entries and not streamed:
        raise refuse(
            name,
            "the archive has no meta.json at its root: it is not a SOG bundle",
            code="splat_type",
        )
    return ZipFiles(archive, name, entries)


def _in_streamed(file: str) -> bool:
    folder, _, last = file.rpartition("/")
    return file == LOD_META or bool(
        CHUNK_META.fullmatch(f"{folder}/{META}") and (last == META or NAME.fullmatch(last))
    )


def _check_entry(info: zipfile.ZipInfo, name: str) -> None:
    file = info.filename
    if info.flag_bits & 1:
        raise refuse(name, f"'{file}' is encrypted", code="splat_archive")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refuse(
            name,
            f"'{file}' uses ZIP method {info.compress_type}; "
            "allowed are 0 (stored) and 8 (deflate)",
            code="splat_archive",
        )
    limit = _limit(file)
    if not file.endswith(".json"):
        limit = min(limit, max(FREE_BYTES, MAX_RATIO * info.compress_size))
    if info.file_size > limit:
        raise refuse(
            name,
            f"'{file}' claims to unpack from {info.compress_size} to {info.file_size} bytes; "
            f"allowed are {limit}",
            code="splat_limits",
        )


def _limit(file: str) -> int:
    if file.endswith(LOD_META):
        return MAX_LOD_META_BYTES
    return MAX_META_BYTES if file.endswith(META) else MAX_TEXTURE_BYTES


def missing(name: str, file: str, present: Iterable[str]) -> InvalidInput:
    there = sorted(other[:80] for other in present)
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    shown = shown or "nothing"
    return refuse(name, f"'{file}' is missing (present: {shown})", code="splat_archive")


def damaged(name: str, error: Exception) -> InvalidInput:
    # The ZIP module repeats names as they are, which may be the whole file.
    problem = str(error)[:120]
    return refuse(name, f"the ZIP archive is damaged ({problem})", code="splat_truncated")


def refuse(name: str, problem: str, *, code: str) -> InvalidInput:
    return InvalidInput(
        f"{name}: SOG: {problem}.",
        code=code,
        next_step="Upload the complete .sog, or export the scene again as SOG v2, .ply or .spz.",
    )
