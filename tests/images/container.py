"""Containers as an engine runs them: a process 1 of their own, a root of their own, signals.

The engine is podman with runc: no daemon, no bridge, limits no higher than the builder's.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

START_SECONDS = 90.0
STOP_SECONDS = 30  # what SageMaker gives between SIGTERM and SIGKILL


def podman(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """One command of the engine; its outputs as text."""
    result = subprocess.run(
        ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", *words],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert not check or result.returncode == 0, result.stderr
    return result


def limits() -> list[str]:
    """Limits that any builder may set: podman's own are higher, which takes a right it may lack."""
    return ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]


def run_in(image: str, *command: str, user: str = "0:0") -> subprocess.CompletedProcess[str]:
    """A command in a fresh container of the image, instead of what it starts; it has no network."""
    options = ["--rm", "--no-healthcheck", "--network", "none", "--user", user, *limits()]
    return podman("run", *options, "--entrypoint", command[0], image, *command[1:], check=False)


@dataclass(frozen=True)
class Container:
    """One that was started; it may have ended."""

    name: str
    url: str

    def wait_until_ready(self) -> None:
        """Until /ping answers 200. Fails with the log when the container ends before."""
        self.wait_for(lambda: httpx.get(f"{self.url}/ping", timeout=2).status_code == 200)

    def wait_for(self, fact: Callable[[], bool]) -> None:
        """Until `fact` is true; asks again while nobody answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if fact():
                    return
            except httpx.TransportError:
                assert self.is_running(), f"it ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"not in time:\n{self.log()}"
            time.sleep(0.1)

    def is_running(self) -> bool:
        state: dict[str, Any] = json.loads(podman("inspect", self.name).stdout)[0]["State"]
        return bool(state["Running"])

    def log(self) -> str:
        result = podman("logs", self.name)
        return result.stdout + result.stderr

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside, while it runs."""
        return podman("exec", self.name, *command, check=False)

    def stop(self) -> int:
        """STOPSIGNAL, as every orchestrator does; the exit code, 137 when it had to be killed."""
        podman("stop", "--time", str(STOP_SECONDS), self.name)
        return self.wait()

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return int(podman("wait", self.name).stdout)
