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

from models.context import (
    Artifact,
    Cancelled,
    InputFile,
    LocalContext,
    Pipeline,
    PipelineResult,
)
from service.cli.progress import OnProgress

if TYPE_CHECKING:
    from service.client import Job
    from service.jobs.records import Step
    from service.pipelines import PipelineEntry


@dataclass(frozen=True)
class Work:
    """What to convert. entry: None for the best that can; options: those given, the model's
    defaults hold for the others; table: the pipelines there are."""

    task: str
    entry: PipelineEntry | None
    inputs: Sequence[InputFile]
    options: Mapping[str, Any]
    device: str
    table: tuple[PipelineEntry, ...]


@dataclass(frozen=True)
class Done:
    """artifacts: files in the work folder, the main one first. job: the service's id, if any."""

    pipeline: str
    artifacts: Sequence[Artifact]
    report: Mapping[str, Any] = field(default_factory=dict)
    job: str | None = None


def run_here(work: Work, folder: Path, on_progress: OnProgress) -> Done:
    """Load each step's pipeline by its loader string and run it in this process.

    The first Ctrl-C (or SIGTERM) asks the pipeline to stop, the second stops at once. Raises
    PipelineError, InvalidOptions, PipelineUnavailable.
    """
    from service.jobs.steps import combined, handed_on, published
    from service.pipelines import find_pipeline

    steps = _plan(work)
    entries = [find_pipeline(step.task, step.pipeline, work.table) for step in steps]
    for step, entry in zip(steps, entries, strict=True):
        entry.check_available(step.options)
    files = list(work.inputs)
    results: list[PipelineResult] = []
    with _stop_requests() as stopped:
        for index, (step, entry) in enumerate(zip(steps, entries, strict=True)):
            if results:
                made = handed_on(step, results[-1].artifacts)
                files = [InputFile(file.path, file.name, file.media_type) for file in made]
            workdir = folder / str(index)
            workdir.mkdir()
            share = _share(on_progress, index, len(steps))
            results.append(_run_step(entry, step, files, workdir, work.device, share, stopped))
            if stopped():
                raise Cancelled("The work was cancelled.")
    artifacts = published(steps, [result.artifacts for result in results])
    report = combined(steps, [result.report for result in results])
    return Done(steps[0].pipeline, artifacts, report)


def _plan(work: Work) -> tuple[Step, ...]:
    """The steps of this work; the pipeline is chosen here where none is named."""
    from service.choice import Asked, Device, choose
    from service.jobs.steps import plan
    from service.pipeline_options import validate_options

    entry, why = work.entry, None
    if entry is None:
        formats = tuple(work.options.get("formats", ()))
        asked = Asked(len(work.inputs), frozenset(work.options), formats)
        choice = choose(work.task, work.table, asked, Device(work.device, _memory(work.device)))
        entry, why = choice.entry, choice.to_json()
    return plan(entry, validate_options(entry, work.options, work.table), work.table, why)


def _memory(device: str) -> int:
    """Bytes of this GPU's memory; 0 for the CPU, without asking a driver."""
    from service.guard.machine import memory_of

    return memory_of(device)


def _run_step(
    entry: PipelineEntry,
    step: Step,
    files: Sequence[InputFile],
    workdir: Path,
    device: str,
    on_progress: OnProgress,
    stopped: Callable[[], bool],
) -> PipelineResult:
    on_progress("loading", 0.0, "")
    module, _, function = entry.loader.partition(":")
    pipeline: Pipeline = getattr(importlib.import_module(module), function)(device)
    context = LocalContext(
        workdir=workdir,
        seed=int(step.options.get("seed", 0)),
        device=device,
        on_progress=on_progress,
        is_cancelled=stopped,
    )
    return pipeline(context, files, entry.options.model_validate(step.options))


def _share(on_progress: OnProgress, index: int, count: int) -> OnProgress:
    """Progress of one step as progress of the whole."""
    return lambda stage, fraction, message: on_progress(stage, (index + fraction) / count, message)


def run_there(work: Work, url: str, folder: Path, on_progress: OnProgress) -> Done:
    """Send the work to the service at `url`, follow it, fetch the artifacts.

    Ctrl-C cancels the job there. Raises MeshpressClientError.
    """
    from service.client import Client

    with Client(url) as client:
        on_progress("uploading", 0.0, "")
        submit = client.submit_mesh if work.task == "mesh" else client.submit_splat
        named = {} if work.entry is None else {"pipeline": work.entry.name}
        job = submit([file.path for file in work.inputs], **named, **work.options)

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
        return Done(job.data["steps"][0]["pipeline"], artifacts, job.report, job.id)


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
