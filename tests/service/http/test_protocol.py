"""Limits on a request's head: its length, its time."""

from __future__ import annotations

import time
from typing import Any

from service.http.protocol import LimitedProtocol


class Impatient(LimitedProtocol):
    longest_head_bytes = 2000
    head_seconds = 0.3


def answer_of(connection: Any) -> bytes:
    """Everything until the server closes."""
    answer = b""
    with connection:
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_a_head_without_end_is_cut(serve: Any) -> None:
    connection = serve(protocol=Impatient).connect()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Endless: ")
    connection.sendall(b"x" * 3000)
    assert answer_of(connection).startswith(b"HTTP/1.1 431 ")


def test_a_head_that_drips_in_is_cut(serve: Any) -> None:
    connection = serve(protocol=Impatient).connect()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
    assert answer_of(connection).startswith(b"HTTP/1.1 408 ")


def test_a_connection_without_a_request_is_closed_silently(serve: Any) -> None:
    assert answer_of(serve(protocol=Impatient).connect()) == b""


def test_each_request_of_a_connection_has_its_own_limits(serve: Any) -> None:
    """Ten heads of 500 bytes are more than 2000 bytes together, and a body does not count."""
    connection = serve(protocol=Impatient).connect()
    body = b"\x89PNG\r\n\x1a\n" + bytes(9000)
    for _ in range(10):
        connection.sendall(
            b"POST /v1/jobs/mesh HTTP/1.1\r\nHost: x\r\nX-Pad: %s\r\nContent-Length: %d\r\n\r\n"
            % (b"p" * 400, len(body))
        )
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 202 ")
    connection.close()


def test_a_slow_body_is_not_a_slow_head(serve: Any) -> None:
    connection = serve(protocol=Impatient).connect()
    connection.sendall(b"POST /v1/jobs/mesh HTTP/1.1\r\nHost: x\r\nContent-Length: 28\r\n\r\n")
    connection.sendall(b"\x89PNG\r\n\x1a\n")
    time.sleep(0.6)
    connection.sendall(bytes(20))
    assert connection.recv(65536).startswith(b"HTTP/1.1 202 ")
    connection.close()
