"""Writes SOG v2: one bundled .sog, or meta.json with its textures beside it.

Does not encode: `encode` makes the files, this puts them on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog import layout
from models.splat_to_sog.bundle import write_bundle
from models.splat_to_sog.encode import MAX_DEGREE, encode
from models.splat_to_sog.filenames import META
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.stages import OnStage
from models.splat_to_sog.writers.written import Written, new_file, require_finite


def write_sog(splats: Splats, path: Path, options: SogOptions, on_stage: OnStage) -> Written:
    files = encoded(splats, path.name, options, on_stage)
    with new_file(path) as out:
        write_bundle(files, out)
    return Written((path,), lost(splats, options))


def write_loose(splats: Splats, path: Path, options: SogOptions, on_stage: OnStage) -> Written:
    """meta.json at `path` itself (its name is kept), the textures in the same folder."""
    files = encoded(splats, path.name, options, on_stage)
    return Written(put_files(files, path), lost(splats, options))


def put_files(files: Mapping[str, bytes], meta: Path) -> tuple[Path, ...]:
    """The textures first, meta.json last: who finds it finds all it names."""
    placed = [meta]
    for name, data in sorted(files.items(), key=lambda item: item[0] == META):
        path = meta if name == META else meta.with_name(name)
        with new_file(path) as out:
            out.write(data)
        if path != meta:
            placed.append(path)
    return tuple(placed)


def encoded(
    splats: Splats,
    name: str,
    options: SogOptions,
    on_stage: OnStage,
    order: NDArray[np.intp] | None = None,  # [N] rows in the order to store; None: the coder's own
) -> Mapping[str, bytes]:
    """The files of one SOG by name."""
    require_finite(splats, name)
    if len(splats) > layout.MAX_SPLATS:
        raise InvalidInput(
            f"{name}: {len(splats)} splats; one SOG holds at most {layout.MAX_SPLATS}.",
            code="splat_limits",
            next_step="Write a streamed SOG: it is cut into chunks.",
        )
    return encode(splats, options, on_stage, order).files


def lost(splats: Splats, options: SogOptions) -> dict[str, int]:
    """What is cut although nobody asked for it."""
    if splats.degree > MAX_DEGREE and options.sh_degree is None:
        return {f"harmonics above degree {MAX_DEGREE}": len(splats)}
    return {}
