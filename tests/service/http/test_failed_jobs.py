"""A job that fails behind one request: the status says who can mend it, the words say how.

Through the real API, queue, worker and runner: what was here when the request came goes before a
worker takes its job.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from models.weights.catalogue import find_entries
from models.weights.licences import RECORD_NAME, accept
from service.settings import to_environment
from tests.models.image_to_mesh.reconviagen import released as reconviagen
from tests.models.image_to_mesh.trellis import released as trellis
from tests.service.http import failing_runner

ROOT = Path(__file__).parents[3]
ROBOT = ROOT / "tests/samples/robot.png"
TRELLIS = "meshpress models pull trellis-image-large dinov2-large-registers"


@contextmanager
def worker_of(api: Any) -> Iterator[None]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "service.jobs.worker", "cpu", failing_runner.__name__],
        stdin=subprocess.PIPE,
        env={**os.environ, **to_environment(api.settings), "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.communicate()


def post(
    api: Any, path: str = "/v1/mesh", *, content: bytes = b"", key: str = "", **params: str
) -> httpx.Response:
    headers = {"Content-Type": "image/png"} | ({"Idempotency-Key": key} if key else {})
    content = content or ROBOT.read_bytes()
    return httpx.post(api.url + path, params=params, content=content, headers=headers, timeout=120)


def opaque_robot() -> bytes:
    """The sample on black, without the alpha that would mark it."""
    stream = io.BytesIO()
    Image.open(ROBOT).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def started(start_api: Callable, folder: Path, patch: pytest.MonkeyPatch) -> Any:
    """An API of these weights, which lie in `folder`, and nobody yet who takes its jobs."""
    patch.setenv("MESHPRESS_MODELS_DIR", str(folder / "models"))
    patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    patch.setenv("OMP_NUM_THREADS", "1")
    return start_api(
        folder / "data",
        real_queue=True,
        table=failing_runner.TABLE,
        models_dir=str(folder / "models"),
    )


@pytest.fixture
def waiting(
    start_api: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    """`waiting(change, …)`: send a request, make the change while its job waits, let a worker come;
    the problem that is its answer."""
    api = started(start_api, tmp_path, monkeypatch)

    def send(change: Callable[[Path], object], **options: Any) -> dict[str, Any]:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(lambda: post(api, **options))
            until = time.monotonic() + 30
            while not api.client.get("/v1/jobs").json()["jobs"] and time.monotonic() < until:
                time.sleep(0.02)
            change(tmp_path / "models")
            with worker_of(api):
                problem: dict[str, Any] = answer.result().json()
        assert answer.result().status_code == problem["status"]
        return problem

    yield send
    api.stop()


def test_weights_that_go_while_the_job_waits(
    waiting: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """What it says is what it says at once to the next request."""
    trellis.pull_tiny(tmp_path / "models")
    problem = waiting(shutil.rmtree, pipeline="trellis")
    assert (problem["status"], problem["code"]) == (409, "pipeline_unavailable")
    assert "Weights are not in" in problem["detail"]
    assert f"`{TRELLIS}`" in problem["next_step"] and "submit" in problem["next_step"]
    assert problem["title"] == "Job cannot run here"


def test_weights_of_an_option_that_go(
    waiting: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """The pipeline is loaded and needs none: it is the option that finds them gone."""
    (entry,) = find_entries(["birefnet"])
    for file in entry.files:
        path = tmp_path / "models" / entry.name / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as sparse:
            sparse.truncate(file.size_bytes or 1)
    problem = waiting(shutil.rmtree, content=opaque_robot(), pipeline="embedded", mask="birefnet")
    assert (problem["status"], problem["code"]) == (409, "weights_missing")
    assert problem["next_step"] == "Run `meshpress models pull birefnet`."


def test_a_licence_that_is_withdrawn(
    waiting: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    reconviagen.pull_tiny(tmp_path / "models")
    accept(tmp_path / "models", [entry.licence for entry in find_entries(["vggt-object-v0-1"])])
    problem = waiting(lambda folder: (folder / RECORD_NAME).unlink(), pipeline="reconviagen")
    assert (problem["status"], problem["code"]) == (409, "pipeline_unavailable")
    assert problem["detail"].endswith("is not accepted.")
    assert "--accept-licence vggt`" in problem["next_step"]


def test_numbers_that_leave_their_range(
    waiting: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """The release, but for the flow's last layer: a velocity of 1e38 in each of its steps."""
    trellis.pull_tiny(tmp_path / "models")

    def overflow(folder: Path) -> None:
        (file,) = folder.rglob("ss_flow*.safetensors")
        state = load_file(file)
        state["out_layer.bias"] = state["out_layer.bias"] + float("inf")
        save_file(state, file)

    problem = waiting(overflow, pipeline="trellis")
    assert (problem["status"], problem["code"]) == (409, "sample_not_finite")
    assert "MESHPRESS_DTYPE" in problem["next_step"]


@pytest.fixture(scope="module")
def served(start_api: Callable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An API and a worker."""
    with pytest.MonkeyPatch.context() as patch:
        api = started(start_api, tmp_path_factory.mktemp("failing"), patch)
        with worker_of(api):
            yield api
        api.stop()


@pytest.mark.parametrize(
    ("pipeline", "status", "code", "fault", "words"),
    [
        ("empty_structure", 422, "structure_empty", "input", "another seed"),
        ("no_gpu_memory", 409, "out_of_memory", "setup", "MESHPRESS_OFFLOAD=on"),
        ("gpu_gone", 503, "device_lost", "outage", "meshpress doctor"),
        ("defect", 500, "pipeline_bug", "defect", "report"),
        ("killed", 409, "poison_job", "setup", "more memory"),
    ],
)
def test_the_status_says_who_can_mend_it(
    served: Any, pipeline: str, status: int, code: str, fault: str, words: str
) -> None:
    answer = post(served, pipeline=pipeline)
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert words in problem["next_step"]
    assert ("retry-after" in answer.headers) == (status == 503)
    error = served.client.get(problem["job"]).json()["error"]
    assert (error["code"], error["fault"]) == (code, fault)
    assert error["user_fault"] == (fault == "input")


def test_sagemaker_is_answered_alike(served: Any) -> None:
    answer = post(served, "/invocations", pipeline="no_gpu_memory")
    assert (answer.status_code, answer.json()["code"]) == (409, "out_of_memory")


def test_a_key_stands_for_the_job_that_failed(served: Any) -> None:
    """The same request with the same key is the same job; to try again takes another."""
    first, again = (post(served, key="once", pipeline="no_gpu_memory") for _ in range(2))
    assert first.headers["x-job-id"] == again.headers["x-job-id"]
    assert "another Idempotency-Key" in again.json()["next_step"]
    mended = post(served, key="input", pipeline="empty_structure")
    assert "Idempotency-Key" not in mended.json()["next_step"]
