"""Fixtures of the service tests: a real service in its own processes, the CLI as a user runs it.

`live_service` starts `meshpress serve` on a free port with a temporary data folder, once per
session; tests that damage a service start their own with `start_service`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from service.guard.installed import Environment, environment_at

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class LiveService:
    """A running service: where it listens, where it keeps its data, where it logs."""

    url: str
    data_dir: Path
    log: Path
    process: subprocess.Popen[bytes]


def plain_environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings of the developer, plus `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MESHPRESS_")}
    kept["PYTHONPATH"] = str(ROOT)
    return kept | extra


def free_port() -> int:
    """A TCP port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(data_dir: Path, **settings: str) -> LiveService:
    """Start a whole service (API and workers) in a process group of its own; wait until ready."""
    port = free_port()
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir.parent / f"{data_dir.name}.log"
    environment = plain_environment(
        **{f"MESHPRESS_{name.upper()}": value for name, value in settings.items()}
    )
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
    command += ["--data-dir", str(data_dir)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=data_dir,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    live = LiveService(f"http://127.0.0.1:{port}", data_dir, log, process)
    try:
        wait_until_ready(live)
    except BaseException:
        stop(live)
        raise
    return live


def wait_until_ready(live: LiveService) -> None:
    """Poll /readyz; fail with the log when the service ends or is not ready in time."""
    deadline = time.monotonic() + START_SECONDS
    answer = "no answer"
    while time.monotonic() < deadline:
        if live.process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{live.url}/readyz", timeout=5):
                return
        except urllib.error.HTTPError as error:
            answer = f"{error.code}: {error.read(2000).decode(errors='replace')}"
            error.close()
        except OSError as error:
            answer = str(error)
        time.sleep(0.1)
    tail = live.log.read_text(errors="replace")[-4000:]
    pytest.fail(f"the service did not become ready ({answer}); its log ends:\n{tail}")


def stop(live: LiveService) -> None:
    """SIGTERM to the service, then SIGKILL to whatever of its process group is left."""
    if live.process.poll() is None:
        live.process.send_signal(signal.SIGTERM)
        try:
            live.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # the SIGKILL below is for this
    try:
        os.killpg(live.process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the whole group has ended, as it should
    live.process.wait(STOP_SECONDS)


@pytest.fixture(scope="session")
def live_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """One service for the whole session. Tests share it: look only at jobs of your own."""
    live = start(tmp_path_factory.mktemp("live") / "data")
    yield live
    stop(live)


@pytest.fixture(scope="session")
def tiny_trellis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a tiny random release of TRELLIS. Read, never write."""
    from tests.models.image_to_mesh.trellis.released import pull_tiny  # here: it imports torch

    folder = tmp_path_factory.mktemp("weights") / "models"
    pull_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def trellis_service(
    tiny_trellis: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveService]:
    """A service with these weights, once per session, shared like `live_service`."""
    data = tmp_path_factory.mktemp("trellis") / "data"
    # A cancelled step has a minute before its runner would be killed: it must stop by itself.
    live = start(data, models_dir=str(tiny_trellis), cancel_grace_seconds="60")
    yield live
    stop(live)


@pytest.fixture(scope="module")
def start_for_module(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., LiveService]]:
    """`start_for_module(models_dir="…")`: a service with settings of one's own, for a module."""
    started: list[LiveService] = []

    def begin(**settings: str) -> LiveService:
        started.append(start(tmp_path_factory.mktemp("live") / "data", **settings))
        return started[-1]

    yield begin
    for live in started:
        stop(live)


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[..., LiveService]]:
    """`start_service(attempt_limit="2")`: a service of one's own; stopped after the test."""
    started: list[LiveService] = []

    def begin(**settings: str) -> LiveService:
        started.append(start(tmp_path / f"data-{len(started)}", **settings))
        return started[-1]

    yield begin
    for live in started:
        stop(live)


@pytest.fixture
def meshpress(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """`meshpress("mesh", "a.png", stdin=b"", PATH=…)`: the command in a process, in `tmp_path`."""

    def run(
        *arguments: str | Path, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "service.cli", *map(str, arguments)],
            cwd=tmp_path,
            env=plain_environment(**environment),
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )

    return run


@dataclass(frozen=True)
class FakeEnvironment:
    """A site-packages folder in which packages are written as an installer would."""

    root: Path

    @property
    def site_packages(self) -> Path:
        return self.root / "lib/python3.12/site-packages"

    def install(
        self,
        name: str,
        version: str,
        files: dict[str, bytes] | None = None,
        requires: tuple[str, ...] = (),
    ) -> None:
        """Write `files` (path in site-packages -> content), METADATA and a RECORD with hashes."""
        folder = self.site_packages / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        record = []
        for path, content in (files or {}).items():
            (self.site_packages / path).parent.mkdir(parents=True, exist_ok=True)
            (self.site_packages / path).write_bytes(content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{path},sha256={digest.decode()},{len(content)}\n")
        headers = [f"Requires-Dist: {text}\n" for text in requires]
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{''.join(headers)}"
        (folder / "METADATA").write_text(metadata)
        (folder / "RECORD").write_text("".join(record) + f"{folder.name}/RECORD,,\n")

    def lock(self, **versions: str) -> Path:
        """A lock with these versions, e.g. `lock(torch="2.8.0")`."""
        path = self.root / "stack.lock"
        lines = [
            f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{'0' * 64}\n"
            for name, version in versions.items()
        ]
        path.write_text("# made for a test\n" + "".join(lines))
        return path

    def read(self) -> Environment:
        return environment_at(self.root)


@pytest.fixture
def fake_environment(tmp_path: Path) -> FakeEnvironment:
    """An empty environment of Python 3.12: `fake_environment.install("torch", "2.8.0")`."""
    environment = FakeEnvironment(tmp_path / "env")
    environment.site_packages.mkdir(parents=True)
    return environment


@pytest.fixture(scope="session")
def splat_ply() -> Callable[..., bytes]:
    """`splat_ply(300, degree=1)`: a 3DGS .ply of that many random splats, the same each time."""

    def make(count: int, degree: int = 0, seed: int = 0) -> bytes:
        rng = np.random.default_rng(seed)
        rest = 3 * ((degree + 1) ** 2 - 1)
        columns = {f"{axis}": rng.normal(size=count) * 3 for axis in "xyz"}
        columns |= {f"f_dc_{i}": rng.normal(size=count) for i in range(3)}
        columns |= {f"f_rest_{i}": rng.normal(size=count) * 0.2 for i in range(rest)}
        columns |= {"opacity": rng.normal(size=count) + 2}
        columns |= {f"scale_{i}": rng.normal(size=count) - 3 for i in range(3)}
        columns |= {f"rot_{i}": rng.normal(size=count) for i in range(4)}
        header = f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n"
        header += "".join(f"property float {name}\n" for name in columns) + "end_header\n"
        return header.encode() + np.stack(list(columns.values()), 1).astype("<f4").tobytes()

    return make
