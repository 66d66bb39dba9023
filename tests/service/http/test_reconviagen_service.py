"""ReconViaGen through the real service: its queue, its worker, its runner, on tiny networks."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trimesh

from tests.models.image_to_mesh.reconviagen.released import pull_tiny
from tests.service.http.events import cancelled_at

SAMPLES = Path(__file__).parents[2] / "samples"
SMALL = {"faces": "1000", "texture_size": "1024", "steps": "3"}


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "models"
    pull_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def client(start_for_module: Callable[..., Any], models_dir: Path) -> Iterator[httpx.Client]:
    live = start_for_module(
        models_dir=str(models_dir), accepted_licences="vggt", cancel_grace_seconds="60"
    )
    with httpx.Client(base_url=live.url, timeout=180) as connected:
        yield connected


def photos(count: int) -> list[tuple[str, tuple[str, bytes, str]]]:
    robot = (SAMPLES / "robot.png").read_bytes()
    return [("image", (f"{number}.png", robot, "image/png")) for number in range(count)]


def test_photos_become_a_mesh_and_a_scene_and_cameras(client: httpx.Client) -> None:
    """One job of two steps: GLB and .sog; where each photo was taken from stands in the report."""
    answer = client.post(
        "/v1/jobs/mesh",
        params=SMALL | {"pipeline": "reconviagen", "formats": "glb,sog", "report": "false"},
        files=photos(2),
        headers={"Prefer": "wait=150"},
    )
    job = answer.json()
    assert job["state"] == "succeeded", job["error"]
    assert [file["name"] for file in job["artifacts"]] == ["mesh.glb", "scene.sog"]
    glb, sog = (
        client.get(f"/v1/jobs/{job['id']}/artifacts/{file['name']}").content
        for file in job["artifacts"]
    )
    mesh = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh", process=False)
    assert 0 < len(mesh.faces)
    assert zipfile.ZipFile(io.BytesIO(sog)).testzip() is None
    report = job["report"]["reconviagen"]
    assert len(report["views"]) == 2
    assert all(len(view["camera"]["world_to_camera"]) == 3 for view in report["views"])


def test_cancelling_ends_within_a_step_and_the_next_job_runs(client: httpx.Client) -> None:
    params = SMALL | {"pipeline": "reconviagen", "formats": "splat"}
    slow = params | {"latent_steps": "100"}
    job = client.post("/v1/jobs/mesh", params=slow, files=photos(8)).json()
    cancelled_at(client, job, "latent")
    assert client.post("/v1/mesh", params=params, files=photos(1)).status_code == 200


def test_without_its_licence_it_is_not_run(
    serve: Callable[..., Any], models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHPRESS_MODELS_DIR", str(models_dir))
    params = SMALL | {"pipeline": "reconviagen"}
    api = serve()
    answer = api.client.post("/v1/jobs/mesh", params=params, files=photos(2))
    assert answer.status_code == 409 and api.queue.jobs == {}
    problem = answer.json()
    assert problem["code"] == "pipeline_unavailable"
    assert problem["detail"].endswith("is not accepted.")
    assert problem["command"].endswith("--accept-licence vggt")
    monkeypatch.setenv("MESHPRESS_ACCEPTED_LICENCES", "vggt")
    answer = api.client.post("/v1/jobs/mesh", params=params, files=photos(2))
    assert answer.status_code == 202
