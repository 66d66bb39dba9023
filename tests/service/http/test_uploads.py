"""Bodies on their way into the store: what arrives, what is refused when, what is left behind."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request

from service.errors import UploadStalled
from service.http.body import UploadRules, read_body
from service.http.filetypes import TASK_KINDS
from service.storage.artifacts import ArtifactStore

PNG = b"\x89PNG\r\n\x1a\n"


def stored(api: Any, file: dict[str, Any]) -> bytes:
    return b"".join(api.store.read(file["sha256"], 0, file["size_bytes"]))


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_the_stored_bytes_are_the_sent_bytes(api: Any, rng: np.random.Generator) -> None:
    body = PNG + rng.bytes(3_000_000)
    (file,) = api.client.post("/v1/jobs/mesh", content=body).json()["inputs"]
    assert file["sha256"] == hashlib.sha256(body).hexdigest()
    assert file["size_bytes"] == len(body)
    assert stored(api, file) == body


def test_a_chunked_body_needs_no_length(api: Any, rng: np.random.Generator) -> None:
    pieces = [PNG[:3], PNG[3:], *(rng.bytes(int(size)) for size in rng.integers(1, 200_000, 9))]

    def trickle() -> Iterator[bytes]:
        yield from pieces

    answer = api.client.post("/v1/jobs/mesh", content=trickle())
    assert answer.status_code == 202
    assert stored(api, answer.json()["inputs"][0]) == b"".join(pieces)


def test_form_files_survive_any_split_of_the_body(api: Any, rng: np.random.Generator) -> None:
    """Boundaries that fall across chunks, and file bytes that look like boundaries."""
    first = PNG + rng.bytes(50_000) + b"\r\n--xyz\r\n--xy" + rng.bytes(10)
    second = PNG + b"\r\n--xyzz" * 1000
    body = b""
    for name, content in (("one.png", first), ("two.png", second)):
        body += b'--xyz1\r\nContent-Disposition: form-data; name="image"; filename="%s"' % (
            name.encode()
        )
        body += b"\r\nContent-Type: image/png\r\n\r\n" + content + b"\r\n"
    body += b'--xyz1\r\nContent-Disposition: form-data; name="seed"\r\n\r\n5\r\n--xyz1--\r\n'

    def trickle() -> Iterator[bytes]:
        cuts = np.sort(rng.integers(0, len(body), 60))
        for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
            yield body[start:end]

    headers = {"Content-Type": "multipart/form-data; boundary=xyz1"}
    answer = api.client.post("/v1/jobs/mesh", content=trickle(), headers=headers)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert [stored(api, file) for file in job["inputs"]] == [first, second]
    assert job["steps"][0]["options"]["seed"] == 5


def test_an_empty_file_input_of_a_browser_is_not_a_file(api: Any) -> None:
    files = [
        ("image", ("a.png", PNG + bytes(20), "image/png")),
        ("image", ("", b"", "application/octet-stream")),
    ]
    answer = api.client.post("/v1/jobs/mesh", files=files)
    assert answer.status_code == 202, answer.text
    assert len(answer.json()["inputs"]) == 1


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"X-Filename": "../../etc/passwd"}, "passwd"),
        ({"X-Filename": "..%2F..%2Fetc%2Fshadow"}, "shadow"),
        ({"X-Filename": "C:\\Windows\\win.ini"}, "win.ini"),
        ({"X-Filename": ".."}, "upload.png"),
        ({"X-Filename": "a%00b%0D%0Ac.png"}, "abc.png"),
        ({"X-Filename": "%E6%A4%85.png"}, "椅.png"),
        ({"Content-Disposition": 'attachment; filename="../x.png"'}, "x.png"),
        ({"Content-Disposition": "attachment; filename*=UTF-8''%E6%A4%85.png"}, "椅.png"),
        ({"X-Filename": "x" * 500 + ".png"}, "x" * 96 + "…" + "x" * 19 + ".png"),
        ({}, "upload.png"),
    ],
)
def test_names_are_labels_and_harmless(api: Any, headers: dict[str, str], name: str) -> None:
    answer = api.client.post("/v1/jobs/mesh", content=PNG + bytes(20), headers=headers)
    assert answer.json()["inputs"][0]["name"] == name


def test_a_client_that_goes_away_leaves_nothing(api: Any) -> None:
    connection = api.connect()
    connection.sendall(
        b"POST /v1/jobs/mesh HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + PNG
    )
    connection.sendall(bytes(500_000))
    assert wait_until(lambda: bool(api.arriving)), "the upload has begun"
    jobs = len(api.queue.jobs)
    connection.close()
    assert wait_until(lambda: not api.arriving), "its temporary file is gone"
    assert len(api.queue.jobs) == jobs
    assert api.client.get("/healthz").status_code == 200


def test_a_client_that_goes_away_within_a_form_leaves_nothing(api: Any) -> None:
    before = set(api.store._folder.rglob("*"))
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n' + PNG
    connection = api.connect()
    connection.sendall(
        b"POST /v1/jobs/mesh HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + part + b"whole\r\n" + part
    )
    assert wait_until(lambda: len(api.arriving) == 2)
    connection.close()
    assert wait_until(lambda: not api.arriving)
    assert set(api.store._folder.rglob("*")) == before, "not even the file that was whole"


def test_a_body_that_claims_too_much_is_refused_unread(serve: Any) -> None:
    api = serve(max_upload_bytes=100_000)
    connection = api.connect()
    connection.sendall(
        b"POST /v1/jobs/mesh HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413"), "and not 100 Continue"
    assert b"connection: close" in answer
    assert b"100001" in answer
    connection.close()


def test_a_body_that_grows_too_much_is_cut(serve: Any) -> None:
    api = serve(max_upload_bytes=100_000)

    def endless() -> Iterator[bytes]:
        yield PNG
        for _ in range(2_000):  # 20 MB: endless for a limit of 100 kB
            yield bytes(10_000)

    answer = api.client.post("/v1/jobs/mesh", content=endless())
    assert answer.status_code == 413
    assert "100000" in answer.json()["detail"]
    assert not api.arriving


def test_the_answer_to_an_early_refusal_arrives(api: Any) -> None:
    """The body is on its way when the answer is ready; a bare close would reset the connection."""
    for _ in range(5):
        answer = api.client.post("/v1/jobs/mesh?faces=5", content=PNG + bytes(20_000_000))
        assert answer.status_code == 422
        assert "faces" in answer.json()["detail"]


def test_a_connection_is_kept_after_an_answer(api: Any) -> None:
    connection = api.connect()
    request = b"POST /v1/jobs/mesh HTTP/1.1\r\nHost: x\r\nContent-Length: 28\r\n\r\n" + PNG
    for _ in range(3):
        connection.sendall(request + bytes(20))
        assert connection.recv(65536).startswith(b"HTTP/1.1 202")
    connection.close()


def test_a_form_that_is_none_is_not_read_to_its_end(api: Any) -> None:
    connection = api.connect()
    connection.sendall(
        b"POST /v1/jobs/mesh HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + bytes(200_000)
    )
    answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"does not begin with the boundary" in answer
    connection.close()


def test_too_little_disk_is_507(serve: Any) -> None:
    api = serve(min_free_bytes=2**50)
    answer = api.client.post("/v1/jobs/mesh", content=PNG + bytes(20))
    assert answer.status_code == 507
    assert str(2**50) in answer.json()["detail"]
    assert not api.arriving


def rules(**changes: Any) -> UploadRules:
    limits = {"max_body_bytes": 10**9, "min_free_bytes": 0, "window_seconds": 60.0} | changes
    return UploadRules(TASK_KINDS["mesh"], "PNG", frozenset(), 1, **limits)


def test_a_body_that_stops_arriving_is_408(tmp_path: Path) -> None:
    """The window is short here; a byte now and then does not keep it open."""
    store = ArtifactStore(f"file://{tmp_path}/store", tmp_path)

    async def drip() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read() -> int:
        request = Request({"type": "http", "method": "POST", "headers": []}, drip)
        chunks: AsyncIterator[bytes] = read_body(request, store, rules(window_seconds=0.3))
        received = 0
        with pytest.raises(UploadStalled, match="stopped arriving after"):
            async for chunk in chunks:
                received += len(chunk)
        return received

    assert 1 <= asyncio.run(read()) <= 6


def test_a_steady_body_outlives_many_windows(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}/store", tmp_path)
    left = 12

    async def steady() -> dict[str, Any]:
        nonlocal left
        await asyncio.sleep(0.05)
        left -= 1
        return {"type": "http.request", "body": bytes(70_000), "more_body": left > 0}

    async def read() -> int:
        request = Request({"type": "http", "method": "POST", "headers": []}, steady)
        chunks = read_body(request, store, rules(window_seconds=0.25))
        return sum([len(chunk) async for chunk in chunks])

    assert asyncio.run(read()) == 12 * 70_000


def test_a_splat_without_a_signature_goes_by_its_name(api: Any, rng: np.random.Generator) -> None:
    record = rng.bytes(32)
    body = b"{" + record[1:]  # floats may begin with any byte, JSON's too
    named = api.client.post("/v1/jobs/splat", content=body, headers={"X-Filename": "a.splat"})
    assert named.status_code == 202, named.text
    assert named.json()["inputs"][0]["name"] == "a.splat"

    nameless = api.client.post("/v1/jobs/splat", content=body)
    assert nameless.status_code == 422 and "X-Filename" in nameless.json()["next_step"]
    picture = api.client.post(
        "/v1/jobs/splat", content=PNG + record, headers={"X-Filename": "a.splat"}
    )
    assert picture.status_code == 422 and "PNG" in picture.json()["detail"]
