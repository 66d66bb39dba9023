"""SageMaker's contract: /ping and /invocations."""

from __future__ import annotations

import time
from typing import Any

import pytest

from service.jobs.states import JobState

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
PLY = b"ply\n" + bytes(100)
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
FILES = {
    "glb": ("mesh.glb", "model/gltf-binary", b"glTF" + bytes(50)),
    "stl": ("mesh.stl", "model/stl", b"solid"),
}
SOG = ("scene.sog", "application/zip", b"PK\3\4" + bytes(50))


@pytest.fixture
def invoke(api: Any) -> Any:
    def settle(job: Any) -> dict[str, Any]:
        formats = job.steps[0].options.get("formats", ())
        made = [FILES[name] for name in formats] if job.task == "mesh" else [SOG]
        changes: dict[str, Any] = api.queue.success(*made)
        return changes

    def post(content: bytes, attributes: str = "", **headers: str) -> Any:
        api.queue.settle = settle
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {ATTRIBUTES: attributes} if attributes else {}
        try:
            return api.client.post("/invocations", content=content, headers=sent)
        finally:
            api.queue.settle = None

    return post


def newest(api: Any) -> Any:
    return list(api.queue.jobs.values())[-1]


@pytest.mark.parametrize(
    ("content_type", "content", "task"),
    [
        ("image/png", PNG, "mesh"),
        ("application/octet-stream", PNG, "mesh"),
        ("application/octet-stream", PLY, "splat"),
        ("application/zip", b"PK\3\4" + bytes(50), "splat"),
        ("application/ply", PLY, "splat"),
        ("application/x-www-form-urlencoded", PNG, "mesh"),
    ],
)
def test_the_type_or_the_bytes_choose_the_task(
    api: Any, invoke: Any, content_type: str, content: bytes, task: str
) -> None:
    answer = invoke(content, Content_Type=content_type)
    assert answer.status_code == 200, answer.text
    assert newest(api).task == task
    assert answer.content == (SOG if task == "splat" else FILES["glb"])[2]


def test_attributes_are_options_and_come_back(api: Any, invoke: Any) -> None:
    attributes = "task=mesh; seed=7;formats=stl"
    answer = invoke(PNG, attributes, Content_Type="application/octet-stream")
    assert answer.content == FILES["stl"][2]
    assert answer.headers[ATTRIBUTES] == attributes
    assert newest(api).steps[0].options["seed"] == 7


@pytest.mark.parametrize(
    ("accept", "expected"),
    [("model/stl", "stl"), ("application/json", "glb"), ("*/*", "glb")],
)
def test_the_answer_is_binary_by_accept(invoke: Any, accept: str, expected: str) -> None:
    answer = invoke(PNG, Accept=accept, Content_Type="image/png")
    assert answer.content == FILES[expected][2]


@pytest.mark.parametrize(
    ("attributes", "status", "named"),
    [
        ("task=texture", 422, "task=texture"),
        ("task=mesh;task=splat", 422, "mesh,splat"),
        ("task", 400, "'task'"),
        ("seed=", 400, "'seed='"),
        ("seed=1;;faces=600", 400, "''"),
        ("Se ed=1", 400, "'Se ed=1'"),
        ("seed=minus", 422, "seed='minus'"),
        ("sead=1", 422, "did you mean seed"),
        ("seed=1;seed=2", 422, "'1' and '2'"),
        ("x=" + "y" * 1100, 400, "1102 characters"),
    ],
)
def test_bad_attributes_are_named(api: Any, attributes: str, status: int, named: str) -> None:
    jobs = len(api.queue.jobs)
    headers = {ATTRIBUTES: attributes, "Content-Type": "image/png"}
    answer = api.client.post("/invocations", content=PNG, headers=headers)
    assert answer.status_code == status
    assert named in answer.json()["detail"]
    assert len(api.queue.jobs) == jobs


def test_json_is_refused_with_advice(api: Any) -> None:
    answer = api.client.post("/invocations", json={"image": "iVBORw0KGgo"})
    assert answer.status_code == 415
    assert "task=mesh;seed=1" in answer.json()["next_step"]


def test_a_task_that_does_not_fit_the_bytes_is_refused(api: Any) -> None:
    headers = {ATTRIBUTES: "task=splat", "Content-Type": "application/octet-stream"}
    answer = api.client.post("/invocations", content=PNG, headers=headers)
    assert answer.status_code == 422
    assert "PNG" in answer.json()["detail"]


def test_a_form_of_both_kinds_is_refused(api: Any) -> None:
    files = [("a", ("a.png", PNG)), ("b", ("b.ply", PLY))]
    answer = api.client.post("/invocations", files=files)
    assert answer.status_code == 422
    assert "mixes" in answer.json()["detail"]


def test_what_takes_too_long_is_cancelled(serve: Any) -> None:
    api = serve(invocation_timeout_seconds=1.0)
    answer = api.client.post("/invocations", content=PNG, headers={"Content-Type": "image/png"})
    assert answer.status_code == 504
    assert newest(api).state is JobState.CANCELLED


def test_ping_is_empty_and_follows_readiness(serve: Any) -> None:
    api = serve()
    answer = api.client.get("/ping")
    assert (answer.status_code, answer.content) == (200, b"")
    api.queue.alive = []
    time.sleep(1.1)  # an answer is reused for a second
    answer = api.client.get("/ping")
    assert (answer.status_code, answer.content) == (503, b"")
