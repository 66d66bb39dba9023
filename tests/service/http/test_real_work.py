"""Both pipelines through HTTP: a real worker makes real files."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.negotiation import ANY_BINARY, FORMAT_TYPES, format_of
from service.pipelines import find_pipeline

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="module")
def client(live_service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_service.url, timeout=120) as connected:
        yield connected


def robot() -> bytes:
    return (SAMPLES / "robot.png").read_bytes()


def test_an_image_in_a_mesh_out(client: httpx.Client) -> None:
    answer = client.post("/v1/mesh", content=robot(), headers={"X-Filename": "robot.png"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "model/gltf-binary"
    magic, version, length = struct.unpack("<4sII", answer.content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(answer.content))


def test_a_splat_in_a_bundle_out(client: httpx.Client) -> None:
    splat = (SAMPLES / "playbot.compressed.ply").read_bytes()
    answer = client.post("/v1/splat", content=splat)
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as bundle:
        meta = json.loads(bundle.read("meta.json"))
    assert meta["version"] == 2
    assert meta["count"] == 13_000


def test_every_format_has_the_name_and_type_that_negotiation_knows(client: httpx.Client) -> None:
    entry = find_pipeline("mesh")
    formats = [format_of(name) for name in entry.artifacts]
    answer = client.post(
        f"/v1/jobs/mesh?formats={','.join(formats)}&faces=1000",
        content=robot(),
        headers={"Prefer": "wait=100"},
    )
    made = answer.json()["artifacts"]
    assert [file["name"] for file in made] == list(entry.artifacts)
    for file in made:
        assert file["media_type"] in (*FORMAT_TYPES[format_of(file["name"])], ANY_BINARY)
        assert len(client.get(file["url"]).content) == file["size_bytes"]


def test_several_images_of_one_object(client: httpx.Client) -> None:
    images = [("image", (name, robot(), "image/png")) for name in ("front.png", "back.png")]
    answer = client.post("/v1/mesh", files=images, data={"azimuth": ["0", "180"]})
    assert answer.status_code == 200, answer.text
    job = client.get(f"/v1/jobs/{answer.headers['x-job-id']}").json()
    assert job["report"]["views_guessed"] is False


def test_sagemaker_gets_the_same_bytes(client: httpx.Client) -> None:
    direct = client.post("/v1/mesh?seed=3", content=robot())
    headers = {
        "Content-Type": "image/png",
        "X-Amzn-SageMaker-Custom-Attributes": "task=mesh;seed=3",
    }
    invoked = client.post("/invocations", content=robot(), headers=headers)
    assert invoked.content == direct.content


def test_events_of_a_real_job(client: httpx.Client) -> None:
    links = client.post("/v1/jobs/mesh", content=robot()).json()["links"]
    text = client.get(links["events"]).text
    jobs = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    versions = [job["version"] for job in jobs]
    fractions = [job["progress"]["fraction"] for job in jobs]
    assert versions == sorted(set(versions))
    assert fractions == sorted(fractions)
    assert jobs[-1]["state"] == "succeeded"
    assert "event: done" in text
