"""The supervisor: starts the API and one worker per device, restarts what dies, forwards signals.

Knows nothing of jobs. It holds the listening socket, so a killed API loses no connection that was
still waiting: its successor accepts it. As PID 1 of a container it reaps every orphan.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from service.guard.checks import run_checks
from service.guard.choices import Choices
from service.guard.findings import Severity
from service.guard.report import exit_code, summary, to_text
from service.jobs.queue import JobQueue
from service.logs import configure_logs
from service.pipelines import PIPELINES
from service.settings import SettingError, Settings, to_environment
from service.storage.artifacts import ArtifactStore

log = structlog.get_logger("supervisor")

BACKLOG = 2048
REFUSED = 2
GPUS = "/proc/driver/nvidia/gpus"  # one folder each
TICK_SECONDS = 0.05
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
STEADY_SECONDS = 30.0  # a child that lived this long is restarted without delay
KILL_AFTER_SECONDS = 6.0  # beyond the drain time


@dataclass
class Child:
    """One process to keep alive."""

    name: str
    command: list[str]
    pass_fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    delay: float = 0.0


def run(
    settings: Settings, role: str = "all", on_listening: Callable[[str], None] | None = None
) -> int:
    """Serve until SIGTERM or SIGINT; the exit status, 2 when the guard refuses this machine.

    role: "all", "api" (no workers) or "worker" (no API)
    on_listening: called with the URL once the port is open

    Raises SettingError for devices and pipelines that do not exist, NotReady when the queue cannot
    be opened, OSError when the port is taken.
    """
    configure_logs(settings, process="supervisor")
    _check_preload(settings.preload)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # first: PID 1 has no default handlers
        signal.signal(number, lambda *_: stop.set())
    verdict, choices = _guard(settings)
    if verdict and settings.guard == "strict":
        next_step = "MESHPRESS_GUARD=serve starts anyway and answers 503"
        log.error("refused", reason=verdict, next_step=next_step)
        return REFUSED
    listener = _listen(settings) if role != "worker" else None
    if listener is not None:
        settings = replace(settings, port=listener.getsockname()[1])
    devices = find_devices(settings.devices) if role != "api" and not verdict else []
    if choices is not None:
        settings = replace(
            settings,
            attention_backend=_attention_backend(settings.attention_backend, choices),
            dtype=choices.dtype,
            sparse_backend=_sparse_backend(settings.sparse_backend, choices),
        )
        if settings.devices == "auto" and choices.device == "cpu" and devices:
            devices = ["cpu"]
    if not verdict:
        _open_once(settings)
    children = [
        Child(f"worker-{device}", [sys.executable, "-m", "service.jobs.worker", device])
        for device in devices
    ]
    if listener is not None:
        fd = listener.fileno()
        command = [sys.executable, "-m", "service.http.server", str(fd), verdict]
        children.insert(0, Child("api", command, (fd,)))
        if on_listening is not None:
            on_listening(f"http://{settings.host}:{settings.port}")
    return Supervisor(settings, children, stop).run()


def _check_preload(name: str) -> None:
    """Raises SettingError for a name that is no pipeline's."""
    names = [entry.name for entry in PIPELINES if entry.weights]
    if name and name not in names:
        raise SettingError(
            f"MESHPRESS_PRELOAD has the value {name!r}; allowed: one of {', '.join(names)}."
        )


def _open_once(settings: Settings) -> None:
    """Create what is missing and find out what is wrong before any child does."""
    store = ArtifactStore(settings.effective_storage_url, settings.data_dir)
    queue = JobQueue(settings, store)
    queue.open()
    queue.close()


def _guard(settings: Settings) -> tuple[str, Choices | None]:
    """Why this machine cannot serve, in one line, empty when it can; and what workers are to use.

    Prints the report if it cannot, and logs what serves with less than it could.
    """
    if settings.guard == "off":
        return "", None
    verdict = run_checks(
        data_dir=settings.data_dir,
        min_free_bytes=settings.min_free_bytes,
        port=None,  # opening it is the better check
        devices=settings.devices,
        variant=settings.variant,
        dtype=settings.dtype,
        attention=settings.attention_backend,
    )
    if exit_code(verdict.findings) < REFUSED:
        for item in verdict.findings:
            if item.severity is Severity.WARNING:
                message = f"{item.subject}: {item.message}"
                log.warning("guard", check=item.check, message=message, remedy=item.remedy)
        return "", verdict.choices
    sys.stderr.write(to_text(verdict.findings) + "\n")
    return summary(verdict.findings), None


