"""Where a result goes: a file of the right format, written whole or not at all, or stdout.

Knows no pipeline; formats are the endings of a pipeline's artifact names.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from models.context import Artifact
from service.cli.refused import Refused

OPEN_WITH = {
    "glb": "Blender (File > Import > glTF 2.0) or any glTF viewer",
    "obj": "Blender (File > Import > Wavefront) or any mesh editor",
    "ply": "MeshLab or Blender (File > Import > Stanford PLY)",
    "stl": "a slicer or Blender (File > Import > STL)",
    "sog": "PlayCanvas: the SuperSplat editor (superspl.at/editor) or the engine",
}


@dataclass(frozen=True)
class Target:
    """One requested result. path is None for stdout."""

    path: Path | None
    format: str

    def check(self, overwrite: bool) -> None:
        """Refuse, before any work is done, what could not be written after it."""
        if self.path is None:
            if sys.stdout.isatty():
                raise Refused(
                    "The result is binary and stdout is a terminal; name a file or use a pipe."
                )
            return
        folder = self.path.parent
        if not folder.is_dir():
            raise Refused(f"{self.path}: the folder {folder} does not exist.")
        if not os.access(folder, os.W_OK):
            raise Refused(f"{self.path}: the folder {folder} is not writable.")
        if self.path.is_dir():
            raise Refused(f"{self.path} is a folder; name a file in it.")
        for path in (self.path, *_companions(self.path)):
            if path.exists() and not overwrite:
                raise Refused(f"{path} exists; add -w to overwrite it.")

    def write(self, artifact: Artifact) -> list[Path]:
        """Put the artifact in its place; returns the files written, the main one first."""
        if self.path is None:
            with artifact.path.open("rb") as source:
                shutil.copyfileobj(source, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return []
        if _companions(self.path):
            return _unpack(artifact.path, self.path)
        _place(self.path, lambda file: _copy(artifact.path, file))
        return [self.path]


def parse_target(text: str, formats: Sequence[str], default: str) -> Target:
    """`out.glb`, or `-` for stdout in the `default` format."""
    if text == "-":
        return Target(None, default)
    for form in formats:
        endings = (f".{form}", f".{form}.zip") if form == "obj" else (f".{form}",)
        if Path(text).name.lower().endswith(endings):
            return Target(Path(text), form)
    allowed = ", ".join(f".{form}" for form in formats)
    raise Refused(f"{text}: the format follows the ending, one of {allowed}.")


def _companions(path: Path) -> tuple[Path, ...]:
    """An .obj is three files: beside it lie its material and its texture, under the same stem."""
    if path.suffix.lower() != ".obj":
        return ()
    return path.with_suffix(".mtl"), path.with_suffix(".png")


def _unpack(archive: Path, target: Path) -> list[Path]:
    """The zipped .obj, .mtl and .png under the name the user chose, their references renamed.

    The .obj comes last, so that it never names a file that is not there yet.
    """
    places = {path.suffix.lower(): path for path in (*reversed(_companions(target)), target)}
    with zipfile.ZipFile(archive) as source:
        members = {Path(name).suffix.lower(): name for name in source.namelist()}
        written = []
        for suffix, path in places.items():
            if suffix in members:
                lines = source.open(members[suffix])
                _place(path, lambda file, lines=lines: _rename_references(lines, file, target))  # type: ignore[misc]
                written.append(path)
    return written[::-1]


def _rename_references(source: BinaryIO, file: BinaryIO, target: Path) -> None:
    """Copy, with `mtllib` and `map_…` lines pointing to the new names of their files."""
    for line in source:
        word = line.split(b" ", 1)[0]
        if word == b"mtllib" or word.startswith(b"map_"):
            suffix = ".mtl" if word == b"mtllib" else ".png"
            line = word + b" " + os.fsencode(target.with_suffix(suffix).name) + b"\n"
        file.write(line)


def _copy(source: Path, file: BinaryIO) -> None:
    with source.open("rb") as reader:
        shutil.copyfileobj(reader, file, 1 << 20)


def _place(target: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write beside the target, then rename: whoever looks sees the old file or the new one."""
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with beside.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
