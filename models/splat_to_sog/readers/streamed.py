"""Reads one level of detail of a streamed SOG: lod-meta.json and the SOG chunks that it names.

Does not decode chunks: the caller says how. Both ages of the description are read, version 1 and
the older one without a version or counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from models.splat_to_sog.filenames import META
from models.splat_to_sog.readers.container import CHUNK_META, Container, refuse
from models.splat_to_sog.readers.sog_meta import Description, short
from models.splat_to_sog.scratch import Scratch, chunks
from models.splat_to_sog.splats import ATTRIBUTES, Splats

MAX_LEVELS = 64


@dataclass(frozen=True)
class Level:
    """What to take of a streamed scene. level: 0 is the finest; environment: the sky, if any."""

    level: int = 0
    environment: bool = True


@dataclass(frozen=True)
class ChunkReader:
    """How a chunk is measured (splats, degree; nothing is decoded) and read.

    Room for the whole scene is taken by what the measures say: they refuse a count that the
    chunk's textures cannot hold.
    """

    measure: Callable[[Container], tuple[int, int]]
    read: Callable[[Container], Splats]


@dataclass(frozen=True)
class _Part:
    """What is taken of one chunk: rows of it, as (first, end) in order."""

    files: Container
    rows: list[tuple[int, int]]
    degree: int

    @property
    def count(self) -> int:
        return sum(end - first for first, end in self.rows)


def read_streamed(
    meta: Description,
    files: Container,
    chunk: ChunkReader,
    scratch: Scratch | None,
    wanted: Level,
) -> Splats:
    """The level's splats, chunk by chunk in the order of their file numbers, then the environment.

    One chunk at a time is decoded and copied to its place.
    """
    parts = _parts(meta, files, chunk, wanted)
    count = sum(part.count for part in parts)
    splats = Splats.empty(count, max((part.degree for part in parts), default=0), scratch=scratch)
    start, model = 0, splats.model
    for part in parts:
        decoded = chunk.read(part.files)
        model = decoded.model if not start else model
        for first, end in part.rows:
            _place(decoded, first, end, splats, start)
            start += end - first
    return replace(splats, model=model)


def _place(chunk: Splats, first: int, end: int, splats: Splats, start: int) -> None:
    for rows in chunks(end - first):
        source = slice(first + rows.start, first + rows.stop)
        target = slice(start + rows.start, start + rows.stop)
        for name in ATTRIBUTES[:-1]:
            getattr(splats, name)[target] = getattr(chunk, name)[source]
        kept = chunk.shN.shape[2]
        splats.shN[target, :, :kept] = chunk.shN[source]
        splats.shN[target, :, kept:] = 0


def _parts(meta: Description, files: Container, chunk: ChunkReader, wanted: Level) -> list[_Part]:
    if meta.tree.get("version", 1) != 1:
        raise meta.bad("version", f"{short(meta.tree['version'])}; allowed are 1 or none")
    levels = meta.integer("lodLevels", 1, MAX_LEVELS)
    if not 0 <= wanted.level < levels:
        raise refuse(
            files.name,
            f"level of detail {wanted.level} is asked for; there are 0 (finest) to {levels - 1}",
            code="splat_unsupported",
        )
    names = meta.get("filenames")
    if not isinstance(names, list):
        raise meta.bad("filenames", f"{short(names)}; a list of chunks is needed")
    runs = _runs(meta, wanted.level, len(names))
    _check_count(meta, wanted.level, levels, runs)
    chosen: list[tuple[str, Any, list[tuple[int, int]] | None]] = [
        (f"filenames[{index}]", names[index], runs[index]) for index in sorted(runs)
    ]
    environment = meta.get("environment")
    if wanted.environment and environment is not None:
        chosen.append(("environment", environment, None))
    seen: set[str] = set()
    for field, file, _ in chosen:
        if not isinstance(file, str) or not CHUNK_META.fullmatch(file):
            raise meta.bad(field, f"{short(file)}; a path like '0_0/{META}' is needed")
        if file in seen:
            raise meta.bad(field, f"'{file}', which is named before")
        seen.add(file)
        if not files.has(file):
            files.read(file)  # says that it is missing, and what is there
    parts = []
    for _, file, rows in chosen:
        inside = files.within(file.removesuffix(META))
        count, degree = chunk.measure(inside)
        rows = [(0, count)] if rows is None else rows
        if rows[-1][1] > count:
            problem = f"naming splats up to {rows[-1][1]} of '{file}', which holds {count}"
            raise meta.bad("tree", problem)
        parts.append(_Part(inside, rows, degree))
    return parts


def _runs(meta: Description, level: int, file_count: int) -> dict[int, list[tuple[int, int]]]:
    """Rows of each chunk file that the tree gives to this level, in order and joined."""
    found: dict[int, list[tuple[int, int]]] = {}
    nodes = [meta.get("tree")]
    while nodes:
        node = nodes.pop()
        children = node.get("children") if isinstance(node, dict) else None
        lods = node.get("lods") if isinstance(node, dict) else None
        if not isinstance(children, list | None) or not isinstance(lods, dict | None):
            raise meta.bad("tree", f"holding the node {short(node)}")
        if children is None and lods is None:
            raise meta.bad("tree", f"holding the node {short(node)}, without children or lods")
        nodes.extend(children or [])
        reference = (lods or {}).get(str(level))
        if reference is not None:
            file, offset, count = _reference(meta, reference, file_count)
            if count:
                found.setdefault(file, []).append((offset, offset + count))
    return {file: _joined(meta, runs) for file, runs in found.items()}


def _reference(meta: Description, reference: Any, file_count: int) -> tuple[int, int, int]:
    """A leaf's file number, first splat and number of splats."""
    numbers = [
        reference.get(key) if isinstance(reference, dict) else None
        for key in ("file", "offset", "count")
    ]
    whole = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and n >= 0]
    if len(whole) != 3 or whole[0] >= file_count:
        raise meta.bad(
            "tree",
            f"holding the reference {short(reference)}; file (below {file_count}), offset and "
            "count are needed",
        )
    return whole[0], whole[1], whole[2]


def _joined(meta: Description, runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, end in sorted(runs):
        if joined and first < joined[-1][1]:
            raise meta.bad("tree", f"naming splat {first} of a chunk twice")
        if joined and first == joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return joined


def _check_count(
    meta: Description, level: int, levels: int, runs: dict[int, list[tuple[int, int]]]
) -> None:
    """Version 1 says how many splats each level has; the tree must agree."""
    counts = meta.get("counts")
    if counts is None:
        return
    if not isinstance(counts, list) or len(counts) != levels:
        raise meta.bad("counts", f"{short(counts)}; {levels} numbers are needed")
    total = sum(end - first for rows in runs.values() for first, end in rows)
    if counts[level] != total:
        problem = f"{short(counts[level])} for level {level}; its tree holds {total} splats"
        raise meta.bad("counts", problem)
