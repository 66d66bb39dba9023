"""The files a run gives: one for each format asked for, the textures of a SOG made only once.

Does not read, edit or judge the scene.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput, JsonValue
from models.splat_to_sog import layout
from models.splat_to_sog.bundle import write_bundle
from models.splat_to_sog.encode import Encoded, encode
from models.splat_to_sog.filenames import LOD_META, META
from models.splat_to_sog.pipeline_options import SplatFormat, SplatOptions
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.stages import Stages
from models.splat_to_sog.writers.formats import SpzOptions, StreamedOptions
from models.splat_to_sog.writers.sog import lost, put_files
from models.splat_to_sog.writers.streamed import write_streamed
from models.splat_to_sog.writers.write import archived, write
from models.splat_to_sog.writers.written import Written, new_file

ZIP = "application/zip"  # what a bundle is too; no media type is registered for .sog
NAMES: dict[SplatFormat, tuple[str, str]] = {  # format -> (name of the artifact, media type)
    "sog": ("scene.sog", ZIP),
    "loose": ("scene.loose.zip", ZIP),
    "lod": ("scene.lod.zip", ZIP),
    "ply": ("scene.ply", "application/ply"),
    "compressed": ("scene.compressed.ply", "application/ply"),
    "spz": ("scene.spz", "application/octet-stream"),
}
KEEPS_ROWS = ("ply", "spz")  # formats that store the splats in the scene's order


@dataclass(frozen=True)
class Result:
    """One file. order: the splat stored at each place, where that is known; files: of a SOG."""

    format: SplatFormat
    path: Path
    lost: dict[str, int]
    order: NDArray[np.intp] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    choices: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def media_type(self) -> str:
        return NAMES[self.format][1]

    @property
    def keeps_rows(self) -> bool:
        """Whether its splats can be told one by one: stored in an order that is known."""
        return self.order is not None or self.format in KEEPS_ROWS


def write_results(
    splats: Splats, options: SplatOptions, folder: Path, device: str, stages: Stages
) -> list[Result]:
    """A result for every format, in the order of `options.formats`; each format once."""
    encoded: list[Encoded] = []

    def sog() -> Encoded:
        if not encoded:
            _check_count(splats)
            encoded.append(encode(splats, options, stages, device=device))
        return encoded[0]

    return [
        _write_sog(form, splats, sog(), options, folder)
        if form in ("sog", "loose")
        else _write_other(form, splats, options, folder, stages)
        for form in dict.fromkeys(options.formats)
    ]


def _write_sog(
    form: SplatFormat, splats: Splats, encoded: Encoded, options: SplatOptions, folder: Path
) -> Result:
    path = folder / NAMES[form][0]
    if form == "sog":
        with new_file(path) as out:
            write_bundle(encoded.files, out)
    else:
        with TemporaryDirectory(dir=folder) as parts:
            archived(Written(put_files(encoded.files, Path(parts) / META)), path)
    return Result(form, path, lost(splats, options), encoded.order, encoded.files, encoded.choices)


def _write_other(
    form: SplatFormat, splats: Splats, options: SplatOptions, folder: Path, stages: Stages
) -> Result:
    path = folder / NAMES[form][0]
    if form == "lod":
        with TemporaryDirectory(dir=folder) as parts:
            written = archived(_write_levels(splats, options, Path(parts), stages), path)
        return Result(form, path, written.lost)
    chosen = SpzOptions(version=options.spz_version) if form == "spz" else None
    written = write(splats, path, form, chosen, partial(_within_write, stages))
    return Result(form, path, written.lost)


def _write_levels(splats: Splats, options: SplatOptions, folder: Path, stages: Stages) -> Written:
    """The scene and coarser ones made from it, each of fewer and larger splats."""
    from models.splat_to_sog.scene.decimate import levels  # its kd-tree is slow to import

    shares = [options.lod_ratio**level for level in range(options.lod_levels)]
    found = levels(splats, shares, partial(stages, "edit"))
    return write_streamed(
        [level.splats for level in found],
        folder / LOD_META,
        StreamedOptions(sog=options),
        stages,
    )


def _within_write(stages: Stages, stage: str, fraction: float) -> None:
    """The stages of a writer are its own affair; outside they are one."""
    stages("write", fraction)


def _check_count(splats: Splats) -> None:
    if len(splats) > layout.MAX_SPLATS:
        raise InvalidInput(
            f"{len(splats)} splats are left; one SOG holds at most {layout.MAX_SPLATS}.",
            code="splat_limits",
            next_step="Write a streamed SOG, which is cut into chunks, or fewer splats (keep).",
        )
