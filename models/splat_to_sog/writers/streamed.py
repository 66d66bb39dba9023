"""Writes a streamed SOG: lod-meta.json, and for each level of detail chunks that load on demand.

Does not make the levels: they are given, finest first. Format: developer.playcanvas.com,
"Streamed SOG", version 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.filenames import META
from models.splat_to_sog.order import hilbert_keys
from models.splat_to_sog.quantize import quantize_positions
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.stages import OnStage
from models.splat_to_sog.writers.formats import StreamedOptions
from models.splat_to_sog.writers.leaf_error import rendered_errors
from models.splat_to_sog.writers.lod_tree import Branch, Leaf, Node, bounds_of, build_tree, leaves
from models.splat_to_sog.writers.sog import encoded, lost, put_files
from models.splat_to_sog.writers.written import Written, new_file, require_finite

ENVIRONMENT = "env"
DIGITS = 7  # significant, of a float32

LeafErrors = Callable[[Sequence[Splats]], Sequence[float]]
"""A leaf's levels, finest first -> how much worse each looks than the first; 0: the same."""


@dataclass
class Chunk:
    """One folder of textures: leaf runs of one level, one after the other."""

    level: int
    index: int  # among the level's chunks
    runs: list[NDArray[np.intp]] = field(default_factory=list)
    count: int = 0

    @property
    def folder(self) -> str:
        return f"{self.level}_{self.index}"


def write_one_level(
    splats: Splats, path: Path, options: StreamedOptions, on_stage: OnStage
) -> Written:
    """A scene without coarser levels: cut into chunks that a viewer loads as it needs them."""
    return write_streamed([splats], path, options, on_stage)


def write_streamed(
    levels: Sequence[Splats],  # finest first
    path: Path,  # of the lod-meta.json; the chunks go into folders beside it
    options: StreamedOptions,
    on_stage: OnStage = lambda stage, fraction: None,
    environment: Splats | None = None,  # drawn always and whole: a sky
    leaf_errors: LeafErrors = rendered_errors,  # asked only if `options.errors`
) -> Written:
    """Memory: 20 bytes a splat for the tree, and one chunk at a time."""
    _check(levels, environment, path.name)
    folder = path.parent

    # 1. space is cut into leaves; each level's leaf runs fill its chunks
    on_stage("order", 0.0)
    tree = build_tree(levels, options.chunk_splats, options.leaf_extent, options.leaf_splats)
    chunks, places = pack_leaves(tree, len(levels), options.chunk_splats)

    # 2. the tree as JSON: bounds, places, errors
    description = {
        "version": 1,
        "asset": {
            "generator": "meshpress",
            "chunkGaussians": options.chunk_splats,
            "chunkExtent": options.leaf_extent,
            "chunkMinGaussians": options.leaf_splats,
        },
        "count": sum(map(len, levels)),
        "counts": [len(level) for level in levels],
        "lodLevels": len(levels),
        "lodErrors": options.errors,
        **({"environment": f"{ENVIRONMENT}/{META}"} if environment is not None else {}),
        "filenames": [f"{chunk.folder}/{META}" for chunk in chunks],
        "tree": _described(tree, levels, places, leaf_errors if options.errors else None),
    }

    # 3. the chunks, one after the other, and what is drawn always
    placed: list[Path] = []
    units = [(chunk.folder, levels[chunk.level], chunk.runs) for chunk in chunks]
    if environment is not None:
        units.append((ENVIRONMENT, environment, [np.arange(len(environment))]))
    for done, (name, level, runs) in enumerate(units):
        splats, order = ordered_runs(level, runs)
        stage = _part_of(on_stage, done, len(units))
        files = encoded(splats, f"{path.name}: chunk {name}", options.sog, stage, order)
        (folder / name).mkdir(parents=True, exist_ok=True)
        placed += put_files(files, folder / name / META)

    # 4. the description last: who finds it finds all it names
    with new_file(path) as out:
        out.write(json.dumps(description, separators=(",", ":"), allow_nan=False).encode())
    missing: dict[str, int] = {}
    for level in levels:
        for what, count in lost(level, options.sog).items():
            missing[what] = missing.get(what, 0) + count
    return Written((path, *placed), missing)


