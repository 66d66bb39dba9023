"""entrypoint.sh: which word starts what, in the same process, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).resolve().parents[2] / "entrypoint.sh"

STAND_IN = """\
#!{python}
import json, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
told = [os.environ.get("MESHPRESS_" + name) for name in ("HOST", "DEVICES")]
print(json.dumps([os.getpid(), sys.argv[1:], *told]), flush=True)
if "--wait" in sys.argv:
    signal.pause()
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """The entry point with a stand-in for `meshpress` that tells how it was called."""
    stand_in = tmp_path / "meshpress"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)

    def begin(*words: str, **environment: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if "MESHPRESS" not in name}
        kept["PATH"] = f"{tmp_path}:{kept['PATH']}"
        return subprocess.Popen(
            [str(ENTRYPOINT), *words],
            env=kept | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.mark.parametrize(
    ("words", "started"),
    [
        ([], ["serve"]),
        (["serve"], ["serve"]),
        (["serve", "--port", "80 80"], ["serve", "--port", "80 80"]),
        (["--port", "9000"], ["serve", "--port", "9000"]),
        (["api"], ["serve", "--role", "api"]),
        (["worker", "--devices", "cuda:1"], ["serve", "--role", "worker", "--devices", "cuda:1"]),
        (["doctor", "--json"], ["doctor", "--json"]),
        (["sog", "a b.ply", "-"], ["sog", "a b.ply", "-"]),
        (["--version"], ["--version"]),
    ],
)
def test_words(start, words: list[str], started: list[str]) -> None:
    process = start(*words)
    output, _ = process.communicate(timeout=30)
    pid, arguments, *_ = json.loads(output)
    assert arguments == started
    assert pid == process.pid  # the shell has become the service: signals reach it


def test_a_signal_arrives_and_the_exit_code_comes_back(start) -> None:
    process = start("serve", "--wait")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 42


def test_a_container_listens_on_all_addresses_unless_told(start) -> None:
    assert json.loads(start().communicate(timeout=30)[0])[2] == "0.0.0.0"
    told = start(MESHPRESS_HOST="127.0.0.1")
    assert json.loads(told.communicate(timeout=30)[0])[2] == "127.0.0.1"


@pytest.mark.parametrize(
    ("settings", "devices"),
    [
        ({}, None),
        ({"MESHPRESS_VARIANT": "cpu"}, None),
        ({"MESHPRESS_VARIANT": "sm_86"}, "cuda"),  # without a GPU it refuses, and says why
        ({"MESHPRESS_VARIANT": "sm_86", "MESHPRESS_DEVICES": "cpu"}, "cpu"),
    ],
)
def test_an_image_for_a_gpu_asks_for_one(start, settings: dict[str, str], devices: str) -> None:
    assert json.loads(start(**settings).communicate(timeout=30)[0])[3] == devices


@pytest.mark.parametrize("status", [200, 503])
def test_health_is_what_ping_says(start, status: int) -> None:
    class Ping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ping" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Ping) as server:
        threading.Thread(target=server.handle_request).start()
        process = start("health", SAGEMAKER_BIND_TO_PORT=str(server.server_port))
        process.communicate(timeout=30)
    assert process.returncode == (0 if status == 200 else 1)


@pytest.mark.parametrize(
    ("word", "reason"), [("train", "it cannot train"), ("sevre", "there is no 'sevre'; use one of")]
)
def test_what_it_cannot_do_is_one_line_and_exit_code_2(start, word: str, reason: str) -> None:
    process = start(word)
    output, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert output == ""
    assert reason in error
    assert error.count("\n") == 1


def test_is_short_and_executable() -> None:
    assert len(ENTRYPOINT.read_text().splitlines()) < 60
    assert os.access(ENTRYPOINT, os.X_OK)
