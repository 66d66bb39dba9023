"""A pipeline for rehearsals: real files and options in, real files out, and faults on request.

Run as a script it is the command line with this pipeline as its only one, so that tests can send
signals to it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.context import (
    Artifact,
    InputFile,
    InvalidInput,
    Pipeline,
    PipelineResult,
    RunContext,
    check_cancelled,
)
from service.pipelines import PipelineEntry


class RehearsalOptions(BaseModel):
    """One option of each kind that command lines must offer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: Annotated[tuple[Literal["glb", "obj"], ...], Field(min_length=1)] = ("glb",)
    azimuth: Annotated[tuple[Annotated[float, Field(ge=-360, le=360)], ...] | None, Field()] = None
    level: Annotated[Literal[1, 2], Field(description="One of two numbers.")] = 1
    smooth: Annotated[bool, Field(description="A flag.")] = True
    count: Annotated[int, Field(ge=1, le=100, description="A number in a range.")] = 1
    seconds: Annotated[float, Field(ge=0, le=60, description="How long it takes.")] = 0.0
    fault: Annotated[Literal["", "input", "bug", "deaf"], Field(description="What fails.")] = ""


ENTRY = PipelineEntry(
    name="rehearsal",
    task="mesh",
    summary="Writes what it was given.",
    loader="rehearsal_pipeline:load",
    options=RehearsalOptions,
    inputs=(1, 2),
    media_types=("image/png",),
    artifacts=("mesh.glb", "mesh.obj.zip"),
)


def load(device: str) -> Pipeline:
    return rehearse


def rehearse(
    context: RunContext, inputs: Sequence[InputFile], options: RehearsalOptions
) -> PipelineResult:
    """Writes the inputs' bytes, then the options as JSON, into mesh.glb."""
    if options.fault == "input":
        raise InvalidInput("a.png is not an image", code="not_an_image", next_step="Send a PNG.")
    if options.fault == "bug":
        raise ZeroDivisionError("division by zero")
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        context.progress("resting", 0.5, "a moment")
        if options.fault != "deaf":
            check_cancelled(context)
        time.sleep(0.02)
    artifacts = [_write(context.workdir, form, inputs, options) for form in options.formats]
    context.progress("done", 1.0)
    report = {"seed": context.seed, "warnings": ["This is a rehearsal."]}
    return PipelineResult(artifacts, report)


def _write(folder: Path, form: str, inputs: Sequence[InputFile], options: Any) -> Artifact:
    if form == "obj":
        path = folder / "mesh.obj.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mesh.obj", "# one\nmtllib mesh.mtl\nv 0 0 0\n")
            archive.writestr("mesh.mtl", "newmtl mesh\nmap_Kd mesh.png\n")
            archive.writestr("mesh.png", inputs[0].path.read_bytes())
        return Artifact("mesh.obj.zip", path, "application/zip")
    path = folder / "mesh.glb"
    words = json.dumps(options.model_dump(mode="json")).encode()
    path.write_bytes(b"".join(file.path.read_bytes() for file in inputs) + b"\n" + words)
    return Artifact("mesh.glb", path, "model/gltf-binary")


if __name__ == "__main__":
    from service.cli.root import run

    os.environ.setdefault("COLUMNS", "100")
    sys.exit(run(sys.argv[1:], pipelines=(ENTRY,)))
