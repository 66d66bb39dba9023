"""What a pipeline is given and what it gives back: context, inputs, artifacts, errors.

A pipeline does not know who runs it (a worker's runner, the CLI or a test); it sees only these
types. A pipeline module offers one function, `load(device) -> Pipeline`, called once per process;
the `Pipeline` it returns is called once per job.

Errors a pipeline may raise:

    PipelineError            a job that cannot succeed, by a defect; its words reach the user
    ├── InvalidInput         the file or its combination with the options is at fault
    ├── Unavailable          weights, a device, a library, memory or a number format are missing on
    │                        this machine: its user can mend that
    └── Cancelled            raised by `check_cancelled`; the user asked for it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

JsonValue = Any
"""Anything `json.dumps` takes; reports are plain JSON."""


class PipelineError(Exception):
    """A job that cannot succeed as asked.

    code:      stable snake_case name, e.g. "splat_truncated"; documented in docs/errors.md
    message:   which file or field, which value, what is allowed
    next_step: what the user can do about it
    """

    code = "pipeline_error"

    def __init__(self, message: str, *, code: str | None = None, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.next_step = next_step


class InvalidInput(PipelineError):
    """The uploaded file, or its combination with the options, is at fault."""

    code = "invalid_input"


class Unavailable(PipelineError):
    """Something this machine lacks as it is set up: weights, a device, an optional library, memory,
    a number format wide enough."""

    code = "unavailable"


class Cancelled(PipelineError):
    """The job was cancelled while it ran."""

    code = "cancelled"


@dataclass(frozen=True)
class InputFile:
    """One uploaded file, on local disk for the duration of the step.

    name is what the user called it: shown in messages, never used as a path.
    """

    path: Path
    name: str
    media_type: str = "application/octet-stream"


@dataclass(frozen=True)
class Artifact:
    """One file a pipeline produced; `path` lies under the context's `workdir`."""

    name: str
    path: Path
    media_type: str


@dataclass(frozen=True)
class PipelineResult:
    """artifacts: files, the main one first. report: JSON facts (counts, warnings, metrics)."""

    artifacts: Sequence[Artifact]
    report: Mapping[str, JsonValue] = field(default_factory=dict)


class RunContext(Protocol):
    """Given to a pipeline for one step of one job."""

    workdir: Path  # scratch and output folder, private to this step
    seed: int
    device: str  # "cpu", "cuda:0", ...

    def progress(self, stage: str, fraction: float, message: str = "") -> None:
        """Report the current stage; `fraction` is of the whole pipeline, 0..1, non-decreasing."""

    def cancelled(self) -> bool:
        """True once the user has asked to cancel; poll it at least once a second."""


def check_cancelled(context: RunContext) -> None:
    """Raise Cancelled if the user has asked to cancel."""
    if context.cancelled():
        raise Cancelled("The job was cancelled.")


class Pipeline(Protocol):
    """A loaded pipeline: called once per job, keeps weights and compiled kernels between calls."""

    def __call__(
        self, context: RunContext, inputs: Sequence[InputFile], options: Any
    ) -> PipelineResult: ...


@dataclass
class LocalContext:
    """A RunContext for the calling process: the CLI's local mode, scripts and tests."""

    workdir: Path
    seed: int = 0
    device: str = "cpu"
    on_progress: Callable[[str, float, str], None] | None = None
    is_cancelled: Callable[[], bool] | None = None

    def progress(self, stage: str, fraction: float, message: str = "") -> None:
        if self.on_progress is not None:
            self.on_progress(stage, fraction, message)

    def cancelled(self) -> bool:
        return self.is_cancelled is not None and self.is_cancelled()