def pack_leaves(
    tree: Node, level_count: int, max_splats: int
) -> tuple[list[Chunk], dict[int, dict[str, dict[str, int]]]]:
    """(chunks in the order of first use, by leaf identity its place in them for every level).

    A run is never parted, so a chunk is closed when the next run does not fit.
    """
    chunks: list[Chunk] = []
    open_chunk: dict[int, int] = {}  # level -> index into chunks
    used = [0] * level_count
    places: dict[int, dict[str, dict[str, int]]] = {}
    for leaf in leaves(tree):
        places[id(leaf)] = {}
        for level, rows in enumerate(leaf.rows):
            if not len(rows):
                continue
            at = open_chunk.get(level)
            if at is None or chunks[at].count + len(rows) > max_splats:
                at = open_chunk[level] = len(chunks)
                chunks.append(Chunk(level, used[level]))
                used[level] += 1
            chunk = chunks[at]
            places[id(leaf)][str(level)] = {"file": at, "offset": chunk.count, "count": len(rows)}
            chunk.runs.append(rows)
            chunk.count += len(rows)
    return chunks, places


def ordered_runs(
    level: Splats, runs: Sequence[NDArray[np.intp]]
) -> tuple[Splats, NDArray[np.intp]]:
    """(the chunk's splats, the order to store them in): within each run along the curve through
    the chunk's stored grid, so that textures compress and runs stay whole."""
    splats = level.take(np.concatenate(runs))
    run_of = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    keys = hilbert_keys(quantize_positions(splats.means).steps)
    return splats, np.lexsort((keys, run_of))


def _described(
    node: Node,
    levels: Sequence[Splats],
    places: dict[int, dict[str, dict[str, int]]],
    leaf_errors: LeafErrors | None,
) -> dict[str, Any]:
    if isinstance(node, Branch):
        children = [_described(child, levels, places, leaf_errors) for child in node.children]
        bounds = [child["bound"] for child in children]
        low = np.min([bound["min"] for bound in bounds], axis=0)
        high = np.max([bound["max"] for bound in bounds], axis=0)
        return {"bound": _bound(low, high), "children": children}
    boxes = [bounds_of(level, rows) for level, rows in zip(levels, node.rows, strict=True)]
    low = np.min([box[0] for box in boxes], axis=0)
    high = np.max([box[1] for box in boxes], axis=0)
    described: dict[str, Any] = {"bound": _bound(low, high), "lods": places[id(node)]}
    if leaf_errors is not None:
        described["errors"] = _errors(node, levels, leaf_errors)
    return described


def _errors(leaf: Leaf, levels: Sequence[Splats], leaf_errors: LeafErrors) -> list[float]:
    """One for every level of the scene: 0 for the leaf's finest, and for one with nothing here.

    A coarser level is never said to be the better one: viewers buy detail by what it saves.
    """
    present = [level for level, rows in enumerate(leaf.rows) if len(rows)]
    measured = leaf_errors([levels[level].take(leaf.rows[level]) for level in present])
    errors = [0.0] * len(levels)
    for level, worst in zip(present, np.maximum.accumulate(measured), strict=True):
        errors[level] = _rounded(worst)
    return errors


def _bound(low: NDArray[np.float64], high: NDArray[np.float64]) -> dict[str, list[float]]:
    return {"min": [_rounded(v) for v in low], "max": [_rounded(v) for v in high]}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _part_of(on_stage: OnStage, done: int, total: int) -> OnStage:
    """One chunk's stages come round again for each chunk; outside they are one stage."""
    return lambda stage, fraction: on_stage("chunks", done / total)


def _check(levels: Sequence[Splats], environment: Splats | None, name: str) -> None:
    if not levels:
        raise InvalidInput(
            f"{name}: no level of detail was given; at least 1 is needed.",
            code="splat_empty",
            next_step="Give the scene itself as level 0.",
        )
    named = [(f"level {index}", level) for index, level in enumerate(levels)]
    for what, splats in named + ([("environment", environment)] if environment is not None else []):
        if not len(splats):
            raise InvalidInput(
                f"{name}: {what} holds 0 splats; at least 1 is needed.",
                code="splat_empty",
                next_step="Leave it out.",
            )
        require_finite(splats, f"{name}: {what}")
