"""Every error is a problem document; none of them tells too much."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from service.http.schemas import Problem

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def test_an_unknown_path(api: Any) -> None:
    answer = api.client.get("/v1/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(answer.json())
    assert "/v1/nothing" in problem.detail
    assert problem.instance == "/v1/nothing"
    assert problem.request_id == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs/abc", "DELETE, GET"),
        ("GET", "/v1/mesh", "POST"),
        ("POST", "/v1/jobs", "GET"),
        ("POST", "/v1/jobs/abc/artifacts/mesh.glb", "GET, HEAD"),
    ],
)
def test_a_wrong_method_lists_all_right_ones(
    api: Any, method: str, path: str, allowed: str
) -> None:
    answer = api.client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert answer.json()["code"] == "method_not_allowed"
    assert method in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("state=done", "state"), ("stat=failed", "stat")],
)
def test_a_bad_parameter_is_named(api: Any, query: str, field: str) -> None:
    answer = api.client.get(f"/v1/jobs?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == field
    assert answer.json()["errors"][0]["value"] == query.split("=")[1]
    assert field in answer.json()["detail"]


def test_the_unforeseen_is_logged_and_not_told(serve: Any) -> None:
    api = serve()

    def explode(job_id: str) -> None:
        raise ZeroDivisionError("secret inside")

    api.queue.get = explode
    with structlog.testing.capture_logs() as logs:
        answer = api.client.get("/v1/jobs/abc", headers={"X-Request-ID": "my-id-1"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "my-id-1"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    (line,) = [line for line in logs if line["event"] == "unhandled"]
    assert isinstance(line["exc_info"], ZeroDivisionError)
    api.queue.get = lambda job_id: None
    assert api.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, 'quo"te'])
def test_a_request_id_that_is_no_plain_word_is_replaced(api: Any, sent: str) -> None:
    answer = api.client.get("/healthz", headers={"X-Request-ID": sent})
    assert answer.headers["x-request-id"] != sent
    assert len(answer.headers["x-request-id"]) == 32


def test_a_full_queue_is_429(serve: Any) -> None:
    api = serve(real_queue=True, max_queued=2)
    answers = [api.client.post("/v1/jobs/mesh", content=PNG) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert int(answers[2].headers["retry-after"]) > 0
    assert "limit is 2" in answers[2].json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/jobs/mesh"), ("POST", "/v1/mesh"), ("GET", "/v1/jobs/abc"), ("GET", "/v1/jobs")],
)
def test_a_lost_database_is_503_and_worth_a_retry(serve: Any, method: str, path: str) -> None:
    api = serve()
    api.queue.broken = True
    answer = api.client.request(method, path, content=PNG if method == "POST" else None)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert not api.arriving


def test_a_report_may_hold_numbers_that_json_has_not(api: Any) -> None:
    job_id = api.client.post("/v1/jobs/mesh", content=PNG).json()["id"]
    api.queue.become(job_id, report={"error": float("nan"), "ratio": [float("inf"), 1.5]})
    expected = {"error": None, "ratio": [None, 1.5]}
    assert api.client.get(f"/v1/jobs/{job_id}").json()["report"] == expected
    listed = api.client.get("/v1/jobs").json()["jobs"]
    assert [job["report"] for job in listed if job["id"] == job_id] == [expected]
