"""Which files a loose or streamed SOG on disk consists of: its description and all that it names.

Does not read textures and refuses nothing: a reader says what is missing or wrong.
"""

from __future__ import annotations

import json
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
    streamed = "tree" in tree and "lodLevels" in tree
    found = {LOD_META if streamed else META: path}
    for chunk in [name for name in _texts(tree) if streamed and CHUNK_META.fullmatch(name)]:
        found[chunk] = path.parent / chunk
        folder = chunk.removesuffix(META)
        for name in _textures(_tree(path.parent / chunk)):
            found[folder + name] = path.parent / folder / name
    if not streamed:
        found |= {name: path.parent / name for name in _textures(tree)}
    return found


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
