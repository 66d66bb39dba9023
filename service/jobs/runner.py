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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from models.context import Cancelled, InputFile, Pipeline
from service.jobs.faults import fault_of
from service.jobs.protocol import decode, encode
from service.jobs.records import Fault
from service.pipelines import PIPELINES, PipelineEntry, find_pipeline
from service.settings import PREFIX

log = structlog.get_logger("runner")

READ_BYTES = 1 << 16
PRELOAD = f"{PREFIX}PRELOAD"


class Runner:
    """Reads commands in a thread, runs steps in the main thread."""

    def __init__(
        self, device: str, event_fd: int, table: tuple[PipelineEntry, ...] = PIPELINES
    ) -> None:
        self.device = device
        self._table = table
        self._event_fd = event_fd
        os.set_inheritable(event_fd, False)  # a pipeline's own children must not hold it open
        self._writing = threading.Lock()
        self._requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancelled: set[int] = set()
        self._pipelines: dict[str, Pipeline] = {}

    def serve(self) -> None:
        """Until stdin ends. Never returns: what a pipeline left running must not keep us alive."""
        try:
            threading.Thread(target=self._read_commands, daemon=True).start()
            self._warm_up()
            self.send({"type": "ready"})
            while True:
                request = self._requests.get()
                self.send({"type": "started", "step": request["step"]})
                self.send({**self._run(request), "step": request["step"]})
        except BaseException as error:
            log.exception("runner_broken")
            self.send({"type": "broken", "reason": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(1)

    def send(self, event: dict[str, Any]) -> None:
        line = encode(event)
        with self._writing:
            while line:  # a pipe may take a part of a long line
                line = line[os.write(self._event_fd, line) :]

    def is_cancelled(self, step: int) -> bool:
        return step in self._cancelled

    def _read_commands(self) -> None:
        buffer = b""
        while chunk := os.read(0, READ_BYTES):
            *lines, buffer = (buffer + chunk).split(b"\n")
            for message in map(decode, lines):
                if message["type"] == "cancel":
                    self._cancelled.add(message["step"])
                else:
                    self._requests.put(message)
        os._exit(0)  # the worker is gone; the main thread may be deep in native code

    def _warm_up(self) -> None:
        """Load what needs the base install alone, and what PRELOAD names, so that the first job
        does not pay for it.

        A pipeline that does not load is tried again when a job asks for it, and fails only that.
        """
        for entry in self._table:
            if (entry.packages or entry.weights) and entry.name != os.environ.get(PRELOAD):
                continue
            try:
                self._load(entry)
            except Exception:
                log.exception("pipeline_not_loaded", pipeline=entry.name)

    def _load(self, entry: PipelineEntry) -> Pipeline:
        if entry.loader not in self._pipelines:
            if entry.weights:
                self._unload_networks()
            module, _, function = entry.loader.partition(":")
            load = getattr(importlib.import_module(module), function)
            self._pipelines[entry.loader] = load(self.device)
        return self._pipelines[entry.loader]

    def _unload_networks(self) -> None:
        """One pipeline with weights at a time: the next looks at how much memory is free."""
        loaded = [
            entry.loader
            for entry in self._table
            if entry.weights and entry.loader in self._pipelines
        ]
        for loader in loaded:
            del self._pipelines[loader]
        if loaded:
            importlib.import_module("models.nn.memory").give_back(self.device)

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        """One step to its last event."""
        context = StepContext(self, request)
        try:
            entry = find_pipeline(request["task"], request["pipeline"], self._table)
            options = entry.options.model_validate(request["options"])
            inputs = [
                InputFile(Path(item["path"]), item["name"], item["media_type"])
                for item in request["inputs"]
            ]
            if entry.loader not in self._pipelines:  # weights may have gone while the job waited
                entry.check_available(request["options"])
            result = self._load(entry)(context, inputs, options)
            event = {
                "type": "done",
                "artifacts": [
                    {"name": item.name, "path": str(item.path), "media_type": item.media_type}
                    for item in result.artifacts
                ],
                "report": dict(result.report),
            }
            encode(event)  # a report that is not JSON is a bug of this pipeline, found here
            return event
        except Cancelled:
            return {"type": "cancelled"}
        except Exception as error:  # a bug in a pipeline must end one job, not the worker
            found = fault_of(error, request["pipeline"])
            if found.fault in (Fault.DEFECT, Fault.OUTAGE):
                log.exception("pipeline_failed", pipeline=request["pipeline"], code=found.code)
            return {"type": "failed", **asdict(found)}


class StepContext:
    """The RunContext of one step: progress becomes events."""

    def __init__(self, runner: Runner, request: dict[str, Any]) -> None:
        self._runner = runner
        self._step = request["step"]
        self.workdir = Path(request["workdir"])
        self.seed = int(request["options"].get("seed", 0))
        self.device = runner.device

    def progress(self, stage: str, fraction: float, message: str = "") -> None:
        self._runner.send(
            {
                "type": "progress",
                "step": self._step,
                "stage": stage,
                "fraction": min(1.0, max(0.0, float(fraction))),
                "message": message,
            }
        )

    def cancelled(self) -> bool:
        return self._runner.is_cancelled(self._step)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the worker decides
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    Runner(device=sys.argv[1], event_fd=int(sys.argv[2])).serve()


if __name__ == "__main__":
    main()
