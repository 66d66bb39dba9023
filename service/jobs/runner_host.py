"""The worker's side of a runner: start it, hand it a step, relay its events, stop or kill it.

Knows neither queue nor database. A runner's death is an ordinary outcome here, `RunnerDied`, with
the reason in words; the next step gets a new process. A runner that cannot even start is nobody's
job's fault: it is tried again with growing pauses, and jobs wait.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from enum import StrEnum
from typing import Any

import structlog

from service.jobs.protocol import RunRequest, decode, encode
from service.jobs.records import Progress

log = structlog.get_logger("worker")

TICK_SECONDS = 0.1
REAP_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
FOR_WANT_OF_MEMORY = "perhaps by the kernel for want of memory"
"""In the reason of a death by SIGKILL."""


class RunnerState(StrEnum):
    STARTING = "starting"  # loading its pipelines
    READY = "ready"
    BROKEN = "broken"  # did not come up; tried again after a pause


class RunnerDied(Exception):
    """The process ended without an answer; the message says how.

    started: it had begun the step, so the step may be the cause
    """

    def __init__(self, reason: str, *, started: bool) -> None:
        super().__init__(reason)
        self.started = started


class StepTimeout(Exception):
    """The step ran longer than allowed and its runner was killed."""


class Killed(Exception):
    """`kill` was called: the worker is shutting down."""


class _Gone(Exception):
    """The process has ended; the message says how."""


class RunnerHost:
    """At most one runner process at a time. `run` and `check` exclude each other; `kill` is for
    any thread at any time."""

    def __init__(self, device: str, module: str = "service.jobs.runner") -> None:
        self._device = device
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._events = -1
        self._buffer = b""
        self._using = threading.RLock()
        self._killed = threading.Event()
        self._failures = 0
        self._retry_at = 0.0
        self._steps = 0
        self.state = RunnerState.STARTING

    # -- coming up -------------------------------------------------------------------------

    def check(self) -> None:
        """Between steps: start a process that is missing, see whether a starting one is ready."""
        if not self._using.acquire(blocking=False):
            return  # a step is running
        try:
            self._come_up(0.0)
        finally:
            self._using.release()

    def ensure_ready(self) -> None:
        """Wait until a runner is ready, however often it has to be started. Raises Killed."""
        with self._using:
            wait_seconds = 0.0  # a ready runner has nothing to say: do not wait for it
            while not self._come_up(wait_seconds):
                wait_seconds = TICK_SECONDS
                if self._killed.wait(0 if self._process else TICK_SECONDS):
                    raise Killed

    def _come_up(self, wait_seconds: float) -> bool:
        """One look; whether the runner is ready."""
        if self._killed.is_set():
            raise Killed
        if self._process is None and time.monotonic() >= self._retry_at:
            self._start()
        if self._process is None:
            return False
        try:
            for event in self._receive(wait_seconds):
                if event["type"] == "ready":
                    self.state, self._failures = RunnerState.READY, 0
                elif event["type"] == "broken":
                    log.error("runner_broken", reason=event["reason"])
        except _Gone as gone:
            if self._killed.is_set():
                raise Killed from gone
            if self.state is not RunnerState.READY:
                self._back_off(str(gone))
            self._discard()
        return self.state is RunnerState.READY

    def _start(self) -> None:
        events, runner_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, self._device, str(runner_end)],
                stdin=subprocess.PIPE,
                stdout=sys.stderr,
                pass_fds=(runner_end,),
            )
        except OSError as problem:  # no memory or no process to be had just now
            os.close(events)
            self._back_off(f"could not be started: {problem.strerror}")
        else:
            self._events, self._buffer = events, b""
            if self._failures == 0:
                self.state = RunnerState.STARTING
        finally:
            os.close(runner_end)

    def _back_off(self, reason: str) -> None:
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**self._failures)
        self._failures += 1
        self._retry_at = time.monotonic() + pause
        self.state = RunnerState.BROKEN
        log.error("runner_not_ready", reason=f"it {reason}", next_try_seconds=pause)

    # -- running ---------------------------------------------------------------------------

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
        with self._using:
            self.ensure_ready()
            self._steps += 1
            follow = _Follow(on_tick, timeout_seconds, grace_seconds)
            try:
                self._send({"type": "run", "step": self._steps, **asdict(request)})
                return self._follow(follow)
            except _Gone as gone:
                self._discard()
                if self._killed.is_set():
                    raise Killed from gone
                reason = f"its runner process {gone}"
                raise RunnerDied(reason, started=follow.started) from None
            except BaseException:
                self._end()  # it may still be in this step: nothing it says can be trusted
                raise

    def _follow(self, follow: _Follow) -> dict[str, Any]:
        while True:
            latest: Progress | None = None
            for event in self._receive(TICK_SECONDS):
                if event.get("step") != self._steps:
                    continue
                if event["type"] == "started":
                    follow.started = True
                elif event["type"] == "progress":
                    latest = Progress(event["stage"], event["fraction"], event["message"])
                else:
                    return event
            now = time.monotonic()
            if follow.on_tick(latest) and follow.cancel_deadline is None:
                self._send({"type": "cancel", "step": self._steps})
                follow.cancel_deadline = now + follow.grace_seconds
            if follow.cancel_deadline is not None and now > follow.cancel_deadline:
                self._end()
                return {"type": "cancelled"}
            if now > follow.deadline:
                raise StepTimeout(f"it ran longer than {follow.timeout_seconds:g} seconds")

    def restart(self) -> None:
        """End the process; the next check or step starts another: after a bug nothing in it can
        be trusted."""
        with self._using:
            self._end()

    def kill(self) -> None:
        """End the process for good; a step in progress raises Killed."""
        self._killed.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    # -- the process -----------------------------------------------------------------------

    def _send(self, message: dict[str, Any]) -> None:
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(encode(message))
            process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def _receive(self, timeout_seconds: float) -> Iterator[dict[str, Any]]:
        """Whole events that arrive within the time. Raises _Gone when the process has ended."""
        if not self._readable(timeout_seconds):
            # A child of the runner may hold the pipe open after its death: ask for the process too.
            if self._process is None or self._process.poll() is None or self._readable(0):
                return
            raise self._gone()
        chunk = os.read(self._events, 1 << 16)
        if not chunk:
            raise self._gone()
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            yield decode(line)

    def _readable(self, timeout_seconds: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            return bool(selector.select(timeout_seconds))

    def _gone(self) -> _Gone:
        process = self._process
        assert process is not None
        try:
            return _Gone(_how(process.wait(REAP_SECONDS)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return _Gone("closed its pipe and hung")

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
        if self.state is RunnerState.READY:
            self.state = RunnerState.STARTING


class _Follow:
    """What one call of `run` keeps track of."""

    def __init__(
        self,
        on_tick: Callable[[Progress | None], bool],
        timeout_seconds: float,
        grace_seconds: float,
    ) -> None:
        self.on_tick = on_tick
        self.timeout_seconds = timeout_seconds
        self.grace_seconds = grace_seconds
        self.deadline = time.monotonic() + timeout_seconds
        self.cancel_deadline: float | None = None
        self.started = False


def _how(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exited with status {code}"
    name = signal.Signals(-code).name
    hint = f", {FOR_WANT_OF_MEMORY}" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"
