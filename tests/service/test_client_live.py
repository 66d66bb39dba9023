"""The client and `meshpress … --server` against a real service in its own processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.client import Client, Job, JobFailed, NotFound, RequestRefused

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def client(live_service) -> Iterator[Client]:
    with Client(live_service.url) as client:
        yield client


@pytest.fixture
def egg(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A picture of its own for each test: an ellipse on a transparent ground."""
    path = tmp_path / "egg.png"
    picture = Image.new("RGBA", (96, 96))
    box = (20, 10, int(rng.integers(60, 80)), int(rng.integers(70, 90)))
    ImageDraw.Draw(picture).ellipse(box, fill=(*map(int, rng.integers(0, 255, 3)), 255))
    picture.save(path)
    return path


def test_image_to_mesh_and_the_same_key_twice(client: Client, egg: Path, tmp_path: Path) -> None:
    job = client.submit_mesh(egg, resolution=128, idempotency_key=f"key-{egg.parent.name}")
    again = client.submit_mesh(egg, resolution=128, idempotency_key=f"key-{egg.parent.name}")
    assert again.id == job.id
    seen: list[Job] = []
    job = client.wait(job, on_progress=seen.append, timeout_seconds=60)
    assert job.state == "succeeded"
    fractions = [current.progress[1] for current in seen]
    assert fractions == sorted(fractions)
    path = client.download(job, tmp_path)
    assert path.name == "mesh.glb"
    assert path.read_bytes()[:4] == b"glTF"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == job.artifact()["sha256"]
    assert job.report["mesh"]["watertight"] is True


def test_several_images_and_formats(client: Client, egg: Path, tmp_path: Path) -> None:
    job = client.submit_mesh(
        [egg, egg], azimuth=[0, 180], formats=["stl", "glb"], resolution=128, priority="high"
    ).wait(timeout_seconds=60)
    assert [artifact["name"] for artifact in job.artifacts] == ["mesh.stl", "mesh.glb"]
    assert job.data["priority"] == "high"
    assert client.download(job, tmp_path, "mesh.glb").read_bytes()[:4] == b"glTF"


def test_splat_to_sog_equals_the_local_result(
    client: Client, samples: Path, tmp_path: Path, meshpress
) -> None:
    source = samples / "playbot.compressed.ply"
    client.splat(source, tmp_path / "there.sog", palette_size=64)
    here = meshpress("sog", source, "here.sog", "--palette-size", "64")
    assert here.returncode == 0, here.stderr.decode()
    assert (tmp_path / "there.sog").read_bytes() == (tmp_path / "here.sog").read_bytes()


def test_a_faulty_option_names_field_value_and_range(client: Client, egg: Path) -> None:
    with pytest.raises(RequestRefused) as raised:
        client.submit_mesh(egg, faces=5)
    assert raised.value.code == "invalid_options"
    fault = raised.value.errors[0]
    assert (fault["field"], str(fault["value"])) == ("faces", "5")
    assert "500 to 500000" in fault["allowed"]


def test_a_damaged_image_fails_with_a_next_step(client: Client, egg: Path) -> None:
    egg.write_bytes(egg.read_bytes()[:60])
    with pytest.raises(JobFailed) as raised:
        client.submit_mesh(egg).wait(timeout_seconds=60)
    assert raised.value.job.data["error"]["user_fault"] is True
    assert raised.value.next_step


def test_a_job_that_does_not_exist(client: Client) -> None:
    with pytest.raises(NotFound) as raised:
        client.get("0199f3a2-6c1d-7e4b-9a53-2f1c0d8e7b64")
    assert raised.value.code == "job_not_found"


def test_pipelines_and_lists(client: Client, egg: Path) -> None:
    names = {pipeline["name"] for pipeline in client.pipelines()["pipelines"]}
    assert {"embedded", "sog"} <= names
    job = client.submit_mesh(egg, resolution=128).wait(timeout_seconds=60)
    assert job.id in [other.id for other in client.list(task="mesh", state="succeeded", limit=50)]
    assert job.id not in [other.id for other in client.list(task="splat", limit=50)]


