"""A request as the steps of one job, and their outcomes as its one result.

Knows the pipeline table, not what any pipeline does: what one wrote is handed to the next by name,
so pipelines need not know each other. Runs nothing: workers and the command line do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from service.jobs.records import Step
from service.pipelines import PIPELINES, PipelineEntry, follower, format_of


class Named(Protocol):
    """An artifact, stored or on disk."""

    @property
    def name(self) -> str: ...


File = TypeVar("File", bound=Named)


def plan(
    entry: PipelineEntry,
    options: Mapping[str, Any],  # validated, of `entry` and of the step that may follow it
    table: tuple[PipelineEntry, ...] = PIPELINES,
    choice: Mapping[str, Any] | None = None,
) -> tuple[Step, ...]:
    """One step, or two where a format is asked for that the splat task makes of the Gaussians."""
    own = {name: value for name, value in options.items() if name in entry.options.model_fields}
    then = follower(entry, table)
    formats = list(options.get("formats", ()))
    later = [name for name in formats if name not in entry.formats]
    if then is None or not later:
        return (Step(entry.name, entry.task, own, choice=choice),)
    first = [name for name in formats if name in entry.formats]
    handed = format_of(entry.splats)
    asked = handed in first
    own["formats"] = first if asked else [*first, handed]
    rest = {name: value for name, value in options.items() if name in then.options.model_fields}
    rest["formats"] = later
    return (
        Step(entry.name, entry.task, own, hidden=() if asked else (entry.splats,), choice=choice),
        Step(then.name, then.task, rest, reads=(entry.splats,), leads=formats[0] in later),
    )


def handed_on(step: Step, files: Sequence[File]) -> list[File]:
    """What `step` takes of its predecessor's artifacts."""
    return [file for file in files if not step.reads or file.name in step.reads]


def published(steps: Sequence[Step], files: Sequence[Sequence[File]]) -> list[File]:
    """The job's result: every step's artifacts but those made for the next step alone. The first
    step's come first, unless a later one leads."""
    if not any(step.reads for step in steps):
        return list(files[-1])
    pairs = sorted(zip(steps, files, strict=True), key=lambda pair: not pair[0].leads)
    return [file for step, made in pairs for file in made if file.name not in step.hidden]


def combined(steps: Sequence[Step], reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The job's report: the one step's own, or each step's under its pipeline's name with all
    warnings beside them; and why the pipeline was taken, where that was our choice."""
    if len(steps) == 1:
        report = dict(reports[0])
    else:
        report = {step.pipeline: dict(one) for step, one in zip(steps, reports, strict=True)}
        report["warnings"] = [note for one in reports for note in one.get("warnings", ())]
    if steps[0].choice is not None:
        report["choice"] = dict(steps[0].choice)
    return report
