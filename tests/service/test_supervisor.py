"""The supervisor: what the guard's verdict leads to, and what it does with children that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import httpx
import pytest

from service.guard.choices import Choices
from service.jobs import supervisor
from service.jobs.supervisor import find_devices
from service.settings import SettingError

ROOT = Path(__file__).resolve().parents[2]
REFUSED = {"MESHPRESS_DEVICES": "cuda:0"}  # there is no GPU: the guard must refuse


def serve(folder: Path, port: int, **environment: str) -> subprocess.Popen[bytes]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MESHPRESS_")}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
            + ["--data-dir", str(folder / "data")],
            env={**kept, "PYTHONPATH": str(ROOT), **environment},
            stdout=log,
            stderr=log,
        )


def answer(url: str, seconds: float = 30.0) -> httpx.Response:
    """The first answer of any status."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return httpx.get(url, timeout=5)
        except httpx.TransportError:
            assert time.monotonic() < deadline, "no answer"
            time.sleep(0.1)


def no_gpu() -> bool:
    return not Path("/proc/driver/nvidia").exists()


@pytest.mark.skipif(not no_gpu(), reason="this machine has a GPU to serve on")
def test_strict_refuses_before_listening_with_the_reason_last(tmp_path, free_port):
    process = serve(tmp_path, free_port, **REFUSED)
    assert process.wait(60) == 2
    lines = (tmp_path / "log").read_text().strip().splitlines()
    assert "cannot serve here" in lines[-1] and '"refused"' in lines[-1]
    assert any("->" in line for line in lines), "the report names remedies"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{free_port}/ping", timeout=1)


@pytest.mark.skipif(not no_gpu(), reason="this machine has a GPU to serve on")
def test_serve_answers_503_with_the_reason_even_where_nothing_can_be_written(tmp_path, free_port):
    (tmp_path / "data").write_text("a file where the folder should be")
    process = serve(tmp_path, free_port, MESHPRESS_GUARD="serve", **REFUSED)
    try:
        url = f"http://127.0.0.1:{free_port}"
        for path in ("/readyz", "/ping", "/v1/jobs"):
            refusal = answer(url + path)
            assert refusal.status_code == 503
            assert "cannot serve here" in refusal.json()["detail"]
            assert "doctor" in refusal.json()["next_step"]
        assert answer(f"{url}/healthz").status_code == 200
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_a_killed_api_comes_back_on_the_same_port(start_service):
    live = start_service()
    before = _child(live.process.pid, "service.http.server")
    os.kill(before, signal.SIGKILL)
    assert answer(f"{live.url}/healthz").status_code == 200
    assert _child(live.process.pid, "service.http.server") != before


def test_sigterm_ends_every_process(start_service):
    live = start_service()
    tree = [_child(live.process.pid, name) for name in ("service.http.server", "service.jobs")]
    live.process.terminate()
    assert live.process.wait(30) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in tree)


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "cpu,,cuda:0"])
def test_a_name_that_is_no_device_is_refused(wanted):
    with pytest.raises(SettingError, match="cuda:0,cuda:1"):
        find_devices(wanted)


def test_devices_as_listed():
    assert find_devices("cpu") == ["cpu"]
    assert find_devices("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]


def test_every_gpu_as_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "GPUS", str(tmp_path))
    with pytest.raises(SettingError, match="this machine shows no GPU"):
        find_devices("cuda")
    for bus in ("0000:00:01.0", "0000:00:02.0"):
        (tmp_path / bus).mkdir()
    assert find_devices("cuda") == ["cuda:0", "cuda:1"]


def _child(parent: int, module: str) -> int:
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
            command = (status.parent / "cmdline").read_bytes().decode()
        except OSError:
            continue  # it ended while we looked
        if int(fields[1]) == parent and module in command and fields[0] != "Z":
            return int(status.parent.name)
    raise AssertionError(f"no child of {parent} runs {module}")


@pytest.mark.parametrize(
    ("asked", "compiles", "expected"),
    [("auto", True, "auto"), ("auto", False, "torch"), ("spconv", False, "spconv")],
)
def test_sparse_convolution_avoids_a_triton_that_does_not_compile(asked, compiles, expected):
    choices = Choices("cuda", "bfloat16", "sdpa", compiles)
    assert supervisor._sparse_backend(asked, choices) == expected
    assert supervisor._sparse_backend(asked, Choices("cpu", "float32", "sdpa", False)) == asked


@pytest.mark.parametrize(
    ("asked", "choices", "expected"),
    [
        pytest.param("auto", ("sdpa", True), "auto", id="nothing was passed over"),
        pytest.param("auto", ("sdpa", False), "sdpa", id="Triton does not compile"),
        pytest.param("auto", ("xformers", True), "xformers", id="not what is installed"),
        pytest.param("triton", ("triton", True), "triton", id="asked for"),
    ],
)
def test_attention_stays_open_where_the_guard_passed_nothing_over(asked, choices, expected):
    attention, compiles = choices
    made = Choices("cuda", "bfloat16", attention, compiles)
    assert supervisor._attention_backend(asked, made) == expected


def test_a_pipeline_to_preload_must_exist():
    supervisor._check_preload("trellis")
    with pytest.raises(SettingError, match="MESHPRESS_PRELOAD has the value 'trelis'"):
        supervisor._check_preload("trelis")
