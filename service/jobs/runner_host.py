"""The worker's side of a runner: start it, hand it a step, relay its events, stop or kill it.

Knows neither queue nor database. A runner's death is an ordinary outcome here, `RunnerDied`, with
the reason in words; the next step gets a new process.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from service.jobs.protocol import RunRequest, decode, encode
from service.jobs.records import Progress

TICK_SECONDS = 0.1


class RunnerDied(Exception):
    """The process ended without an answer; the message says how."""


class StepTimeout(Exception):
    """The step ran longer than allowed and its runner was killed."""


class Killed(Exception):
    """`kill` was called while a step ran: the worker is shutting down."""


class RunnerHost:
    """At most one runner process at a time. `run` is called by one thread, `kill` by any."""

    def __init__(self, device: str, module: str = "service.jobs.runner") -> None:
        self._device = device
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._events = -1
        self._buffer = b""
        self._killed = threading.Event()
        self._starting = threading.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start a process if none runs; it loads its pipelines while we wait for work."""
        with self._starting:
            if self._killed.is_set() or (self._process and self._process.poll() is None):
                return
            self._discard()
            events, runner_end = os.pipe()
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, self._device, str(runner_end)],
                stdin=subprocess.PIPE,
                stdout=sys.stderr,
                pass_fds=(runner_end,),
            )
            os.close(runner_end)
            self._events, self._buffer = events, b""

    def run(
        self,
        request: RunRequest,
        on_tick: Callable[[Progress | None], bool],
        timeout_seconds: float,
        grace_seconds: float,
    ) -> dict[str, Any]:
        """Run one step; its last event ("done", "failed" or "cancelled").

        on_tick: called with the newest progress (None if there is none) several times a second;
            returns True when the step is to be cancelled, for which the runner has `grace_seconds`.

        Raises RunnerDied, StepTimeout, Killed.
        """
        self.start()
        self._send({"type": "run", **asdict(request)})
        deadline = time.monotonic() + timeout_seconds
        cancel_deadline: float | None = None
        while True:
            latest: Progress | None = None
            for event in self._receive(TICK_SECONDS):
                if event["type"] == "progress":
                    latest = Progress(event["stage"], event["fraction"], event["message"])
                elif event["type"] != "ready":
                    return event
            now = time.monotonic()
            if on_tick(latest) and cancel_deadline is None:
                self._send({"type": "cancel"})
                cancel_deadline = now + grace_seconds
            if cancel_deadline is not None and now > cancel_deadline:
                self._end()
                return {"type": "cancelled"}
            if now > deadline:
                self._end()
                raise StepTimeout(f"it ran longer than {timeout_seconds:g} seconds")

    def restart(self) -> None:
        """End the process and start a fresh one: after a bug nothing in it can be trusted."""
        self._end()
        self.start()

    def kill(self) -> None:
        """End the process for good; a step in progress raises Killed."""
        self._killed.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def _send(self, message: dict[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise RunnerDied("its runner process could not be started")
        try:
            process.stdin.write(encode(message))
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._death() from None

    def _receive(self, timeout_seconds: float) -> list[dict[str, Any]]:
        """Whole events that arrive within the time; raises when the process has died."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            if not selector.select(timeout_seconds):
                return []
        chunk = os.read(self._events, 1 << 16)
        if not chunk:
            raise self._death()
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return [decode(line) for line in lines]

    def _death(self) -> Exception:
        """The exception for a process whose pipe has closed."""
        process = self._process
        code = process.wait() if process is not None else None
        self._discard()
        if self._killed.is_set():
            return Killed("the worker is shutting down")
        return RunnerDied(f"its runner process {_how(code)}")

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._discard()

    def _discard(self) -> None:
        """Close what belongs to a process that has ended."""
        if self._events >= 0:
            os.close(self._events)
            self._events = -1
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                self._process.stdin = None  # unsent bytes for a dead process
        self._process = None


def _how(code: int | None) -> str:
    """An exit status in words."""
    if code is None:
        return "is gone"
    if code >= 0:
        return f"exited with status {code}"
    name = signal.Signals(-code).name
    hint = ", perhaps by the kernel for want of memory" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"
