"""`doctor` for files, a start that goes well, and a broken torch in the way.

What a start does that is refused, and how it says so, is in tests/service/test_supervisor.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 60.0
REPORT = """
from service.guard.checks import run_checks
from service.guard.report import to_text
print(to_text(run_checks(port=None).findings))
"""


# -- doctor, for files -------------------------------------------------------------------------


def test_an_environment_that_is_fit(fake_environment: Any, meshpress: Callable) -> None:
    env = fake_environment
    env.install("numpy", "2.2.6", {"numpy/a.py": b""})
    done = meshpress(
        "doctor", "--env", env.root, "--target", "sm_120", "--lock", env.lock(numpy="2.2.6")
    )
    assert done.returncode == 0, done.stdout.decode()
    assert done.stdout.decode().splitlines()[-1] == f"{env.root} is fit for sm_120"


def test_an_environment_that_is_not(fake_environment: Any, meshpress: Callable) -> None:
    env = fake_environment
    env.install("torch", "2.8.0")
    env.install("xformers", "0.0.29.post3", requires=("torch==2.6.0",))
    lock = env.lock(torch="2.6.0", xformers="0.0.29.post3")
    done = meshpress("doctor", "--env", env.root, "--target", "8.6", "--lock", lock, "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == facts["exit_code"] == 2
    assert facts["summary"].startswith(f"{env.root} is not fit for sm_86: ")
    fatal = {item["check"] for item in facts["findings"] if item["severity"] == "fatal"}
    assert fatal == {"A4", "L1", "L3"}  # no code in either, torch replaced, xformers left behind
    assert all(item["remedy"] for item in facts["findings"] if item["severity"] == "fatal")


def test_warnings_alone_are_exit_code_1(fake_environment: Any, meshpress: Callable) -> None:
    fake_environment.install("thing", "1", requires=("other>=2",))
    fake_environment.install("other", "1")
    done = meshpress("doctor", "--env", fake_environment.root, "--target", "cpu")
    assert done.returncode == 1, done.stdout.decode()
    assert "WARN  L3 pins     thing: thing 1 requires other>=2; installed: 1." in (
        done.stdout.decode()
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--target", "sm_1"], "'sm_1' is no compute capability"),
        (["--env", "/proc/1/nothing"], "does not exist"),
        (["--env", "/proc/self/fd"], "holds no Python packages"),
        (["--wheel", "/etc/passwd", "--target", "sm_86"], "cannot be read as a wheel"),
        (["--wheel", "/etc/passwd", "--probe"], "--wheel stands alone"),
        (["--lock", "/etc/passwd", "--target", "cpu"], "pins no package"),
        (["explain"], "Missing argument"),
    ],
)
def test_questions_that_make_no_sense(
    meshpress: Callable, arguments: list[str], reason: str
) -> None:
    done = meshpress("doctor", *arguments)
    assert done.returncode == 2
    assert reason in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_explain(meshpress: Callable) -> None:
    error = "RuntimeError: CUDA error: no kernel image is available for execution on the device"
    done = meshpress("doctor", "explain", error)
    assert done.returncode == 0
    assert done.stdout.decode().startswith("A1 code: A library carries nothing that this GPU loads")
    piped = meshpress("doctor", "explain", "-", "--json", stdin=f"noise\n{error}\n".encode())
    assert json.loads(piped.stdout)["check"] == "A1"
    unknown = meshpress("doctor", "explain", "the weather is fine")
    assert (unknown.returncode, b"not one we know" in unknown.stdout) == (1, True)


@pytest.mark.parametrize("damage", ["raises", "crashes", "empty", "no metadata"])
def test_a_damaged_torch_does_not_stop_the_guard(
    fake_environment: Any, damage: str, tmp_path: Path
) -> None:
    """The report comes out where importing torch would end the process."""
    env = fake_environment
    bodies = {"raises": b"raise OSError('libcublas.so.12')", "crashes": b"import os; os.abort()"}
    env.install("torch", "2.8.0", {"torch/__init__.py": bodies.get(damage, b"")})
    if damage == "no metadata":
        for file in env.site_packages.glob("torch-*/*"):
            file.write_bytes(b"\xff\xfe")
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(env.site_packages)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("meshpress can")
    assert "Traceback" not in done.stdout + done.stderr
    assert "info  torch       torch: 2.8.0, " in done.stdout


# -- the start ---------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path, free_port: int) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start("strict", "/proc/x")`: the entry point with that GUARD and that data folder."""
    running = []

    def begin(guard: str, data_dir: Path | str) -> subprocess.Popen[str]:
        shim = tmp_path / "meshpress"
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m service.cli "$@"\n')
        shim.chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if "MESHPRESS" not in key}
        process = subprocess.Popen(
            [str(ROOT / "entrypoint.sh"), "serve"],
            cwd=tmp_path,
            env={
                **kept,
                "PATH": f"{tmp_path}:{kept['PATH']}",
                "PYTHONPATH": str(ROOT),
                "MESHPRESS_GUARD": guard,
                "MESHPRESS_DATA_DIR": str(data_dir),
                "MESHPRESS_HOST": "127.0.0.1",
                "MESHPRESS_PORT": str(free_port),
                "MESHPRESS_LOG_FORMAT": "json",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended, as it should


def answer(port: int, path: str) -> tuple[int, str]:
    """Status and body, once something listens."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            assert time.monotonic() < deadline, "nothing listens"
            time.sleep(0.1)


def test_off_does_not_look(start: Callable) -> None:
    """What the guard would have said first is then met where it hurts."""
    process = start("off", "/proc/meshpress")
    output, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode not in (0, 2)
    assert "meshpress cannot serve here" not in output


def test_what_is_sound_serves_and_warnings_are_logged(
    start: Callable, free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_FORCE_PTX_JIT", "1")
    process = start("strict", tmp_path / "data")
    deadline = time.monotonic() + START_SECONDS
    while answer(free_port, "/ping")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    (told,) = [line for line in lines if line["event"] == "guard" and line["check"] == "R5"]
    assert told["remedy"] == "Unset it: unset CUDA_FORCE_PTX_JIT"


def test_what_the_gpu_allows_reaches_the_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The supervisor's children are given the choice as settings, not the question."""
    from service.guard.checks import Verdict
    from service.guard.choices import Choices
    from service.jobs import supervisor
    from service.settings import Settings, to_environment

    choices = Choices("cpu", "float16", "sdpa", False)
    monkeypatch.setattr(supervisor, "run_checks", lambda **_: Verdict([], choices))
    seen = {}

    class Stopped:
        def __init__(self, settings: Settings, children: list[Any], stop: object) -> None:
            seen.update(to_environment(settings), devices=[child.name for child in children])

        def run(self) -> int:
            return 0

    monkeypatch.setattr(supervisor, "Supervisor", Stopped)
    monkeypatch.setattr(supervisor, "find_devices", lambda wanted: ["cuda:0"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    settings = Settings(data_dir=tmp_path)
    assert supervisor.run(settings, role="worker") == 0
    assert seen["MESHPRESS_ATTENTION_BACKEND"] == "sdpa"
    assert seen["MESHPRESS_DTYPE"] == "float16"
    assert seen["devices"] == ["worker-cpu"]
