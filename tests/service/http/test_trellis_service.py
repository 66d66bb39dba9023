"""TRELLIS through the real service: its queue, its worker, its runner, on tiny random networks."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trimesh

from tests.service.http.events import cancelled_at, events_of

SAMPLES = Path(__file__).parents[2] / "samples"
SMALL = {"pipeline": "trellis", "faces": "2000", "texture_size": "1024"}


@pytest.fixture(scope="module")
def client(trellis_service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=trellis_service.url, timeout=120) as connected:
        yield connected


def robot() -> bytes:
    return (SAMPLES / "robot.png").read_bytes()


def submit(client: httpx.Client, content: bytes | None = None, **params: str) -> httpx.Response:
    return client.post(
        "/v1/jobs/mesh",
        params=SMALL | params,
        content=robot() if content is None else content,
        headers={"Prefer": "wait=100"},
    )


def content_of(client: httpx.Client, job: dict[str, Any], name: str) -> bytes:
    return client.get(f"/v1/jobs/{job['id']}/artifacts/{name}").content


def test_an_image_becomes_a_finished_mesh(client: httpx.Client) -> None:
    job = submit(client).json()
    assert job["state"] == "succeeded", job["error"]
    assert [file["name"] for file in job["artifacts"]] == ["mesh.glb"]
    glb = content_of(client, job, "mesh.glb")
    mesh = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh", process=False)
    assert 0 < len(mesh.faces) <= 2000
    assert job["report"]["pipeline"] == "trellis"
    assert job["report"]["mesh"]["faces"] == len(mesh.faces)
    assert job["steps"][0]["choice"] is None and "choice" not in job["report"]


def test_every_format_of_the_table_is_made(client: httpx.Client) -> None:
    job = submit(client, formats="stl,splat,ply,obj,glb").json()
    names = ["mesh.stl", "scene.splat.ply", "mesh.ply", "mesh.obj.zip", "mesh.glb"]
    assert [file["name"] for file in job["artifacts"]] == names
    assert all(len(content_of(client, job, name)) > 1000 for name in names)


def test_mesh_and_sog_are_one_job_of_two_steps(client: httpx.Client) -> None:
    job = client.post(
        "/v1/jobs/mesh", params=SMALL | {"formats": "glb,sog", "preset": "small"}, content=robot()
    ).json()
    seen = list(events_of(client, job))
    job = seen[-1]
    assert job["state"] == "succeeded", job["error"]
    assert [(step["task"], step["pipeline"]) for step in job["steps"]] == [
        ("mesh", "trellis"),
        ("splat", "sog"),
    ]
    assert job["steps"][1]["options"]["preset"] == "small"
    assert "preset" not in job["steps"][0]["options"]
    names = [file["name"] for file in job["artifacts"]]
    assert names == ["mesh.glb", "scene.sog", "preview.webp"]
    with zipfile.ZipFile(io.BytesIO(content_of(client, job, "scene.sog"))) as bundle:
        count = json.loads(bundle.read("meta.json"))["count"]
    assert count == job["report"]["trellis"]["gaussians"]
    assert job["report"]["sog"]["quality"]["psnr_db"] > 0
    fractions = [one["progress"]["fraction"] for one in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_a_sog_alone_comes_from_one_request(client: httpx.Client) -> None:
    """Nothing else is made: no surface, and the Gaussians between the steps stay inside."""
    answer = client.post(
        "/v1/mesh", params=SMALL | {"formats": "sog", "report": "false"}, content=robot()
    )
    assert answer.status_code == 200, answer.text
    assert zipfile.ZipFile(io.BytesIO(answer.content)).testzip() is None
    job = client.get(f"/v1/jobs/{answer.headers['x-job-id']}").json()
    assert [file["name"] for file in job["artifacts"]] == ["scene.sog"]
    assert "mesh" not in job["report"]["trellis"]


def test_what_was_asked_for_first_is_the_main_result(client: httpx.Client) -> None:
    job = submit(client, formats="sog,splat", report="false").json()
    assert [file["name"] for file in job["artifacts"]] == ["scene.sog", "scene.splat.ply"]


def test_cancelling_ends_within_a_step_and_the_next_job_runs(client: httpx.Client) -> None:
    images = [("image", (f"{number}.png", robot(), "image/png")) for number in range(8)]
    slow = SMALL | {"steps": "100", "mixing": "multidiffusion"}
    job = client.post("/v1/jobs/mesh", params=slow, files=images).json()
    cancelled_at(client, job, "structure")
    assert submit(client).json()["state"] == "succeeded"


def test_a_picture_that_shows_nothing_fails_alone(client: httpx.Client) -> None:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGBA", (64, 64)).save(stream, "PNG")
    job = submit(client, stream.getvalue()).json()
    assert (job["state"], job["error"]["code"]) == ("failed", "image_transparent")
    assert job["error"]["user_fault"] is True
    assert submit(client, steps="2").json()["report"]["samplers"]["latent"]["steps"] == 2


def test_auto_says_what_it_took_and_why(client: httpx.Client) -> None:
    """On a CPU it is the embedded one, although TRELLIS could run."""
    answer = client.post(
        "/v1/jobs/mesh?pipeline=auto", content=robot(), headers={"Prefer": "wait=100"}
    )
    job = answer.json()
    choice = job["report"]["choice"]
    assert choice == job["steps"][0]["choice"]
    assert (choice["asked"], choice["pipeline"]) == ("auto", "embedded")
    assert "pipeline=trellis" in choice["passed_over"]["trellis"]
    listed = client.get("/v1/pipelines").json()
    assert listed["auto"]["mesh"]["pipeline"] == "embedded"


def test_auto_takes_the_only_one_that_makes_splats(client: httpx.Client) -> None:
    job = client.post("/v1/jobs/mesh?formats=sog&report=false", content=robot()).json()
    assert [step["pipeline"] for step in job["steps"]] == ["trellis", "sog"]
    assert client.delete(f"/v1/jobs/{job['id']}").status_code in (200, 202)


def test_sagemaker_reaches_it_too(client: httpx.Client) -> None:
    attributes = "task=mesh;pipeline=trellis;faces=2000;texture_size=1024;formats=stl"
    headers = {
        "Content-Type": "image/png",
        "X-Amzn-SageMaker-Custom-Attributes": attributes,
    }
    answer = client.post("/invocations", content=robot(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "model/stl"
    assert client.get("/ping").status_code == 200


def test_the_list_shows_what_it_weighs_and_under_which_licence(client: httpx.Client) -> None:
    rows = {row["name"]: row for row in client.get("/v1/pipelines").json()["pipelines"]}
    trellis = rows["trellis"]
    assert trellis["available"] is True and trellis["commands"] == []
    weights = {item["name"]: item for item in trellis["weights"]}
    assert weights["trellis-image-large"]["licence"] == "MIT"
    assert weights["trellis-image-large"]["size_bytes"] > 2_800_000_000
    assert weights["trellis-image-large"]["present"] is True
    assert weights["birefnet"]["optional"] is True
    assert {"glb", "splat", "sog"} <= set(trellis["formats"])
    assert trellis["gpu_memory_bytes"] > 0 and rows["embedded"]["gpu_memory_bytes"] == 0
