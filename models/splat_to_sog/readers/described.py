"""Which files a loose or streamed SOG on disk consists of: its description and all that it names.

Does not read textures and refuses nothing: a reader says what is missing or wrong.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.splat_to_sog.filenames import LOD_META, META
from models.splat_to_sog.readers.container import CHUNK_META, MAX_LOD_META_BYTES, NAME


def files_of(path: Path) -> dict[str, Path]:
    """Name in the scene ("0_0/meta.json") -> file, for a meta.json, a lod-meta.json, or a folder
    that holds one; whatever else `path` is, it is one file."""
    if path.is_dir():
        path = path / (LOD_META if (path / LOD_META).is_file() else META)
    tree = _tree(path)
    if tree is None:
        return {path.name: path}
    streamed = _streamed(tree)
    found = {LOD_META if streamed else META: path}
    for chunk in [name for name in _texts(tree) if streamed and CHUNK_META.fullmatch(name)]:
        found[chunk] = path.parent / chunk
        folder = chunk.removesuffix(META)
        for name in _textures(_tree(path.parent / chunk)):
            found[folder + name] = path.parent / folder / name
    if not streamed:
        found |= {name: path.parent / name for name in _textures(tree)}
    return found


def has_levels(path: Path) -> bool:
    """Whether `path` is a streamed SOG: its folder, its description, or a ZIP of them."""
    if path.is_dir():
        return (path / LOD_META).is_file() or _streamed(_tree(path / META))
    with path.open("rb") as file:
        archived = file.read(2) == b"PK"
    if archived and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == LOD_META for name in archive.namelist())
    return _streamed(_tree(path))


def _streamed(tree: dict[str, Any] | None) -> bool:
    return tree is not None and "tree" in tree and "lodLevels" in tree


def _tree(path: Path) -> dict[str, Any] | None:
    """The JSON object in the file, if that is what it holds."""
    if not path.is_file() or path.stat().st_size > MAX_LOD_META_BYTES:
        return None
    with path.open("rb") as file:
        if not file.read(16).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
            return None
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else None


def _textures(tree: dict[str, Any] | None) -> list[str]:
    return [name for name in _texts(tree) if NAME.fullmatch(name)]


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    nodes = [value]
    while nodes:
        node = nodes.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, list | dict):
            nodes.extend(node if isinstance(node, list) else node.values())
