"""An early answer is whole before the connection closes, and the close waits for the body."""

from __future__ import annotations

import asyncio
from typing import Any

from service.http import linger
from service.http.linger import Linger

ANSWER = {"type": "http.response.start", "status": 413, "headers": []}
BODY = {"type": "http.response.body", "body": b"too large"}


def exchange(
    *, headers: list[tuple[bytes, bytes]], pieces: int, read_first: bool = False
) -> list[tuple[str, Any]]:
    """What an app that answers at once does to the wire: ("sent", …) and ("received", left)."""
    wire: list[tuple[str, Any]] = []
    left = pieces

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while read_first and (await receive())["more_body"]:
            pass
        await send(dict(ANSWER))
        await send(dict(BODY))

    async def receive() -> dict[str, Any]:
        nonlocal left
        if not left:
            await asyncio.sleep(60)  # the client neither sends nor leaves
        left -= 1
        wire.append(("received", left))
        return {"type": "http.request", "body": bytes(1000), "more_body": left > 0}

    async def send(message: dict[str, Any]) -> None:
        wire.append(("sent", message))

    asyncio.run(Linger(app)({"type": "http", "headers": headers}, receive, send))
    return wire


def test_an_early_answer_is_sent_whole_and_ended_after_the_body() -> None:
    wire = exchange(headers=[(b"content-length", b"3000")], pieces=3)
    kinds = [kind for kind, _ in wire]
    assert kinds == ["sent", "sent", "received", "received", "received", "sent"]
    assert (b"connection", b"close") in wire[0][1]["headers"]
    assert (wire[1][1]["body"], wire[1][1]["more_body"]) == (b"too large", True)
    assert (wire[-1][1]["body"], wire[-1][1]["more_body"]) == (b"", False)


def test_an_answer_after_the_body_is_left_alone() -> None:
    wire = exchange(headers=[(b"content-length", b"3000")], pieces=3, read_first=True)
    assert [message for kind, message in wire if kind == "sent"] == [ANSWER, BODY]


def test_a_request_without_a_body_is_left_alone() -> None:
    assert exchange(headers=[], pieces=0) == [("sent", ANSWER), ("sent", BODY)]


def test_a_client_that_sends_nothing_more_is_not_waited_for_long(monkeypatch: Any) -> None:
    monkeypatch.setattr(linger, "LINGER_SECONDS", 0.1)
    wire = exchange(headers=[(b"transfer-encoding", b"chunked")], pieces=0)
    assert [kind for kind, _ in wire] == ["sent", "sent", "sent"]


def test_an_endless_body_is_not_drained_for_ever(monkeypatch: Any) -> None:
    monkeypatch.setattr(linger, "LINGER_BYTES", 5000)
    wire = exchange(headers=[(b"transfer-encoding", b"chunked")], pieces=10**9)
    assert [kind for kind, _ in wire].count("received") == 5
