"""Submitting, looking at, listing and cancelling jobs over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.http.schemas import JobView
from service.jobs.states import JobState

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
GLB = ("mesh.glb", "model/gltf-binary", b"glTF....")


def submit(api: Any, **request: Any) -> dict[str, Any]:
    answer = api.client.post("/v1/jobs/mesh", content=PNG, **request)
    assert answer.status_code in (200, 202), answer.text
    body: dict[str, Any] = answer.json()
    return body


def after(seconds: float, action: Callable[..., Any], *args: Any) -> None:
    def wait_then_act() -> None:
        time.sleep(seconds)
        action(*args)

    threading.Thread(target=wait_then_act).start()


def test_a_raw_image_becomes_a_queued_job(api: Any) -> None:
    answer = api.client.post(
        "/v1/jobs/mesh?seed=7&formats=glb,stl&priority=high",
        content=PNG,
        headers={"X-Filename": "a%20chair.png"},
    )
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert answer.headers["x-job-id"] == job["id"]
    assert int(answer.headers["retry-after"]) >= 1
    assert job["state"] == "queued"
    assert job["queue_position"] >= 1
    assert job["priority"] == "high"
    assert job["inputs"][0]["name"] == "a chair.png"
    assert job["inputs"][0]["media_type"] == "image/png"
    (step,) = job["steps"]
    assert step["pipeline"] == "embedded"
    assert step["options"]["seed"] == 7
    assert step["options"]["formats"] == ["glb", "stl"]
    assert step["options"]["faces"] == 20_000, "defaults are filled in"
    JobView.model_validate(job)


def test_a_form_carries_several_images_in_order_and_options(api: Any) -> None:
    files = [("image", (name, PNG + name.encode(), "image/png")) for name in ("b", "a", "c")]
    answer = api.client.post(
        "/v1/jobs/mesh?azimuth=0&azimuth=90,180",
        files=files,
        data={"seed": "3", "pipeline": "embedded", "priority": "low"},
    )
    job = answer.json()
    assert answer.status_code == 202, answer.text
    assert [file["name"] for file in job["inputs"]] == ["b", "a", "c"]
    assert job["steps"][0]["options"]["azimuth"] == [0, 90, 180]
    assert job["steps"][0]["options"]["seed"] == 3
    assert job["priority"] == "low"


def test_an_idempotency_key_brings_back_the_same_job(serve: Any) -> None:
    api = serve(real_queue=True)
    key = {"Idempotency-Key": "k-1"}
    first = api.client.post("/v1/jobs/mesh", content=PNG, headers=key)
    again = api.client.post("/v1/jobs/mesh", content=PNG, headers=key)
    other = api.client.post("/v1/jobs/mesh", content=PNG + b"!", headers=key)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_conflict"
    assert "k-1" in other.json()["detail"]
    assert len(api.client.get("/v1/jobs").json()["jobs"]) == 1


def test_prefer_wait_answers_with_the_finished_job(api: Any) -> None:
    api.queue.settle = None

    def finish_newest() -> None:
        newest = list(api.queue.jobs)[-1]
        api.queue.succeed(newest, GLB)

    after(0.3, finish_newest)
    answer = api.client.post("/v1/jobs/mesh", content=PNG, headers={"Prefer": "wait=20"})
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.json()["state"] == "succeeded"
    assert answer.json()["artifacts"][0]["url"].endswith("/artifacts/mesh.glb")
    assert "retry-after" not in answer.headers


def test_prefer_wait_that_runs_out_answers_202(api: Any) -> None:
    headers = {"Prefer": 'respond-async, wait="1"'}
    answer = api.client.post("/v1/jobs/mesh", content=PNG, headers=headers)
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.json()["state"] == "queued"


def test_looking_at_a_job_may_wait_for_it(api: Any) -> None:
    job = submit(api)
    after(0.3, api.queue.succeed, job["id"], GLB)
    answer = api.client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=20"})
    assert answer.json()["state"] == "succeeded"
    assert answer.json()["attempts"] == []
    assert answer.json()["links"]["cancel"] is None


def test_a_wait_is_no_longer_than_the_service_allows(serve: Any) -> None:
    api = serve(sync_timeout_seconds=1.0)
    answer = api.client.post("/v1/jobs/mesh", content=PNG, headers={"Prefer": "wait=600"})
    assert answer.headers["preference-applied"] == "wait=1"


@pytest.mark.parametrize(
    ("state", "status", "becomes"),
    [
        (JobState.QUEUED, 200, "cancelled"),
        (JobState.RUNNING, 202, "cancelling"),
        (JobState.SUCCEEDED, 409, "succeeded"),
        (JobState.FAILED, 409, "failed"),
    ],
)
def test_cancelling(api: Any, state: JobState, status: int, becomes: str) -> None:
    job_id = submit(api)["id"]
    if state is not JobState.QUEUED:
        api.queue.become(job_id, state=state)
    answer = api.client.delete(f"/v1/jobs/{job_id}")
    assert answer.status_code == status
    assert api.client.get(f"/v1/jobs/{job_id}").json()["state"] == becomes
    if status == 409:
        assert answer.json()["code"] == "job_finished"
        assert state in answer.json()["detail"]


def test_jobs_are_listed_newest_first_in_pages(serve: Any) -> None:
    api = serve(real_queue=True)
    mesh = [api.client.post("/v1/jobs/mesh", content=PNG).json()["id"] for _ in range(4)]
    splat = api.client.post("/v1/jobs/splat", content=b"ply\n" + bytes(99)).json()["id"]
    everything, cursor, pages = [], None, 0
    while pages < 10:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.client.get("/v1/jobs", params=query).json()
        everything += [job["id"] for job in page["jobs"]]
        cursor, pages = page["next_cursor"], pages + 1
        if cursor is None:
            break
    assert everything == [splat, *reversed(mesh)]
    assert pages == 3

    def ids(**query: str) -> list[str]:
        page = api.client.get("/v1/jobs", params=query).json()
        return [job["id"] for job in page["jobs"]]

    assert ids(task="splat") == [splat]
    assert ids(state="running") == []
    api.client.delete(f"/v1/jobs/{mesh[1]}")
    assert ids(state="cancelled", task="mesh") == [mesh[1]]
