"""The real runner over a table of rehearsal pipelines: each does one thing a bad day brings.

Run by workers under test as `python -m rehearsal_runner DEVICE EVENT_FD`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from models.context import (
    Artifact,
    InputFile,
    InvalidInput,
    Pipeline,
    PipelineResult,
    RunContext,
    check_cancelled,
)
from service.jobs.runner import Runner
from service.pipelines import PipelineEntry


class NoOptions(BaseModel):
    seconds: float = 0.0


def load_copy(device: str) -> Pipeline:
    """Writes its inputs, one after the other, into one artifact."""

    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        target = context.workdir / "copy.bin"
        target.write_bytes(b"".join(item.path.read_bytes() for item in inputs) + b"+")
        context.progress("copy", 1.0, f"{len(inputs)} files")
        return PipelineResult(
            [Artifact("copy.bin", target, "application/octet-stream")],
            {"pid": os.getpid(), "not_a_number": float("nan")},
        )

    return run


def load_slow(device: str) -> Pipeline:
    """Polls for cancellation as a pipeline should."""

    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            check_cancelled(context)
            context.progress("waiting", 0.5, "still here")
            time.sleep(0.02)
        return load_copy(device)(context, inputs, options)

    return run


def load_stubborn(device: str) -> Pipeline:
    """Never looks whether it was cancelled."""

    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        time.sleep(options.seconds)
        return load_copy(device)(context, inputs, options)

    return run


def load_deadly(device: str) -> Pipeline:
    """Dies as a segmentation fault in native code does."""

    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("unreachable")

    return run


def load_deadly_once(device: str) -> Pipeline:
    """Dies the first time it sees an input, which it remembers beside its work folder."""

    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        memory = context.workdir.parents[1] / "seen-by-deadly-once"
        if not memory.exists():
            memory.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return load_copy(device)(context, inputs, options)

    return run


def load_slow_once(device: str) -> Pipeline:
    """Slow the first time it sees an input, whichever worker runs it; then at once."""

    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        memory = Path(os.environ["MESHPRESS_DATA_DIR"]) / "seen-by-slow-once"
        seconds = 0.0 if memory.exists() else options.seconds
        memory.touch()
        return load_slow(device)(context, inputs, NoOptions(seconds=seconds))

    return run


def load_refusing(device: str) -> Pipeline:
    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        raise InvalidInput("the picture is upside down", code="upside_down", next_step="Turn it.")

    return run


def load_buggy(device: str) -> Pipeline:
    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        raise ZeroDivisionError("a bug")

    return run


def load_mangled(device: str) -> Pipeline:
    """Reports text that neither UTF-8 nor PostgreSQL takes."""

    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        context.progress("lone \ud800 surrogate", 0.5, "and a \0 in it")
        time.sleep(0.5)  # long enough for the progress to be stored
        return load_copy(device)(context, inputs, options)

    return run


def load_leaving_a_child(device: str) -> Pipeline:
    """Dies while a child of its own holds every pipe open."""

    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    return run


def load_full_disk(device: str) -> Pipeline:
    def run(context: RunContext, inputs: Sequence[InputFile], options: NoOptions) -> PipelineResult:
        raise OSError(errno.ENOSPC, "No space left on device")

    return run


def load_absent(device: str) -> Pipeline:
    """Its module does not import: it must fail its own jobs only."""
    raise ImportError("libmissing.so: cannot open shared object file")


def entry(name: str) -> PipelineEntry:
    return PipelineEntry(
        name=name,
        task="rehearsal",
        summary=name,
        loader=f"rehearsal_runner:load_{name}",
        options=NoOptions,
        inputs=(0, 9),
        media_types=(),
        artifacts=("copy.bin",),
    )


NAMES = ("copy", "slow", "stubborn", "deadly", "deadly_once", "refusing", "buggy", "mangled")
NAMES += ("leaving_a_child", "full_disk", "absent", "slow_once")
TABLE = tuple(entry(name) for name in NAMES)

if __name__ == "__main__":
    Runner(sys.argv[1], int(sys.argv[2]), TABLE).serve()
