"""What request handlers may use: settings, store, queue, watcher, metrics; made in `app.py`.

Knows no endpoint and starts nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ParamSpec, TypeVar

import anyio.to_thread
from fastapi import Depends, Request

from service.jobs.queue import JobQueue
from service.jobs.watch import JobWatcher
from service.pipelines import PIPELINES, PipelineEntry
from service.settings import Settings
from service.storage.artifacts import ArtifactStore

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Parts:
    """The running service's parts.

    stopping:  set when the process is asked to stop; waits and event streams end then
    pipelines: what can be asked for
    """

    settings: Settings
    store: ArtifactStore
    queue: JobQueue
    watcher: JobWatcher
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    pipelines: tuple[PipelineEntry, ...] = PIPELINES


async def get_parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


PartsOf = Annotated[Parts, Depends(get_parts)]


async def in_thread(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Run a blocking call beside the event loop."""
    return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs))
