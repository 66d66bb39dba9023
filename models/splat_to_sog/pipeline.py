"""Splat -> SOG: one splat file in, one `scene.sog` and a report of what became of it out.

Does not know who runs it: a worker, the command line or a test. Entry point: `load`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from models.context import (
    Artifact,
    InputFile,
    InvalidInput,
    JsonValue,
    Pipeline,
    PipelineResult,
    RunContext,
    check_cancelled,
)
from models.splat_to_sog import layout
from models.splat_to_sog.bundle import bundle
from models.splat_to_sog.encode import MAX_DEGREE, encode
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.readers import read, read_files
from models.splat_to_sog.readers.sog import META
from models.splat_to_sog.splats import Cleaned, Splats, drop_non_finite

ARTIFACT = "scene.sog"
MEDIA_TYPE = "application/zip"  # what a bundle is; no media type is registered for .sog

SHARES = {  # stage -> (start, end) as fractions of the whole
    "read": (0.0, 0.1),
    "clean": (0.1, 0.12),
    "order": (0.12, 0.15),
    "quantise": (0.15, 0.3),
    "palette": (0.3, 0.7),
    "textures": (0.7, 0.98),
    "bundle": (0.98, 1.0),
}


def load(device: str) -> Pipeline:
    """Nothing is kept between jobs; `device` is not used: everything runs on the CPU."""
    return run


def run(context: RunContext, inputs: Sequence[InputFile], options: SogOptions) -> PipelineResult:
    """The main path, from top to bottom."""
    stages = _Stages(context)
    name = _display_name(inputs)

    # 1. read: one file of any accepted type, or the files of a loose SOG
    stages("read")
    splats = _read(inputs)
    read_count, read_degree = len(splats), splats.degree

    # 2. clean: drop what no renderer can draw, and say how much of what
    stages("clean")
    cleaned = drop_non_finite(splats)
    del splats
    _check_encodable(cleaned, name, read_count)

    # 3. order, quantise, palette, textures
    encoded = encode(cleaned.splats, options, stages)
    files = encoded.files

    # 4. bundle
    stages("bundle")
    archive = bundle(files)
    path = context.workdir / ARTIFACT
    path.write_bytes(archive)
    context.progress("bundle", 1.0)

    # 5. report
    report = _report(cleaned, options, files, read_count, read_degree)
    report["bytes_in"] = sum(_size(file.path) for file in inputs)
    report["bytes_out"] = len(archive)
    report["seconds"] = stages.seconds()
    return PipelineResult([Artifact(ARTIFACT, path, MEDIA_TYPE)], report)


class _Stages:
    """Makes progress of the whole from a stage's; times the stages; heeds cancellation."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.started: list[tuple[str, float]] = []

    def __call__(self, stage: str, fraction: float = 0.0) -> None:
        check_cancelled(self.context)
        if not self.started or self.started[-1][0] != stage:
            self.started.append((stage, time.perf_counter()))
        start, end = SHARES[stage]
        self.context.progress(stage, start + (end - start) * fraction)

    def seconds(self) -> dict[str, float]:
        ends = [moment for _, moment in self.started[1:]] + [time.perf_counter()]
        return {
            stage: round(end - begin, 3)
            for (stage, begin), end in zip(self.started, ends, strict=True)
        }


def _display_name(inputs: Sequence[InputFile]) -> str:
    return ", ".join(file.name for file in inputs) or "the upload"


def _read(inputs: Sequence[InputFile]) -> Splats:
    if not inputs:
        raise InvalidInput(
            "No input file: one splat file is needed.", next_step="Send the splat file."
        )
    if len(inputs) == 1:
        return read(inputs[0].path, inputs[0].name)
    named = {Path(file.name).name: file.path for file in inputs}
    if META not in named:
        raise InvalidInput(
            f"{len(inputs)} files were given ({_display_name(inputs)}); "
            f"allowed are one splat file, or a SOG's {META} with its textures.",
            next_step="Send one file a job.",
        )
    return read_files(named, META)


def _check_encodable(cleaned: Cleaned, name: str, read_count: int) -> None:
    if not len(cleaned.splats):
        reasons = ", ".join(f"{reason}: {count}" for reason, count in cleaned.dropped.items())
        raise InvalidInput(
            f"{name}: none of its {read_count} splats can be drawn ({reasons}).",
            code="splat_empty",
            next_step="The training diverged or the export is broken: export it again.",
        )
    if len(cleaned.splats) > layout.MAX_SPLATS:
        raise InvalidInput(
            f"{name}: {len(cleaned.splats)} splats; one SOG holds at most {layout.MAX_SPLATS}.",
            code="splat_limits",
            next_step="Split the scene.",
        )


def _report(
    cleaned: Cleaned,
    options: SogOptions,
    files: dict[str, bytes],
    read_count: int,
    read_degree: int,
) -> dict[str, JsonValue]:
    limit = MAX_DEGREE if options.sh_degree is None else options.sh_degree
    degree = min(read_degree, limit)
    warnings = []
    if cleaned.dropped_total:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in cleaned.dropped.items())
        warnings.append(f"{cleaned.dropped_total} of {read_count} splats dropped ({reasons}).")
    warnings += [f"{count} splats: {what}." for what, count in cleaned.repaired.items()]
    if read_degree > MAX_DEGREE:
        warnings.append(f"Degree {read_degree} cut to {MAX_DEGREE}: SOG has no more bands.")
    if options.palette_size and not degree:
        warnings.append("palette_size has no effect: the scene has no spherical harmonics.")
    return {
        "splats_in": read_count,
        "splats_out": len(cleaned.splats),
        "dropped": cleaned.dropped,
        "repaired": cleaned.repaired,
        "model": cleaned.splats.model,
        "sh_degree_in": read_degree,
        "sh_degree": degree,
        "palette_entries": palette_entries(files),
        "bytes": {file: len(data) for file, data in files.items()},
        "warnings": warnings,
    }


def palette_entries(files: dict[str, bytes]) -> int:
    """Entries of the scene's palette, from its own description; 0 without harmonics."""
    description = json.loads(files[META])
    return int(description["shN"]["count"]) if "shN" in description else 0


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return path.stat().st_size
