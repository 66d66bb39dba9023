"""Files put in their place whole: written beside it, then renamed.

Knows two kinds of results that are several files: .obj, whose files name each other, and archives
that unpack beside the file that describes the rest.
"""

from __future__ import annotations

import os
import shutil
import uuid
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO

from models.context import PipelineError

TEXTURE_SUFFIXES = (".png", ".jpg")


def place(target: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Let `write` fill a file that then gets the name `target`; until then nothing changes."""
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with beside.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def place_copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader:
        place(target, lambda file: shutil.copyfileobj(reader, file, 1 << 20))


def obj_companions(target: Path) -> dict[str, Path]:
    """What an .obj brings along, by suffix. The texture's name differs from that of the picture
    the mesh was made from, which often has the same stem."""
    textures = {
        suffix: target.with_name(f"{target.stem}_texture{suffix}") for suffix in TEXTURE_SUFFIXES
    }
    return {".mtl": target.with_suffix(".mtl")} | textures


def place_obj(archive: Path, target: Path) -> list[Path]:
    """Unzip an .obj and its companions under the stem of `target`; returns them, the .obj first.

    The .obj is placed last, so that it never names a file that is not there yet.
    """
    names = {".obj": target} | obj_companions(target)
    written = []
    with zipfile.ZipFile(archive) as source:
        members = {Path(name).suffix.lower(): name for name in source.namelist()}
        for suffix in reversed(names):
            if suffix in members:
                with source.open(members[suffix]) as member:
                    _place_renamed(member, suffix, names)
                written.append(names[suffix])
    return written[::-1]


def place_members(archive: Path, main: Path) -> list[Path]:
    """Unzip every member beside `main`, one of them; it is written last and named first.

    Raises PipelineError, before anything is written, for a member that would land elsewhere: the
    archive may come from a service.
    """
    with zipfile.ZipFile(archive) as source:
        names = [name for name in source.namelist() if not name.endswith("/")]
        if outside := [name for name in names if Path(name).is_absolute() or ".." in _parts(name)]:
            raise PipelineError(f"The result holds {outside[0]!r}, which lies outside its folder.")
        if main.name not in names:
            raise PipelineError(f"The result holds no {main.name}, only {', '.join(names)[:200]}.")
        names.sort(key=lambda name: name == main.name)
        for name in names:
            target = main.parent / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open(name) as member:
                place(target, partial(shutil.copyfileobj, member))
    return [main.parent / name for name in reversed(names)]


def _parts(name: str) -> list[str]:
    return name.replace("\\", "/").split("/")


def pack(files: Mapping[str, Path], archive: Path) -> None:
    """A ZIP of these files, as they are, under these names."""
    with zipfile.ZipFile(archive, "w") as target:
        for name, path in files.items():
            target.write(path, name)


def _place_renamed(member: IO[bytes], suffix: str, names: Mapping[str, Path]) -> None:
    """Write one member; in the text files the names of the others become the new ones."""

    def write(file: IO[bytes]) -> None:
        if suffix in TEXTURE_SUFFIXES:
            shutil.copyfileobj(member, file, 1 << 20)
            return
        for line in member:
            word, _, old = line.rstrip().partition(b" ")
            if word == b"mtllib" or word.startswith(b"map_"):
                new = names[Path(os.fsdecode(old)).suffix.lower()].name
                line = word + b" " + os.fsencode(new) + b"\n"
            file.write(line)

    place(names[suffix], write)
