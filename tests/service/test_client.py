"""The Python client against a fake service behind its transport: bytes, retries, faults."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from multipart import MultipartParser

from service.client import (
    Client,
    CorruptDownload,
    JobCancelled,
    JobFailed,
    MeshpressClientError,
    NotFound,
    RequestRefused,
    ServiceBusy,
    ServiceFailed,
    ServiceUnreachable,
    WaitTimeout,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import fake_service

    return fake_service


@pytest.fixture
def connect(fakes: Any) -> Callable[..., tuple[Any, Client]]:
    """`service, client = connect(faults=[…])`: a client that never waits between tries."""

    def build(**facts: Any) -> tuple[Any, Client]:
        service = fakes.FakeService(**facts)
        return service, Client("http://service", transport=service, backoff_seconds=0.0)

    return build


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "été 1.png"
    path.write_bytes(b"\x89PNG" + bytes(300_000))
    return path


# -- submitting ----------------------------------------------------------------------------


def test_one_file_is_the_raw_body_streamed_from_disk(connect, picture) -> None:
    service, client = connect()
    job = client.submit_mesh(picture, faces=500, azimuth=[0, 90.5], smooth=True, seed=None)
    request = service.seen[0]
    assert (request["method"], request["path"], job.id) == ("POST", "/v1/jobs/mesh", "j1")
    expected = [("faces", "500"), ("azimuth", "0"), ("azimuth", "90.5"), ("smooth", "true")]
    assert request["query"] == expected
    assert request["headers"]["x-filename"] == "%C3%A9t%C3%A9%201.png"
    assert request["headers"]["content-length"] == str(picture.stat().st_size)
    assert b"".join(request["chunks"]) == picture.read_bytes()
    assert max(map(len, request["chunks"])) <= 65_536  # never the whole file at once


def test_several_files_are_a_form_streamed_from_disk(connect, tmp_path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        path.write_bytes(path.name.encode() * 50_000)
    service, client = connect()
    client.submit_mesh(paths)
    request = service.seen[0]
    assert max(map(len, request["chunks"])) <= 65_536
    body = tmp_path / "body"
    body.write_bytes(b"".join(request["chunks"]))
    boundary = request["headers"]["content-type"].partition("boundary=")[2]
    with body.open("rb") as stream:
        parts = list(MultipartParser(stream, boundary))
        found = [(part.name, part.filename, part.raw) for part in parts]
        for part in parts:
            part.close()
    assert found == [("image", path.name, path.read_bytes()) for path in paths]


def test_a_lost_connection_is_tried_again_with_the_same_key_and_the_whole_body(
    connect, picture
) -> None:
    lost = [httpx.ConnectError("refused"), httpx.ReadError("reset")]
    service, client = connect(faults=lost)
    client.submit_splat(picture)
    keys = {request["headers"]["idempotency-key"] for request in service.seen}
    assert (len(service.seen), len(keys)) == (3, 1)
    assert all(b"".join(request["chunks"]) == picture.read_bytes() for request in service.seen)


def test_two_submissions_have_two_keys(connect, picture) -> None:
    service, client = connect()
    client.submit_splat(picture)
    client.submit_splat(picture)
    client.submit_splat(picture, idempotency_key="mine")
    keys = [request["headers"]["idempotency-key"] for request in service.seen]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


def test_retries_end(connect) -> None:
    service, client = connect(faults=[httpx.ConnectError("refused")] * 9)
    with pytest.raises(ServiceUnreachable, match="refused") as raised:
        client.get("j1")
    assert len(service.seen) == 5
    assert "meshpress serve" in raised.value.next_step


def test_a_busy_service_is_asked_again(connect) -> None:
    busy = [httpx.Response(429, headers={"retry-after": "0"}), httpx.Response(503)]
    service, client = connect(faults=busy)
    assert client.get("j1").id == "j1"
    assert len(service.seen) == 3


def test_a_service_that_stays_busy(connect) -> None:
    full = {"code": "queue_full", "detail": "10000 jobs wait.", "status": 429}
    _, client = connect(faults=[httpx.Response(429, json=full)] * 5)
    with pytest.raises(ServiceBusy, match="10000 jobs wait") as raised:
        client.get("j1")
    assert (raised.value.code, raised.value.status) == ("queue_full", 429)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFound), (410, NotFound), (422, RequestRefused), (500, ServiceFailed)],
)
def test_problems_become_errors(connect, status: int, kind: type[MeshpressClientError]) -> None:
    fault = {"field": "faces", "value": 5, "message": "too few", "allowed": "500 to 500000"}
    problem = {"code": "some_code", "detail": "What is wrong.", "next_step": "Do this."}
    service, client = connect(faults=[httpx.Response(status, json=problem | {"errors": [fault]})])
    with pytest.raises(kind, match="What is wrong") as raised:
        client.get("j1")
    error = raised.value
    assert (error.code, error.status, error.next_step) == ("some_code", status, "Do this.")
    assert error.errors == [fault]
    assert len(service.seen) == 1  # asking again would not help


def test_an_answer_that_is_no_problem_document(connect) -> None:
    _, client = connect(faults=[httpx.Response(502, text="<html>Bad gateway</html>")])
    with pytest.raises(ServiceFailed, match="Bad Gateway") as raised:
        client.get("j1")
    assert raised.value.code == "http_502"


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="must begin with http"):
        Client("localhost:8080")


def test_a_job_id_cannot_leave_its_path(connect) -> None:
    service, client = connect()
    client.get("../pipelines?x=1")
    assert service.seen[0]["raw_path"] == "/v1/jobs/..%2Fpipelines%3Fx%3D1"


# -- waiting -------------------------------------------------------------------------------


def test_waits_by_events(connect, fakes) -> None:
    stream = ": hello\n\n" + fakes.event("running", 0.5, "mesh") + fakes.event("succeeded", 1.0)
    service, client = connect(events=[stream])
    seen: list[tuple[str, float]] = []
    job = client.wait("j1", on_progress=lambda job: seen.append((job.state, job.progress[1])))
    assert seen == [("running", 0.5), ("succeeded", 1.0)]
    assert job.finished
    assert len(service.seen) == 1


def test_a_broken_stream_is_taken_up_again(connect, fakes) -> None:
    running = {"state": "running", "progress": {"stage": "", "fraction": 0.6}}
    first, second = fakes.event("running", 0.5), fakes.event("succeeded", 1.0)
    _, client = connect(events=[first, second], job=running)
    seen: list[float] = []
    assert client.wait("j1", on_progress=lambda job: seen.append(job.progress[1])).finished
    assert seen == [0.5, 0.6, 1.0]


def test_asks_where_there_is_no_stream(connect) -> None:
    service, client = connect()
    assert client.wait("j1").state == "succeeded"
    assert [request["path"] for request in service.seen] == ["/v1/jobs/j1/events", "/v1/jobs/j1"]


def test_a_wait_can_end_before_the_job(connect, fakes) -> None:
    _, client = connect(events=[fakes.event("running", 0.1)] * 50, job={"state": "running"})
    with pytest.raises(WaitTimeout, match="j1 has not ended in time"):
        client.wait("j1", timeout_seconds=0.0)


def test_a_failed_job_is_an_error_that_carries_it(connect) -> None:
    error = {"code": "image_damaged", "message": "a.png is damaged.", "next_step": "Send another."}
    _, client = connect(job={"state": "failed", "error": error})
    with pytest.raises(JobFailed, match=r"a\.png is damaged") as raised:
        client.wait("j1")
    assert (raised.value.code, raised.value.next_step) == ("image_damaged", "Send another.")
    assert raised.value.job.id == "j1"
    assert client.wait("j1", check=False).state == "failed"


def test_a_cancelled_job_is_an_error(connect) -> None:
    _, client = connect(job={"state": "cancelled"})
    with pytest.raises(JobCancelled, match="j1 was cancelled"):
        client.wait("j1")


# -- results -------------------------------------------------------------------------------


def test_file_to_file(connect, fakes, picture, tmp_path) -> None:
    service, client = connect()
    job = client.mesh(picture, tmp_path / "a.glb", faces=500)
    assert (tmp_path / "a.glb").read_bytes() == fakes.RESULT
    assert job.report == {"faces": 12}
    assert ("formats", "glb") in service.seen[0]["query"]
    with pytest.raises(ValueError, match=r"must end in \.glb"):
        client.mesh(picture, tmp_path / "a.jpg")


def test_a_download_continues_where_it_broke(connect, fakes, tmp_path) -> None:
    service, client = connect(break_after=[200_000, 100_000])
    path = client.download("j1", tmp_path)
    assert path == tmp_path / "mesh.glb"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == fakes.RESULT_SHA256
    ranges = [request["headers"].get("range") for request in service.seen[1:]]
    assert ranges == [None, "bytes=200000-", "bytes=300000-"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["mesh.glb"]


def test_the_next_call_continues_a_download_given_up(connect, fakes, tmp_path) -> None:
    _, client = connect(break_after=[200_000, 0, 0, 0, 0])
    with pytest.raises(ServiceUnreachable):
        client.download("j1", tmp_path / "out.glb")
    assert not (tmp_path / "out.glb").exists()
    service, client = connect()
    client.download("j1", tmp_path / "out.glb")
    assert service.seen[1]["headers"]["range"] == "bytes=200000-"
    assert (tmp_path / "out.glb").read_bytes() == fakes.RESULT


def test_a_service_without_ranges_sends_all_again(connect, fakes, tmp_path) -> None:
    _, client = connect(break_after=[200_000], ranges=False)
    path = client.download("j1", tmp_path / "out.glb")
    assert path.read_bytes() == fakes.RESULT


def test_damaged_bytes_are_not_kept(connect, fakes, tmp_path, rng: np.random.Generator) -> None:
    damaged = bytearray(fakes.RESULT)
    damaged[int(rng.integers(len(damaged)))] ^= 1
    _, client = connect(result=bytes(damaged))
    (tmp_path / "out.glb").write_text("precious")
    with pytest.raises(CorruptDownload):
        client.download("j1", tmp_path / "out.glb")
    assert (tmp_path / "out.glb").read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.glb"]


def test_a_short_answer_is_not_kept(connect, fakes, tmp_path) -> None:
    _, client = connect(result=fakes.RESULT[:-1])
    with pytest.raises(CorruptDownload):
        client.download("j1", tmp_path / "out.glb")


def test_a_name_from_the_service_cannot_leave_the_folder(connect, fakes, tmp_path) -> None:
    service, client = connect()
    artifact = service.job["artifacts"][0] | {"name": "../../evil.glb"}
    service.job["artifacts"] = [artifact]
    folder = tmp_path / "folder"
    folder.mkdir()
    assert client.download("j1", folder) == folder / "evil.glb"


def test_an_artifact_that_is_not_there(connect) -> None:
    _, client = connect()
    with pytest.raises(NotFound, match="no artifact 'mesh.stl'") as raised:
        client.download("j1", "x", name="mesh.stl")
    assert "mesh.glb" in raised.value.next_step


# -- lists, packaging ------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "pages"), [(None, 3), (120, 2), (1, 1)])
def test_lists_page_by_page(connect, limit: int | None, pages: int) -> None:
    service, client = connect()
    found = [job.id for job in client.list(limit=limit, state="succeeded", task=None)]
    assert found == [f"j{number}" for number in range(limit or 250)]
    assert len(service.seen) == pages
    assert ("state", "succeeded") in service.seen[0]["query"]


def test_ships_alone(tmp_path) -> None:
    """The folder works under another name, with nothing of the service beside it."""
    copy = tmp_path / "meshpress_client"
    shutil.copytree(ROOT / "service" / "client", copy, ignore=shutil.ignore_patterns("*.pyc"))
    code = (
        "import sys, meshpress_client\n"
        "meshpress_client.Client().close()\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('service', 'models')]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={}, check=True, timeout=60)