def test_the_command_line_sends_work_away_and_fetches_it(
    live_service, meshpress: Callable, egg: Path, tmp_path: Path
) -> None:
    words = ["mesh", egg, "-o", "a.glb", "-o", "a.obj", "--server", live_service.url, "--json"]
    done = meshpress(*words, "--resolution", "128")
    assert done.returncode == 0, done.stderr.decode()
    facts = json.loads(done.stdout)
    paths = [output["path"] for output in facts["outputs"]]
    assert paths == ["a.glb", "a.obj", "a.mtl", "a_texture.jpg"]
    assert (tmp_path / "a.glb").read_bytes()[:4] == b"glTF"
    assert b"mtllib a.mtl" in (tmp_path / "a.obj").read_bytes()

    environment = {"MESHPRESS_SERVER": live_service.url}
    shown = meshpress("jobs", "show", facts["job"], "--json", **environment)
    assert json.loads(shown.stdout)["state"] == "succeeded"
    waited = meshpress("jobs", "wait", facts["job"], **environment)
    assert waited.returncode == 0
    assert b"succeeded" in waited.stdout
    listed = meshpress("jobs", "list", "--limit", "100", **environment)
    rows = [line.split("\t") for line in listed.stdout.decode().splitlines()]
    assert [facts["job"], "mesh", "succeeded"] in [row[:3] for row in rows]
    fetched = meshpress("jobs", "download", facts["job"], "-o", "b.glb", **environment)
    assert fetched.stdout == b"b.glb\n"
    assert (tmp_path / "b.glb").read_bytes() == (tmp_path / "a.glb").read_bytes()
    refused = meshpress("jobs", "download", facts["job"], "-o", "b.glb", **environment)
    assert (refused.returncode, b"add -w" in refused.stderr) == (2, True)


def test_the_command_line_follows_a_failing_job(
    live_service, client: Client, meshpress: Callable, egg: Path
) -> None:
    egg.write_bytes(egg.read_bytes()[:60])
    job = client.submit_mesh(egg)
    watched = meshpress("jobs", "watch", job.id, "--json", "--server", live_service.url)
    assert watched.returncode == 1
    last = json.loads(watched.stdout.splitlines()[-1])
    assert (last["id"], last["state"]) == (job.id, "failed")
    cancelled = meshpress("jobs", "cancel", job.id, "--server", live_service.url)
    assert b"Traceback" not in cancelled.stderr


def test_ctrl_c_cancels_the_job_on_the_service(
    live_service, client: Client, egg: Path, tmp_path: Path
) -> None:
    ahead = [client.submit_mesh(egg, resolution=256, seed=seed) for seed in range(12)]
    command = [sys.executable, "-m", "service.cli", "mesh", str(egg), "-o", "a.glb"]
    process = subprocess.Popen(
        [*command, "--server", live_service.url],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while "queued" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    log = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    job_id = log.split("Cancelling job ")[1].split()[0]
    assert client.wait(job_id, check=False, timeout_seconds=60).state == "cancelled"
    assert not (tmp_path / "a.glb").exists()
    for job in ahead:
        job.cancel()


def test_a_port_in_use_is_one_line(live_service, meshpress: Callable) -> None:
    port = live_service.url.rpartition(":")[2]
    done = meshpress("serve", "--port", port)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: cannot listen on 127.0.0.1:{port}: ".encode())
    assert done.stderr.count(b"\n") == 1


def test_no_service_is_one_line_with_the_next_step(meshpress: Callable) -> None:
    done = meshpress("jobs", "list", "--server", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: No answer from http://127.0.0.1:9")
    assert b"meshpress serve" in done.stderr
    assert done.stderr.count(b"\n") == 1
