"""One conversion, done in this process or sent to a service; both give artifacts in a folder.

Knows neither the command line nor where results go.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.context import Artifact, Cancelled, InputFile, LocalContext
from service.cli.progress import OnProgress

if TYPE_CHECKING:
    from service.client import Job
    from service.pipelines import PipelineEntry


@dataclass(frozen=True)
class Work:
    """What to convert. options: those given; the model's defaults hold for the others."""

    entry: PipelineEntry
    inputs: Sequence[InputFile]
    options: Mapping[str, Any]
    device: str = "cpu"


@dataclass(frozen=True)
class Done:
    """artifacts: files in the work folder, the main one first. job: the service's id, if any."""

    artifacts: Sequence[Artifact]
    report: Mapping[str, Any] = field(default_factory=dict)
    job: str | None = None


def run_here(work: Work, folder: Path, on_progress: OnProgress) -> Done:
    """Load the pipeline by its loader string and run it in this process.

    The first Ctrl-C (or SIGTERM) asks the pipeline to stop, the second stops at once. Raises
    PipelineError, InvalidOptions, PipelineUnavailable.
    """
    from service.pipelines import validate_options

    work.entry.check_available()
    values = validate_options(work.entry, work.options)
    options = work.entry.options.model_validate(values)
    with _stop_requests() as stopped:
        on_progress("loading", 0.0, "")
        module, _, function = work.entry.loader.partition(":")
        pipeline = getattr(importlib.import_module(module), function)(work.device)
        context = LocalContext(
            workdir=folder,
            seed=int(values.get("seed", 0)),
            device=work.device,
            on_progress=on_progress,
            is_cancelled=stopped,
        )
        result = pipeline(context, work.inputs, options)
        if stopped():
            raise Cancelled("The work was cancelled.")
    return Done(result.artifacts, result.report)


def run_there(work: Work, url: str, folder: Path, on_progress: OnProgress) -> Done:
    """Send the work to the service at `url`, follow it, fetch the artifacts.

    Ctrl-C cancels the job there. Raises MeshpressClientError.
    """
    from service.client import Client

    with Client(url) as client:
        on_progress("uploading", 0.0, "")
        submit = client.submit_mesh if work.entry.task == "mesh" else client.submit_splat
        job = submit([file.path for file in work.inputs], pipeline=work.entry.name, **work.options)

        def follow(current: Job) -> None:
            stage, fraction, message = current.progress
            on_progress(stage or current.state, fraction, message)

        try:
            job = job.wait(on_progress=follow)
        except KeyboardInterrupt:
            click.echo(f"Cancelling job {job.id} …", err=True)
            job.cancel()
            raise
        artifacts = []
        for row in job.artifacts:
            path = job.download(folder / Path(row["name"]).name, row["name"])
            artifacts.append(Artifact(row["name"], path, row["media_type"]))
        return Done(artifacts, job.report, job.id)


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether the user has asked to stop."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        click.echo("Stopping … (Ctrl-C again stops at once)", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