def _attention_backend(asked: str, choices: Choices) -> str:
    """The guard's choice. "auto" stays where it passed nothing over that is installed: the networks
    then take our own kernel too, where it was measured to be the best."""
    packages = {"flash-attn": "flash_attn", "xformers": "xformers"}
    installed = [name for name, package in packages.items() if importlib.util.find_spec(package)]
    untouched = choices.attention == (*installed, "sdpa")[0]
    return "auto" if asked == "auto" and choices.compiles and untouched else choices.attention


def _sparse_backend(asked: str, choices: Choices) -> str:
    """What was asked for; where Triton cannot be used on these GPUs, the best of the others."""
    if asked != "auto" or choices.device == "cpu" or choices.compiles:
        return asked
    return "spconv" if importlib.util.find_spec("spconv") is not None else "torch"


def find_devices(wanted: str) -> list[str]:
    """The devices to run workers on.

    "cuda" is every GPU; "auto" as well when torch is installed to use one, else the CPU.

    Raises SettingError for a name that is no device, and for "cuda" where there is no GPU.
    """
    gpus = [f"cuda:{index}" for index, _ in enumerate(Path(GPUS).glob("*"))]
    if wanted == "auto":
        return gpus if gpus and importlib.util.find_spec("torch") is not None else ["cpu"]
    if wanted == "cuda":
        if not gpus:
            raise SettingError("MESHPRESS_DEVICES is 'cuda', and this machine shows no GPU.")
        return gpus
    names = [name.strip() for name in wanted.split(",")]
    for name in names:
        kind, _, index = name.partition(":")
        if name != "cpu" and not (kind == "cuda" and index.isdigit()):
            raise SettingError(
                f"MESHPRESS_DEVICES has the value {wanted!r}; allowed: auto, cpu, cuda, or a "
                "list such as cuda:0,cuda:1."
            )
    return names


class Supervisor:
    """Keeps children alive until told to stop."""

    def __init__(self, settings: Settings, children: list[Child], stop: threading.Event) -> None:
        self._settings = settings
        self._children = children
        self._stop = stop
        self._lifeline, self._lifeline_end = os.pipe()

    def run(self) -> int:
        while not self._stop.wait(TICK_SECONDS):
            for child in self._children:
                if child.process is None and time.monotonic() >= child.restart_at:
                    self._start(child)
            self._reap()
        log.info("stopping")
        self._stop_children()
        return 0

    def _start(self, child: Child) -> None:
        environment = {**os.environ, **to_environment(self._settings)}
        environment.pop("SAGEMAKER_BIND_TO_PORT", None)  # read already; the socket is open
        child.started_at = time.monotonic()
        try:
            child.process = subprocess.Popen(
                child.command,
                stdin=self._lifeline,
                pass_fds=child.pass_fds,
                env=environment,
                start_new_session=True,  # so that a dead worker's runner can be ended with it
            )
        except OSError as problem:  # no memory or no process to be had just now
            self._back_off(child, f"could not be started: {problem.strerror}")
            return
        log.debug("started", child=child.name, pid=child.process.pid)

    def _reap(self) -> None:
        """Collect every child that ended, ours or adopted, and schedule restarts."""
        for child in self._children:
            process = child.process
            if process is None or process.poll() is None:
                continue
            _kill_group(process.pid)
            child.process = None
            self._back_off(child, f"ended with status {process.returncode}")
        if os.getpid() == 1:
            _reap_adopted({child.process.pid for child in self._children if child.process})

    def _back_off(self, child: Child, reason: str) -> None:
        """Restart at once what lived long, and with growing pauses what does not."""
        lived = time.monotonic() - child.started_at
        child.delay = (
            FIRST_DELAY_SECONDS
            if lived > STEADY_SECONDS or not child.delay
            else min(LONGEST_DELAY_SECONDS, child.delay * 2)
        )
        child.restart_at = time.monotonic() + child.delay
        log.warning(
            "restarting",
            child=child.name,
            reason=reason,
            lived_seconds=round(lived, 1),
            delay_seconds=child.delay,
        )

    def _stop_children(self) -> None:
        alive = [child.process for child in self._children if child.process is not None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + self._settings.drain_seconds + KILL_AFTER_SECONDS
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("killed", pid=process.pid)
            _kill_group(process.pid)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    listener.listen(BACKLOG)
    return listener


def _kill_group(group: int) -> None:
    """End whatever is left of a child's process group: a worker's runner."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _reap_adopted(own: set[int]) -> None:
    """As PID 1: collect zombies that were orphaned to us, leaving our own to subprocess."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        os.waitpid(found.si_pid, 0)
