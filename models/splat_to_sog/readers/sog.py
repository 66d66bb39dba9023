"""Reads a SOG: a bundled .sog (ZIP), or its loose files beside a meta.json; versions 1 and 2.

Does not know the textures: `sog_v1` and `sog_v2` do. A streamed SOG is handed on to `streamed`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from models.splat_to_sog.filenames import LOD_META, META
from models.splat_to_sog.readers.container import (
    ZIP_FAULTS,
    Container,
    LooseFiles,
    ZipFiles,
    damaged,
    open_zip,
)
from models.splat_to_sog.readers.sog_meta import Description
from models.splat_to_sog.readers.sog_v1 import measure_v1, read_v1
from models.splat_to_sog.readers.sog_v2 import measure_v2, read_v2
from models.splat_to_sog.readers.streamed import ChunkReader, Level, read_streamed
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import Splats


def read_bundle(
    path: Path, name: str, scratch: Scratch | None = None, level: Level | None = None
) -> Splats:
    """A .sog file, or a streamed SOG's folder as one ZIP."""
    with _opened(path, name) as files:
        return read_container(files, scratch, level)


def read_loose(
    files: Mapping[str, Path],
    name: str,
    scratch: Scratch | None = None,
    level: Level | None = None,
) -> Splats:
    """Loose files by their names in the scene: the description and the textures that it names."""
    return read_container(LooseFiles(files, name), scratch, level)


def read_container(
    files: Container, scratch: Scratch | None = None, level: Level | None = None
) -> Splats:
    file = LOD_META if files.has(LOD_META) else META
    meta = Description(files.read(file), files.name, file)
    if file == LOD_META or ("tree" in meta.tree and "lodLevels" in meta.tree):
        return read_streamed(meta, files, CHUNK, scratch, level or Level())
    return _read_scene(files, meta, scratch)


def _read_scene(files: Container, meta: Description, scratch: Scratch | None) -> Splats:
    return (read_v1 if meta.version() == 1 else read_v2)(files, meta, scratch)


def _read_chunk(files: Container) -> Splats:
    return _read_scene(files, Description(files.read(META), files.name), None)


def _measure_chunk(files: Container) -> tuple[int, int]:
    meta = Description(files.read(META), files.name)
    return (measure_v1 if meta.version() == 1 else measure_v2)(files, meta)


__all__ = ["META", "read_bundle", "read_container", "read_loose"]

CHUNK = ChunkReader(_measure_chunk, _read_chunk)


@contextmanager
def _opened(source: Path, name: str) -> Iterator[ZipFiles]:
    try:
        archive = zipfile.ZipFile(source)
    except ZIP_FAULTS as error:
        raise damaged(name, error) from error
    with archive:
        yield open_zip(archive, name)
