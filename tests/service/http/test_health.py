"""Alive, ready, measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.http import health

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def failing_checks(api: Any) -> dict[str, str]:
    problem = api.client.get("/readyz").json()
    return {check["name"]: check["reason"] for check in problem["checks"] if not check["ok"]}


def no_workers(api: Any) -> None:
    api.queue.alive = []


def starting_worker(api: Any) -> None:
    api.queue.alive = [replace(api.queue.alive[0], state="starting")]


def silent_worker(api: Any) -> None:
    long_ago = datetime.now(UTC) - timedelta(seconds=45)
    api.queue.alive = [replace(api.queue.alive[0], seen_at=long_ago)]


def lost_database(api: Any) -> None:
    api.queue.broken = True


def lost_folder(api: Any) -> None:
    (api.settings.data_dir / "incoming").rename(api.settings.data_dir / "elsewhere")
    (api.settings.data_dir / "incoming").touch()


def test_ready_lists_every_check(api: Any) -> None:
    answer = api.client.get("/readyz")
    assert answer.status_code == 200, answer.text
    assert {check["name"] for check in answer.json()["checks"]} == {*health.CHECKS, "running"}


@pytest.mark.parametrize(
    ("breakage", "check", "reason"),
    [
        (no_workers, "worker", "no worker is running"),
        (starting_worker, "worker", "is starting"),
        (silent_worker, "worker", "no worker is running"),
        (lost_database, "queue", "out of reach"),
        (lost_folder, "storage", "Not a directory"),
    ],
)
def test_not_ready_says_why(
    serve: Any, breakage: Callable[[Any], None], check: str, reason: str
) -> None:
    api = serve()
    breakage(api)
    answer = api.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert reason in failing_checks(api)[check]
    assert f"{check}: " in answer.json()["detail"]
    assert api.client.get("/healthz").status_code == 200, "alive all the same"


def test_too_little_disk_is_not_ready(serve: Any) -> None:
    api = serve(min_free_bytes=2**50)
    assert str(2**50) in failing_checks(api)["free_space"]


def test_a_hanging_check_costs_one_thread_however_often_one_asks(serve: Any) -> None:
    api = serve()
    calls, release = 0, threading.Event()

    def hang() -> None:
        nonlocal calls
        calls += 1
        release.wait(60)

    api.queue.workers = lambda: [api.queue.alive[0]]
    api.queue.check = hang
    for _ in range(2):
        assert "no answer" in failing_checks(api)["queue"]
        time.sleep(health.FRESH_SECONDS + 0.1)
    assert calls == 1
    release.set()
    api.queue.check = lambda: None
    time.sleep(health.FRESH_SECONDS + 0.1)
    assert api.client.get("/readyz").status_code == 200, "and it recovers"


def test_metrics(serve: Any) -> None:
    api = serve()
    api.client.post("/v1/jobs/mesh", content=PNG)
    api.client.get("/v1/jobs/" + "x" * 30)
    api.client.get("/no/such/path")
    text = api.client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))

    def value(name: str, **labels: str) -> float:
        wanted = name + "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}"
        return float(lines[wanted if labels else name])

    count = "meshpress_http_request_seconds_count"
    assert value(count, method="POST", route="/v1/jobs/mesh", status="202") == 1
    assert value(count, method="GET", route="/v1/jobs/{job_id}", status="404") == 1
    assert value(count, method="GET", route="unmatched", status="404") == 1
    bytes_in = "meshpress_http_request_body_bytes_total"
    assert value(bytes_in, route="/v1/jobs/mesh") == len(PNG)
    assert value("meshpress_jobs", state="queued") == 1
    assert value("meshpress_queue_depth") == 1
    assert value("meshpress_workers", device="cpu", state="idle") == 1
    assert value("meshpress_queue_up") == 1
    assert value("process_resident_memory_bytes") > 1e6


def test_metrics_outlive_the_database(serve: Any) -> None:
    api = serve()
    api.queue.broken = True
    text = api.client.get("/metrics").text
    assert "\nmeshpress_queue_up 0.0" in text
    assert "meshpress_jobs{" not in text


def test_each_app_counts_for_itself(start_api: Any, tmp_path: Any) -> None:
    first, second = start_api(tmp_path / "1"), start_api(tmp_path / "2")
    try:
        first.client.get("/healthz")
        assert 'route="/healthz"' not in second.client.get("/metrics").text
    finally:
        first.stop()
        second.stop()
