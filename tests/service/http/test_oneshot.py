"""One request, one file back; the job behind it played by the fake queue."""

from __future__ import annotations

import time
from typing import Any

import pytest

from service.jobs.records import Fault, JobError
from service.jobs.states import JobState

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
GLB = ("mesh.glb", "model/gltf-binary", b"glTF" + bytes(500))
STL = ("mesh.stl", "model/stl", b"solid" + bytes(99))
SOG = ("scene.sog", "application/zip", b"PK\3\4" + bytes(50))


@pytest.fixture
def make(api: Any) -> Any:
    """POST an image whose job succeeds with the files its options ask for."""
    files = {"glb": GLB, "stl": STL}

    def settle(job: Any) -> dict[str, Any]:
        formats = job.steps[0].options.get("formats", ())
        made = [files[name] for name in formats] if job.task == "mesh" else [SOG]
        changes: dict[str, Any] = api.queue.success(*made)
        return changes

    def post(path: str = "/v1/mesh", content: bytes = PNG, **headers: str) -> Any:
        api.queue.settle = settle
        try:
            return api.client.post(path, content=content, headers=headers)
        finally:
            api.queue.settle = None

    return post


def test_the_main_artifact_comes_back(make: Any) -> None:
    answer = make()
    assert answer.status_code == 200
    assert answer.content == GLB[2]
    assert answer.headers["content-type"] == "model/gltf-binary"
    job_id = answer.headers["x-job-id"]
    assert answer.headers["content-location"] == f"/v1/jobs/{job_id}/artifacts/mesh.glb"
    assert f'</v1/jobs/{job_id}>; rel="describedby"' in answer.headers["link"]
    assert answer.headers["content-disposition"] == 'attachment; filename="mesh.glb"'
    assert answer.headers["content-length"] == str(len(GLB[2]))


def test_a_splat_comes_back_as_a_bundle(make: Any) -> None:
    answer = make("/v1/splat", b"ply\n" + bytes(50))
    assert (answer.status_code, answer.content) == (200, SOG[2])


@pytest.mark.parametrize(
    ("accept", "query", "expected"),
    [
        ("model/stl", "", STL),
        ("model/gltf-binary;q=0.2, model/stl", "", STL),
        ("model/*", "", GLB),
        ("*/*;q=0.1", "", GLB),
        ("application/octet-stream", "", GLB),
        ("text/html, model/stl;q=0.5, */*;q=0.1", "", STL),
        ("*/*", "?formats=stl,glb", STL),
        ("model/gltf-binary", "?formats=stl&formats=glb", GLB),
    ],
)
def test_accept_and_formats_choose_the_file(
    make: Any, accept: str, query: str, expected: tuple[str, str, bytes]
) -> None:
    answer = make(f"/v1/mesh{query}", accept=accept)
    assert answer.content == expected[2]
    assert answer.headers["content-type"] == expected[1]


def test_further_files_are_linked(make: Any) -> None:
    answer = make("/v1/mesh?formats=glb,stl")
    assert '/artifacts/mesh.stl>; rel="alternate"; type="model/stl"' in answer.headers["link"]


def test_json_is_the_job(make: Any) -> None:
    answer = make(accept="application/json")
    assert answer.json()["state"] == "succeeded"
    assert answer.json()["artifacts"][0]["name"] == "mesh.glb"


@pytest.mark.parametrize(
    ("accept", "query"),
    [("image/png", ""), ("model/stl", "?formats=glb"), ("model/gltf-binary;q=0", "?formats=glb")],
)
def test_an_unfit_accept_is_refused_before_the_work(
    api: Any, make: Any, accept: str, query: str
) -> None:
    jobs = len(api.queue.jobs)
    answer = make(f"/v1/mesh{query}", accept=accept)
    assert answer.status_code == 406
    assert "model/gltf-binary (glb)" in answer.json()["detail"]
    assert accept in answer.json()["detail"]
    assert len(api.queue.jobs) == jobs


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault.INPUT, 422), (Fault.SETUP, 409), (Fault.OUTAGE, 503), (Fault.DEFECT, 500)],
)
def test_a_failed_job_is_a_problem_with_its_words(api: Any, fault: Fault, status: int) -> None:
    error = JobError("cat.png ends early.", "image_truncated", "Send it whole.", fault)
    api.queue.settle = lambda job: {"state": JobState.FAILED, "error": error}
    answer = api.client.post("/v1/mesh", content=PNG)
    api.queue.settle = None
    problem = answer.json()
    assert answer.status_code == problem["status"] == status
    assert problem["code"] == "image_truncated"
    assert problem["detail"] == "cat.png ends early."
    assert problem["next_step"] == "Send it whole."
    assert problem["job"] == f"/v1/jobs/{problem['job_id']}" == answer.headers["location"]


def test_a_job_that_takes_too_long_goes_on(serve: Any) -> None:
    api = serve(sync_timeout_seconds=1.0)
    answer = api.client.post("/v1/mesh", content=PNG)
    assert answer.status_code == 504
    job = api.client.get(answer.headers["location"]).json()
    assert job["state"] == "queued"
    assert job["id"] in answer.json()["detail"]


def test_someone_else_cancels_it(api: Any) -> None:
    api.queue.settle = lambda job: {"state": JobState.CANCELLED}
    answer = api.client.post("/v1/mesh", content=PNG)
    api.queue.settle = None
    assert (answer.status_code, answer.json()["code"]) == (409, "job_cancelled")


def leave_while_waiting(api: Any, headers: bytes = b"") -> str:
    """POST an image, go away once its job is queued; the job's id."""
    known = set(api.queue.jobs)
    connection = api.connect()
    connection.sendall(
        b"POST /v1/mesh HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (headers, len(PNG))
    )
    connection.sendall(PNG)
    deadline = time.monotonic() + 10
    while not (new := set(api.queue.jobs) - known) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    connection.close()
    return str(new.pop())


def test_a_client_that_goes_away_takes_its_job_with_it(api: Any) -> None:
    job_id = leave_while_waiting(api)
    deadline = time.monotonic() + 10
    while api.queue.jobs[job_id].state is JobState.QUEUED and time.monotonic() < deadline:
        time.sleep(0.02)
    assert api.queue.jobs[job_id].state is JobState.CANCELLED


def test_a_client_with_an_idempotency_key_will_come_back(api: Any, make: Any) -> None:
    job_id = leave_while_waiting(api, b"Idempotency-Key: later\r\n")
    time.sleep(0.5)
    assert api.queue.jobs[job_id].state is JobState.QUEUED
    api.queue.succeed(job_id, GLB)
    answer = make(**{"Idempotency-Key": "later"})
    assert answer.content == GLB[2]
    assert answer.headers["x-job-id"] == job_id
    assert answer.headers["idempotency-replayed"] == "true"
