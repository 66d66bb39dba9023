"""Which pipeline a request gets that names none: the best that can do it here, and why.

Knows the table, what the request asks for, and what the workers run on; opens nothing and asks
nobody. The answer is a pure function of these, so it can be shown beside the job.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import InvalidOptions, PipelineUnavailable
from service.pipeline_options import properties_of
from service.pipelines import AUTO, AUTO_ORDER, GIB, PipelineEntry, all_formats


@dataclass(frozen=True)
class Device:
    """What jobs run on. memory_bytes: of the card; 0 for the CPU, or where it is not known."""

    name: str = "cpu"
    memory_bytes: int = 0

    def __str__(self) -> str:
        memory = f" ({self.memory_bytes / GIB:.0f} GiB)" if self.memory_bytes else ""
        return f"{self.name}{memory}"


@dataclass(frozen=True)
class Asked:
    """files: how many were sent. options: names of those given. formats: asked for, if any were."""

    files: int
    options: frozenset[str] = frozenset()
    formats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """passed_over: the better ones that were not taken, each with the reason."""

    entry: PipelineEntry
    reason: str
    passed_over: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "asked": AUTO,
            "pipeline": self.entry.name,
            "reason": self.reason,
            "passed_over": dict(self.passed_over),
        }


def weakest(devices: Collection[Device]) -> Device:
    """Any worker may get the job: what the weakest can do, all can. Without one, the CPU."""
    return min(devices, key=lambda device: device.memory_bytes, default=Device())


def choose(
    task: str, table: tuple[PipelineEntry, ...], asked: Asked, device: Device = Device()
) -> Choice:
    """The first of AUTO_ORDER that takes what was asked and can run on `device`.

    An option or a format that no pipeline has does not count: whoever checks the options of the
    one that is taken says what is wrong with it. Raises PipelineUnavailable where those that could
    do it cannot run here, InvalidOptions where none could do all of it anywhere.
    """
    entries = _ranked(task, table)
    asked = _known_somewhere(asked, entries, table)
    passed_over: dict[str, str] = {}
    unable: dict[PipelineEntry, str] = {}
    last_resorts: list[tuple[PipelineEntry, str]] = []
    for entry in entries:
        if reason := _does_not_take(entry, table, asked):
            passed_over[entry.name] = reason
        elif reason := _cannot_run(entry, device):
            unable[entry] = reason
            passed_over[entry.name] = _for_other_counts(entry, asked) or reason
        elif reason := _not_its_strength(entry, asked, device):
            passed_over[entry.name] = f"{reason}; pipeline={entry.name} takes it"
            last_resorts.append((entry, reason))
        else:
            return Choice(entry, _why(asked, device, passed_over), passed_over)
    if last_resorts:
        entry, reason = last_resorts[0]
        del passed_over[entry.name]
        return Choice(entry, f"Nothing else can do this here, although {reason}.", passed_over)
    if unable:
        raise _unavailable(unable, asked)
    raise _contradiction(passed_over, asked)


def _ranked(task: str, table: tuple[PipelineEntry, ...]) -> list[PipelineEntry]:
    """The task's pipelines that AUTO_ORDER names, the best first; all, where it names none."""
    order = AUTO_ORDER.get(task, ())
    entries = [entry for entry in table if entry.task == task]
    named = [entry for entry in entries if entry.name in order]
    return sorted(named, key=lambda entry: order.index(entry.name)) or entries


def _known_somewhere(
    asked: Asked, entries: Sequence[PipelineEntry], table: tuple[PipelineEntry, ...]
) -> Asked:
    options = {name for entry in entries for name in properties_of(entry, table)}
    formats = {name for entry in entries for name in all_formats(entry, table)}
    return Asked(
        asked.files,
        asked.options & options,
        tuple(name for name in asked.formats if name in formats),
    )


def _does_not_take(entry: PipelineEntry, table: tuple[PipelineEntry, ...], asked: Asked) -> str:
    """Why the request itself speaks against this pipeline; empty when it does not."""
    fewest, most = entry.inputs
    if not fewest <= asked.files <= most:
        return f"it takes {most} file(s)" if asked.files > most else f"it takes {fewest} and more"
    if absent := [name for name in asked.formats if name not in all_formats(entry, table)]:
        return f"it makes no {', '.join(absent)}"
    known = properties_of(entry, table)
    if unknown := sorted(name for name in asked.options if name not in known):
        return f"it has no option {', '.join(unknown)}"
    return ""


def _cannot_run(entry: PipelineEntry, device: Device) -> str:
    """Why it cannot run on this machine; empty when it can."""
    if reason := entry.unavailable_reason():
        return reason.rstrip(".")
    if 0 < device.memory_bytes < entry.memory_bytes:
        return f"it needs {entry.memory_bytes / GIB:.0f} GiB of GPU memory, the device is {device}"
    return ""


def _not_its_strength(entry: PipelineEntry, asked: Asked, device: Device) -> str:
    """Why it is taken only where nothing else can do it; empty when it is good at this."""
    if reason := _for_other_counts(entry, asked):
        return reason
    if entry.memory_bytes and device.name == "cpu":
        return "without a GPU it takes many minutes"
    return ""


def _for_other_counts(entry: PipelineEntry, asked: Asked) -> str:
    fewest, most = entry.best_with
    return "" if fewest <= asked.files <= most else f"it is for {fewest} to {most} files"


def _why(asked: Asked, device: Device, passed_over: Mapping[str, str]) -> str:
    if passed_over:
        return f"The best that can do this here. Not taken: {', '.join(passed_over)}."
    files = "1 file" if asked.files == 1 else f"{asked.files} files"
    return f"The best for {files} on {device}; all it needs is here."


def _unavailable(unable: Mapping[PipelineEntry, str], asked: Asked) -> PipelineUnavailable:
    """Some could do it, and each lacks something here; the one made for so many files first."""
    able = sorted(unable, key=lambda entry: bool(_for_other_counts(entry, asked)))
    command = " && ".join(lack.command for lack in able[0].lacks())
    wanted = f"formats={','.join(asked.formats)}" if asked.formats else "This request"
    reasons = "; ".join(f"{entry.name}: {unable[entry]}" for entry in able)
    return PipelineUnavailable(
        f"{wanted} is for {' or '.join(entry.name for entry in able)}, which cannot run here. "
        f"{reasons}.",
        next_step=f"Run `{command}` on this machine; nothing has to be restarted."
        if command
        else f"Name the pipeline: pipeline={able[0].name}.",
        details={"pipeline": able[0].name, "command": command},
    )


def _contradiction(passed_over: Mapping[str, str], asked: Asked) -> InvalidOptions:
    """Each wish is somebody's, all together are nobody's."""
    fields = ["formats"] if asked.formats else []
    fields += sorted(asked.options - {"formats"})
    reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
    return InvalidOptions(
        f"No pipeline takes all of this together. {reasons}.",
        next_step="GET /v1/pipelines lists the files, formats and options of every pipeline.",
        details={
            "errors": [
                {
                    "field": name,
                    "value": ",".join(asked.formats) if name == "formats" else None,
                    "message": "no pipeline takes it together with the rest",
                    "allowed": "a combination that one pipeline takes",
                }
                for name in fields
            ]
        },
    )
