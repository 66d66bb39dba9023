"""Splat -> SOG, or from any splat format to another: one scene in, files and a report out.

Does not know who runs it: a worker, the command line or a test. Entry point: `load`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from models.context import (
    Artifact,
    InputFile,
    InvalidInput,
    JsonValue,
    Pipeline,
    PipelineResult,
    RunContext,
)
from models.splat_to_sog.encode import MAX_DEGREE
from models.splat_to_sog.filenames import LOD_META, META, TEXTURE
from models.splat_to_sog.pipeline_options import SplatOptions
from models.splat_to_sog.readers import read, read_files
from models.splat_to_sog.readers.described import files_of, has_levels
from models.splat_to_sog.readers.streamed import Level
from models.splat_to_sog.results import Result, write_results
from models.splat_to_sog.scene.operations import Applied, apply
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.stages import Stages

PREVIEW = "preview.webp"

SHARES = {  # stage -> its part of the whole
    "read": 10,
    "clean": 2,
    "edit": 8,
    "order": 3,
    "quantise": 12,
    "palette": 35,
    "textures": 25,
    "chunks": 20,
    "write": 5,
    "compare": 25,
}


def load(device: str) -> Pipeline:
    """Nothing is kept between jobs; the device is the context's."""
    return run


def run(context: RunContext, inputs: Sequence[InputFile], options: SplatOptions) -> PipelineResult:
    """The main path, from top to bottom."""
    stages = Stages(context, SHARES)
    scratch = Scratch(context.workdir)

    # 1. read: one file of any accepted type, several that become one scene, or a SOG's files
    stages("read")
    scenes, names = _read(inputs, options, scratch)
    degree_in = max(scene.degree for scene in scenes)

    # 2. clean and edit: drop what no renderer can draw, then what was asked for
    applied = apply(
        scenes,
        options,
        scratch,
        names=names,
        sh_degree=options.sh_degree,
        on_step=lambda step, done: stages("clean" if step == "clean" else "edit", done),
    )
    del scenes
    splats = applied.splats

    # 3. order, quantise, palette, textures; then a file for every format
    results = write_results(splats, options, context.workdir, context.device, stages)
    main = results[0]
    artifacts = [Artifact(result.path.name, result.path, result.media_type) for result in results]

    # 4. report: what was done, and what the result is worth
    streamed = any(has_levels(file.path) for file in inputs)
    report = _report(applied, options, results, degree_in, streamed)
    paths = {path for file in inputs for path in files_of(file.path).values()}
    report["bytes_in"] = sum(path.stat().st_size for path in paths)
    if options.report:
        stages("compare")
        report["quality"], preview = _compare(splats, main, context, scratch, stages)
        artifacts.append(Artifact(PREVIEW, preview, "image/webp"))
    stages.finish()
    report["seconds"] = stages.seconds()
    return PipelineResult(artifacts, report)


def _read(
    inputs: Sequence[InputFile], options: SplatOptions, scratch: Scratch
) -> tuple[list[Splats], list[str]]:
    if not inputs:
        raise InvalidInput(
            "No input file: one splat file is needed.", next_step="Send the splat file."
        )
    level = Level(options.level)
    if len(inputs) > 1 and any(file.name.endswith(TEXTURE) for file in inputs):
        named = _one_scene(inputs)
        meta = LOD_META if LOD_META in named else META
        return [read_files(named, meta, scratch, level)], [meta]
    scenes = [read(file.path, file.name, scratch, level) for file in inputs]
    return scenes, [file.name for file in inputs]


def _one_scene(inputs: Sequence[InputFile]) -> dict[str, Path]:
    """The files of a loose or streamed SOG by name; where textures are sent, nothing else fits."""
    named: dict[str, Path] = {}
    for file in inputs:
        last = file.name.rpartition("/")[2]
        if not (last in (META, LOD_META) or last.endswith(TEXTURE)):
            raise InvalidInput(
                f"{file.name}: it came with the textures of a SOG; beside them only {META} or "
                f"{LOD_META} belong.",
                code="splat_files",
                next_step="To merge scenes, send each SOG as one .sog or ZIP.",
            )
        if file.name in named:
            raise InvalidInput(
                f"{file.name}: two files of one SOG have this name.",
                code="splat_files",
                next_step="To merge scenes, send each SOG as one .sog or ZIP.",
            )
        named[file.name] = file.path
    return named


def _compare(
    splats: Splats, main: Result, context: RunContext, scratch: Scratch, stages: Stages
) -> tuple[JsonValue, Path]:
    """(figures of the main result against the scene it was made from, a picture of both)."""
    from models.splat_to_sog.metrics.report import compare  # its compiler is slow to import

    original = splats if main.order is None else splats.take(main.order, scratch)
    found = compare(
        original,
        read(main.path, main.path.name, scratch),
        device=context.device,
        on_step=partial(stages, "compare"),
        attributes=main.keeps_rows,
    )
    path = context.workdir / PREVIEW
    path.write_bytes(found.preview)
    return found.report(), path


def _report(
    applied: Applied,
    options: SplatOptions,
    results: Sequence[Result],
    degree_in: int,
    streamed: bool,  # whether an input has levels of detail
) -> dict[str, JsonValue]:
    splats, facts = applied.splats, applied.report
    warnings = []
    if facts["non_finite"]:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in facts["non_finite"].items())
        warnings.append(f"Splats that cannot be drawn were dropped ({reasons}).")
    warnings += [f"{count} splats: {what}." for what, count in facts["repaired"].items()]
    for result in results:
        warnings += [
            f"{result.path.name} cannot hold {what}: {count} splats."
            for what, count in result.lost.items()
        ]
    warnings += [
        f"{name} has no effect: it is for {', '.join(formats)}; "
        f"formats is {', '.join(options.formats)}."
        for name, formats in options.without_effect().items()
    ]
    if options.palette_size and not splats.degree:
        warnings.append("palette_size has no effect: the scene has no spherical harmonics.")
    if options.level and not streamed:
        warnings.append(
            f"level has no effect: it is {options.level}, and no input is a streamed SOG; only "
            "that has levels of detail."
        )
    main = results[0]
    return {
        "splats_in": facts["splats_in"],
        "splats_out": len(splats),
        "dropped": facts["non_finite"] | facts["dropped"],
        "merged_away": facts.get("merged_away", 0),
        "repaired": facts["repaired"],
        "model": splats.model,
        "sh_degree_in": degree_in,
        "sh_degree": MAX_DEGREE if any("degree" in what for what in main.lost) else splats.degree,
        "palette_entries": palette_entries(main.files),
        "coding": main.choices,
        "bytes_out": main.path.stat().st_size,
        "bytes": {name: len(data) for name, data in main.files.items()},
        "warnings": warnings,
    }


def palette_entries(files: dict[str, bytes]) -> int:
    """Entries of the scene's palette, from its own description; 0 without harmonics."""
    description = json.loads(files.get(META, b"{}"))
    return int(description["shN"]["count"]) if "shN" in description else 0
