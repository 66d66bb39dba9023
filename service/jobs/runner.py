"""The runner: a worker's child process that loads each pipeline once and runs one step at a time.

Knows neither queue nor database; it may be killed at any moment and the job survives. Started as
`python -m service.jobs.runner DEVICE EVENT_FD`, with commands on stdin. What libraries print goes
to stderr, so that nothing but events reaches the event pipe.
"""

from __future__ import annotations

import importlib
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import structlog

from models.context import Cancelled, InputFile, InvalidInput, Pipeline, PipelineError
from service.jobs.protocol import decode, encode
from service.pipelines import PIPELINES, PipelineEntry, find_pipeline

log = structlog.get_logger("runner")


class Runner:
    """Reads commands in a thread, runs steps in the main thread."""

    def __init__(
        self, device: str, event_fd: int, table: tuple[PipelineEntry, ...] = PIPELINES
    ) -> None:
        self.device = device
        self._table = table
        self._event_fd = event_fd
        self._writing = threading.Lock()
        self._requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancelled = threading.Event()
        self._pipelines: dict[str, Pipeline] = {}

    def serve(self) -> None:
        """Until stdin ends."""
        threading.Thread(target=self._read_commands, daemon=True).start()
        self._warm_up()
        self.send({"type": "ready"})
        while True:
            request = self._requests.get()
            self._cancelled.clear()
            self.send(self._run(request))

    def send(self, event: dict[str, Any]) -> None:
        line = encode(event)
        with self._writing:
            while line:  # a pipe may take a part of a long line
                line = line[os.write(self._event_fd, line) :]

    def _read_commands(self) -> None:
        for line in sys.stdin.buffer:
            message = decode(line)
            if message["type"] == "cancel":
                self._cancelled.set()
            else:
                self._requests.put(message)
        os._exit(0)  # the worker is gone; the main thread may be deep in native code

    def _warm_up(self) -> None:
        """Load what needs no weights, so that the first job does not pay for imports."""
        for entry in self._table:
            if not entry.needs and not entry.unavailable_reason():
                self._load(entry)

    def _load(self, entry: PipelineEntry) -> Pipeline:
        if entry.loader not in self._pipelines:
            module, _, function = entry.loader.partition(":")
            load = getattr(importlib.import_module(module), function)
            self._pipelines[entry.loader] = load(self.device)
        return self._pipelines[entry.loader]

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        """One step to its last event."""
        context = StepContext(
            self, Path(request["workdir"]), int(request["options"].get("seed", 0))
        )
        try:
            entry = find_pipeline(request["task"], request["pipeline"], self._table)
            options = entry.options.model_validate(request["options"])
            inputs = [
                InputFile(Path(item["path"]), item["name"], item["media_type"])
                for item in request["inputs"]
            ]
            result = self._load(entry)(context, inputs, options)
        except Cancelled:
            return {"type": "cancelled"}
        except PipelineError as error:
            return {
                "type": "failed",
                "code": error.code,
                "message": error.message,
                "next_step": error.next_step,
                "user_fault": isinstance(error, InvalidInput),
            }
        except MemoryError:
            return {
                "type": "failed",
                "code": "out_of_memory",
                "message": "The job needs more memory than this worker has.",
                "next_step": "Send a smaller file, or give the worker more memory.",
                "user_fault": False,
            }
        except Exception as error:  # a bug in a pipeline must end one job, not the worker
            log.exception("pipeline_bug", pipeline=request["pipeline"])
            return {
                "type": "failed",
                "code": "pipeline_bug",
                "message": f"The pipeline {request['pipeline']!r} failed unexpectedly "
                f"({type(error).__name__}).",
                "next_step": "Please report this with the worker's log.",
                "user_fault": False,
            }
        return {
            "type": "done",
            "artifacts": [
                {"name": item.name, "path": str(item.path), "media_type": item.media_type}
                for item in result.artifacts
            ],
            "report": dict(result.report),
        }

    def cancelled(self) -> bool:
        return self._cancelled.is_set()


class StepContext:
    """The RunContext of one step: progress becomes events."""

    def __init__(self, runner: Runner, workdir: Path, seed: int) -> None:
        self._runner = runner
        self.workdir = workdir
        self.seed = seed
        self.device = runner.device

    def progress(self, stage: str, fraction: float, message: str = "") -> None:
        self._runner.send(
            {
                "type": "progress",
                "stage": stage,
                "fraction": min(1.0, max(0.0, float(fraction))),
                "message": message,
            }
        )

    def cancelled(self) -> bool:
        return self._runner.cancelled()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the worker decides
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    Runner(device=sys.argv[1], event_fd=int(sys.argv[2])).serve()


if __name__ == "__main__":
    main()
