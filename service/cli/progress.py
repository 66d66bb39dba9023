"""How far the work is, on stderr: a bar on a terminal, a line per stage elsewhere.

Knows nothing of what is being done. rich is loaded only for a bar.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

OnProgress = Callable[[str, float, str], None]
"""stage, fraction of the whole work (0..1), message."""


@contextmanager
def show_progress(label: str, quiet: bool = False) -> Iterator[OnProgress]:
    """Yields the function to call with each step ahead."""
    if quiet:
        yield lambda stage, fraction, message: None
    elif sys.stderr.isatty():
        with _bar(label) as on_progress:
            yield on_progress
    else:
        yield _lines(label)


def _lines(label: str) -> OnProgress:
    """A line when the stage changes, and none in between: logs stay readable."""
    last: list[str] = []

    def on_progress(stage: str, fraction: float, message: str) -> None:
        if last != [stage]:
            last[:] = [stage]
            tail = f": {message}" if message else ""
            click.echo(f"{label}: {fraction:4.0%} {stage}{tail}", err=True)

    return on_progress


@contextmanager
def _bar(label: str) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=1.0, note="")

        def on_progress(stage: str, fraction: float, message: str) -> None:
            progress.update(task, completed=fraction, description=f"{label}: {stage}", note=message)

        yield on_progress
