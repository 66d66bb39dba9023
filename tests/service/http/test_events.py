"""A job's changes as server-sent events."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

from service.http.events import stream_events
from service.jobs.records import Progress
from service.jobs.states import JobState
from service.jobs.watch import JobWatcher

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def submit(api: Any) -> str:
    job_id: str = api.client.post("/v1/jobs/mesh", content=PNG).json()["id"]
    return job_id


def parse(text: str) -> list[dict[str, Any]]:
    """The events of a stream, as a browser reads them."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if "event" in fields:
            events.append({**fields, "data": json.loads(fields["data"])})
    return events


def test_a_job_from_queue_to_end(api: Any) -> None:
    job_id = submit(api)

    def work() -> None:
        for changes in (
            {"state": JobState.RUNNING},
            {"progress": Progress("mask", 0.2)},
            {"progress": Progress("bake", 0.7)},
        ):
            time.sleep(0.2)
            api.queue.become(job_id, **changes)
        time.sleep(0.2)
        api.queue.succeed(job_id, ("mesh.glb", "model/gltf-binary", b"glTF"))

    threading.Thread(target=work).start()
    answer = api.client.get(f"/v1/jobs/{job_id}/events")  # ends by itself
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = parse(answer.text)
    assert [event["event"] for event in events] == [
        "state",
        "state",
        "progress",
        "progress",
        "done",
    ]
    assert [int(event["id"]) for event in events] == [0, 1, 2, 3, 4]
    assert [event["data"]["version"] for event in events] == [0, 1, 2, 3, 4]
    assert events[2]["data"]["progress"]["stage"] == "mask"
    assert events[-1]["data"]["artifacts"][0]["name"] == "mesh.glb"


def test_a_reconnecting_client_gets_only_what_is_new(api: Any) -> None:
    job_id = submit(api)
    for fraction in (0.1, 0.2):
        api.queue.become(job_id, state=JobState.RUNNING, progress=Progress("mask", fraction))
    threading.Timer(0.3, api.queue.succeed, (job_id, ("a.glb", "x/y", b"1"))).start()
    path = f"/v1/jobs/{job_id}/events"
    events = parse(api.client.get(path, headers={"Last-Event-ID": "2"}).text)
    assert [(event["event"], event["id"]) for event in events] == [("done", "3")]


def test_an_ended_job_tells_a_reconnecting_browser_to_stop(api: Any) -> None:
    job_id = submit(api)
    api.queue.become(job_id, state=JobState.FAILED)
    path = f"/v1/jobs/{job_id}/events"
    first = api.client.get(path)
    (event,) = parse(first.text)
    assert event["event"] == "done"
    again = api.client.get(path, headers={"Last-Event-ID": event["id"]})
    assert (again.status_code, again.content) == (204, b"")
    odd = api.client.get(path, headers={"Last-Event-ID": "not ours"})
    assert len(parse(odd.text)) == 1


def test_silence_is_filled_with_comments(api: Any) -> None:
    """The pause is short here; a job that changes nothing for five pauses gives comments."""
    job_id = submit(api)

    async def listen() -> list[str]:
        watcher = JobWatcher(api.queue)
        parts: Any = SimpleNamespace(watcher=watcher, stopping=asyncio.Event())
        stream = stream_events(parts, job_id, keep_alive_seconds=0.1)
        texts = [await anext(stream) for _ in range(6)]
        parts.stopping.set()
        texts += [text async for text in stream]
        await watcher.close()
        return texts

    texts = asyncio.run(listen())
    assert texts[0].startswith("retry: ")
    assert texts[1].startswith("event: state\n")
    assert texts[2:] == [": keep-alive\n\n"] * 4


def test_events_arrive_as_they_happen(api: Any) -> None:
    """Not gathered until the end: the first is here while the job still waits."""
    job_id = submit(api)
    with api.client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        text = ""
        for piece in answer.iter_text():
            text += piece
            if parse(text):
                break
    assert parse(text)[0]["data"]["state"] == "queued"


def test_an_unknown_job_is_a_problem_not_a_stream(api: Any) -> None:
    answer = api.client.get("/v1/jobs/nope/events")
    assert answer.status_code == 404
    assert answer.json()["code"] == "job_not_found"
