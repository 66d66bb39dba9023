"""Direct3D-S2 through HTTP, the queue, a worker and its runner, on tiny networks."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import trimesh

from service.settings import to_environment
from tests.models.image_to_mesh.direct3d_s2.released import pull_tiny
from tests.models.image_to_mesh.gltf_validator import gltf_validator
from tests.service.http import direct3d_s2_runner
from tests.service.http.events import cancelled_at

ROOT = Path(__file__).parents[3]
PARAMS = {"pipeline": "direct3d_s2", "faces": "1000", "texture_size": "1024"}


@pytest.fixture(scope="module")
def client(start_api: Callable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An API and one worker, both of which know the tiny release."""
    folder = tmp_path_factory.mktemp("direct3d_s2")
    models_dir = folder / "models"
    pull_tiny(models_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESHPRESS_MODELS_DIR", str(models_dir))
        patch.setenv("OMP_NUM_THREADS", "1")  # of tensors so small, more only wait for one another
        # A cancelled step has a minute before its runner would be killed: it must stop by itself.
        api = start_api(
            folder / "data",
            real_queue=True,
            table=direct3d_s2_runner.TABLE,
            models_dir=str(models_dir),
            cancel_grace_seconds=60.0,
        )
        worker = subprocess.Popen(
            [sys.executable, "-m", "service.jobs.worker", "cpu", direct3d_s2_runner.__name__],
            stdin=subprocess.PIPE,
            env={**os.environ, **to_environment(api.settings), "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        with httpx.Client(base_url=api.url, timeout=120) as connected:
            yield connected
        os.killpg(worker.pid, signal.SIGKILL)
        worker.communicate()
        api.stop()


def robot() -> bytes:
    return (ROOT / "tests/samples/robot.png").read_bytes()


@pytest.mark.parametrize("resolution", ["512", "1024"])
def test_an_image_becomes_a_finished_mesh(client: httpx.Client, resolution: str) -> None:
    params = PARAMS | {"resolution": resolution, "fine_steps": "2"}
    answer = client.post("/v1/mesh", params=params, content=robot())
    assert answer.status_code == 200, answer.text
    mesh = trimesh.load(io.BytesIO(answer.content), file_type="glb", force="mesh", process=False)
    job = client.get(f"/v1/jobs/{answer.headers['x-job-id']}").json()
    assert [step["pipeline"] for step in job["steps"]] == ["direct3d_s2"]
    assert 0 < job["report"]["mesh"]["faces"] == len(mesh.faces) <= 1020
    assert job["report"]["resolution"] == int(resolution)
    assert ("sparse_1024" in job["report"]["samplers"]) == (resolution == "1024")
    unused = any("fine_steps=2 has no effect" in note for note in job["report"]["warnings"])
    assert unused == (resolution == "512")


@pytest.mark.node
def test_the_file_passes_the_validator(client: httpx.Client, tmp_path: Path) -> None:
    validate = gltf_validator()
    params = PARAMS | {"resolution": "512", "steps": "1"}
    path = tmp_path / "mesh.glb"
    path.write_bytes(client.post("/v1/mesh", params=params, content=robot()).content)
    issues = validate(path)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


@pytest.mark.parametrize(
    ("stage", "steps"),
    [("coarse", "dense_steps"), ("latent_512", "sparse_steps"), ("latent_1024", "fine_steps")],
)
def test_cancelling_ends_within_a_step_and_the_next_job_runs(
    client: httpx.Client, stage: str, steps: str
) -> None:
    few = {"dense_steps": "1", "sparse_steps": "1", "fine_steps": "1"}
    job = client.post("/v1/jobs/mesh", params=PARAMS | few | {steps: "100"}, content=robot()).json()
    cancelled_at(client, job, stage)
    after = client.post("/v1/mesh", params=PARAMS | few | {"resolution": "512"}, content=robot())
    assert after.status_code == 200, after.text
