"""What people send by mistake or on purpose, to a real service with a real worker.

Each case is answered with a 4xx problem that names the field or the value at fault, and the
service goes on. Sizes are small; what they claim is not.
"""

# ruff: noqa: E501 - a table reads best with a row a line

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

SAMPLES = Path(__file__).parents[2] / "samples"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Case:
    """A request, the status of its answer, and what the answer must say."""

    name: str
    status: int
    says: str
    path: str
    body: bytes | Iterator[bytes] = b""
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    form: list[tuple[str, Any]] | None = None


def png(claimed: tuple[int, int] | None = None) -> bytes:
    """A grey 4 x 4 PNG whose header may claim another size."""
    width, height = claimed or (4, 4)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x80" * 4) * 4)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return PNG_MAGIC + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def ply(rows: int, *, claimed: int | None = None, value: float = 0.0, drop: str = "") -> bytes:
    """A 3DGS .ply of `rows` splats, every number `value`; may claim more, or lack a property."""
    names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
    names += [f"scale_{axis}" for axis in range(3)] + [f"rot_{axis}" for axis in range(4)]
    names = [name for name in names if name != drop]
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"element vertex {rows if claimed is None else claimed}"]
    header += [f"property float {name}" for name in names] + ["end_header"]
    return "\n".join(header).encode() + b"\n" + struct.pack("<f", value) * len(names) * rows


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as written:
        for name, content in files.items():
            written.writestr(name, content)
    return buffer.getvalue()


def robot() -> bytes:
    return (SAMPLES / "robot.png").read_bytes()


def splat() -> bytes:
    return (SAMPLES / "playbot.compressed.ply").read_bytes()


def form(*files: tuple[str, bytes]) -> list[tuple[str, Any]]:
    return [("image", (name, content)) for name, content in files]


MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
GIF = b"GIF89a" + bytes(60)
TRAVERSAL = {"../../../etc/cron.d/x": b"* * * * * root true\n", "meta.json": b"{}"}
BOMB = {"meta.json": b'{"version": 2, "count": ' + b" " * 60_000_000 + b"1}"}
WEBP_BOMB = {"meta.json": b"{}", "means_l.webp": bytes(300_000_000)}

AT_THE_DOOR = [
    # the body
    Case("empty", 400, "body is empty", "/v1/mesh"),
    Case("empty-splat", 400, "body is empty", "/v1/jobs/splat"),
    Case("gif", 422, "a GIF image; accepted: PNG, JPEG or WebP", "/v1/mesh", GIF),
    Case("text", 422, "text beginning 'hello there'", "/v1/jobs/mesh", b"hello there"),
    Case("image-as-splat", 422, "is a PNG file", "/v1/splat", png()),
    Case("splat-as-image", 422, "is a PLY file", "/v1/mesh", ply(4)),
    Case("data-url", 422, "data URL", "/v1/mesh", b"data:image/png;base64,iVBORw0K"),
    Case("base64", 422, "base64 text of a PNG", "/v1/mesh", b"iVBORw0KGgoAAAANSUhEUg"),
    Case("zip-without-entries", 422, "empty ZIP", "/v1/splat", b"PK\x05\x06" + bytes(18)),
    Case("seven-bytes", 422, "89 50 4e 47", "/v1/mesh", PNG_MAGIC[:7]),
    # the Content-Type
    Case("json", 415, "application/json", "/v1/mesh", b"{}", headers={"Content-Type": "application/json"}),
    Case("video", 415, "video/mp4", "/v1/jobs/mesh", png(), headers={"Content-Type": "video/mp4"}),
    Case("png-to-splat", 415, "image/png", "/v1/splat", ply(4), headers={"Content-Type": "image/png"}),
    Case("encoded", 415, "'gzip'", "/v1/mesh", png(), headers={"Content-Encoding": "gzip"}),
    Case("invocations-json", 415, "send the file itself", "/invocations", b"{}", headers={"Content-Type": "application/json"}),
    Case("accept", 406, "'image/png' fits nothing", "/v1/mesh", png(), headers={"Accept": "image/png"}),
    # options
    Case("unknown-option", 422, "fases='9': unknown option, did you mean faces?", "/v1/mesh?fases=9", png()),
    Case("low", 422, "from 500 to 500000", "/v1/mesh?faces=5", png()),
    Case("no-number", 422, "faces='many'", "/v1/mesh?faces=many", png()),
    Case("no-choice", 422, "one of 128, 192, 256", "/v1/mesh?resolution=200", png()),
    Case("nan", 422, "field_of_view='nan'", "/v1/mesh?field_of_view=nan", png()),
    Case("bad-in-list", 422, "azimuth.1='400'", "/v1/mesh?azimuth=0,400", png()),
    Case("bad-format", 422, "formats.0='fbx'", "/v1/mesh?formats=fbx", png()),
    Case("twice", 422, "'1' and '2'", "/v1/mesh?seed=1&seed=2", png()),
    Case("huge-number", 422, "seed=", "/v1/mesh?seed=" + "9" * 3000, png()),
    Case("pipeline", 404, "mesh pipeline named 'trellis9'", "/v1/mesh?pipeline=trellis9", png()),
    Case("priority", 422, "priority='urgent'", "/v1/jobs/mesh?priority=urgent", png()),
    Case("harmonics", 422, "sh_degree='9'", "/v1/splat?sh_degree=9", ply(4)),
    Case("wait", 400, "'soon'", "/v1/jobs/mesh", png(), headers={"Prefer": "wait=soon"}),
    Case("key-with-space", 400, "Idempotency-Key has the value 'a b'", "/v1/jobs/mesh", png(), headers={"Idempotency-Key": "a b"}),
    Case("key-too-long", 400, "256 characters", "/v1/jobs/mesh", png(), headers={"Idempotency-Key": "k" * 256}),
    Case("attributes", 422, "task=video", "/invocations", png(), headers={"X-Amzn-SageMaker-Custom-Attributes": "task=video"}),
    # forms
    Case("no-boundary", 400, "boundary", "/v1/mesh", b"x", headers={"Content-Type": "multipart/form-data"}),
    Case("wrong-boundary", 400, "multipart body", "/v1/mesh", b"--a\r\n\r\nx\r\n--a--\r\n", headers=MULTIPART),
    Case("cut-form", 400, "unexpected end", "/v1/mesh", b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n' + PNG_MAGIC + bytes(9), headers=MULTIPART),
    Case("no-disposition", 400, "content-disposition", "/v1/mesh", b"--b\r\nX: y\r\n\r\nz\r\n--b--\r\n", headers=MULTIPART),
    Case("no-file", 422, "no file", "/v1/mesh", b'--b\r\nContent-Disposition: form-data; name="seed"\r\n\r\n1\r\n--b--\r\n', headers=MULTIPART),
    Case("empty-file", 422, "'a.png') is empty", "/v1/mesh", form=form(("a.png", b""))),
    Case("second-file", 422, "File 2 (part 'image', 'b.png') is a GIF", "/v1/mesh", form=form(("a.png", png()), ("b.png", GIF))),
    Case("seventeen", 422, "more than 16 files", "/v1/mesh", form=form(*[("a.png", png())] * 17)),
    Case("many-splats", 422, "more than 64 files", "/v1/splat", form=form(*[("a.ply", ply(1))] * 65)),
    Case("long-field", 413, "'seed' is longer", "/v1/mesh", form=[("seed", (None, b"1" * 20_000))]),
    Case("conflict", 422, "the form says '2', the query says '1'", "/v1/mesh?seed=1", form=[("seed", (None, b"2")), *form(("a.png", png()))]),
    # paths and parameters
    Case("unknown-job", 404, "nope", "/v1/jobs/nope", method="GET"),
    Case("unknown-events", 404, "nope", "/v1/jobs/nope/events", method="GET"),
    Case("unknown-cancel", 404, "nope", "/v1/jobs/nope", method="DELETE"),
    Case("traversal", 404, "nothing at", "/v1/jobs/x/artifacts/..%2f..%2fqueue.db", method="GET"),
    Case("wrong-method", 405, "does not take GET", "/v1/mesh", method="GET"),
    Case("wrong-path", 404, "/v2/mesh", "/v2/mesh", png()),
    Case("limit", 400, "limit='9999'", "/v1/jobs?limit=9999", method="GET"),
    Case("cursor", 400, "'made-up'", "/v1/jobs?cursor=made-up", method="GET"),
    Case("unknown-parameter", 400, "stat='failed'", "/v1/jobs?stat=failed", method="GET"),
]  # fmt: skip

IN_THE_PIPELINE = [
    Case("truncated-png", 422, "half.png", "/v1/mesh", b"robot-half", headers={"X-Filename": "half.png"}),
    Case("png-header-only", 422, "stub.png", "/v1/mesh", PNG_MAGIC + bytes(40), headers={"X-Filename": "stub.png"}),
    Case("huge-dimensions", 422, "60000", "/v1/mesh", png((60_000, 60_000))),
    Case("tiny-image", 422, "upload.png", "/v1/mesh", png()),
    Case("jpeg-without-picture", 422, "upload.jpg", "/v1/mesh", b"\xff\xd8\xff\xe0" + bytes(100)),
    Case("views-without-angles", 422, "azimuth", "/v1/mesh?azimuth=0,90,180", b"robot"),
    Case("truncated-ply", 422, "upload.ply", "/v1/splat", ply(100)[:-40]),
    Case("lying-ply", 422, "4000000000", "/v1/splat", ply(10, claimed=4_000_000_000)),
    Case("negative-count", 422, "-5", "/v1/splat", ply(10, claimed=-5)),
    Case("no-splats", 422, "upload.ply", "/v1/splat", ply(0)),
    Case("only-nan", 422, "finite", "/v1/splat", ply(50, value=float("nan"))),
    Case("missing-property", 422, "rot_3", "/v1/splat", ply(10, drop="rot_3")),
    Case("endless-header", 422, "upload.ply", "/v1/splat", b"ply\n" + b"comment x\n" * 50_000),
    Case("broken-gzip", 422, "upload.spz", "/v1/splat", b"\x1f\x8b\x08" + bytes(60)),
    Case("broken-zip", 422, "upload.sog", "/v1/splat", b"PK\x03\x04" + bytes(60)),
    Case("zip-traversal", 422, "upload.sog", "/v1/splat", archive(TRAVERSAL)),
    Case("zip-bomb", 422, "upload.sog", "/v1/splat", archive(BOMB)),
    Case("texture-bomb", 422, "upload.sog", "/v1/splat", archive(WEBP_BOMB)),
    Case("empty-meta", 422, "meta.json", "/v1/splat", archive({"meta.json": b"{}"})),
    Case("meta-no-json", 422, "meta.json", "/v1/splat", archive({"meta.json": b"{nope"})),
]  # fmt: skip

BODIES = {
    b"robot": robot,
    b"robot-half": lambda: robot()[: len(robot()) // 2],
}


def send(client: httpx.Client, case: Case) -> httpx.Response:
    body = BODIES[case.body]() if case.body in BODIES else case.body
    content = {"files": case.form} if case.form is not None else {"content": body}
    return client.request(case.method, case.path, headers=case.headers, **content)


def check_problem(answer: httpx.Response, case: Case) -> None:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (case.status, case.status), answer.text
    told = json.dumps(problem, ensure_ascii=False)
    assert case.says.lower() in told.lower().replace('\\"', '"')
    assert problem["code"]
    assert "Traceback" not in told
    assert len(told) < 5000, "an answer does not repeat the attack"


def still_serves(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200


@pytest.fixture(scope="module")
def client(live_service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_service.url, timeout=120) as connected:
        yield connected


@pytest.fixture(scope="module", autouse=True)
def serves_before_and_after(live_service: Any, client: httpx.Client) -> Iterator[None]:
    """Good input works once every bad one has been there, in the same processes as before."""

    def started_at() -> str:
        text = client.get("/metrics").text
        return next(line for line in text.splitlines() if line.startswith("process_start_time"))

    def attempts_of(path: str, body: bytes) -> list[dict[str, Any]]:
        answer = client.post(path, content=body)
        assert answer.status_code == 200, answer.text
        job = client.get(f"/v1/jobs/{answer.headers['x-job-id']}").json()
        attempts: list[dict[str, Any]] = job["attempts"]
        return attempts

    before = started_at()
    yield
    assert len(attempts_of("/v1/mesh", robot())) == 1
    assert len(attempts_of("/v1/splat", splat())) == 1
    assert started_at() == before, "the API process is the same"
    log = live_service.log.read_text(errors="replace")
    assert "unhandled" not in log
    assert "crashed" not in log


@pytest.mark.parametrize("case", AT_THE_DOOR, ids=lambda case: case.name)
def test_refused_at_the_door(client: httpx.Client, case: Case) -> None:
    check_problem(send(client, case), case)
    still_serves(client)


@pytest.mark.parametrize("case", IN_THE_PIPELINE, ids=lambda case: case.name)
def test_refused_by_the_pipeline(client: httpx.Client, case: Case) -> None:
    answer = send(client, case)
    check_problem(answer, case)
    job = client.get(answer.json()["job"]).json()
    assert job["state"] == "failed"
    assert job["error"]["user_fault"] is True
    (attempt,) = job["attempts"]
    assert attempt["outcome"] in ("", "finished"), "no retry, no crash"
    still_serves(client)


def test_bad_ranges(client: httpx.Client) -> None:
    made = client.post("/v1/splat", content=splat())
    url = made.headers["content-location"]
    for text in ("bytes=999999999-", "bytes=5-2", "bytes=-0", "bytes=x-y"):
        answer = client.get(url, headers={"Range": text})
        check_problem(answer, Case("range", 416, text, url))
        assert answer.headers["content-range"] == f"bytes */{len(made.content)}"


def raw(live: Any, request: bytes) -> tuple[int, bytes]:
    """Send bytes no HTTP client would; (status, body) of the answer."""
    port = int(live.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


@pytest.mark.parametrize(
    ("head", "status", "says"),
    [
        (b"Content-Length: 9999999999", 413, b"9999999999"),
        (b"Content-Length: 99999999999999999", 413, b"99999999999999999"),
        (b"X-Long: " + b"x" * 1_000_000, 431, b""),
        (b"Content-Length: -5", 400, b""),
        (b"Content-Length: 5\r\nContent-Length: 6", 400, b""),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5", 400, b""),
    ],
    ids=["oversize", "absurd", "long-head", "negative", "two-lengths", "smuggling"],
)
def test_heads_that_lie(
    live_service: Any, client: httpx.Client, head: bytes, status: int, says: bytes
) -> None:
    request = b"POST /v1/mesh HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n"
    found, body = raw(live_service, request)
    assert found == status, body
    assert says in body
    still_serves(client)


def test_a_client_that_goes_away(live_service: Any, client: httpx.Client) -> None:
    """Mid-upload and mid-wait, ten times each: nothing stays half done."""
    port = int(live_service.url.rsplit(":", 1)[1])
    head = b"POST /v1/mesh HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head % 10_000_000 + PNG_MAGIC + bytes(200_000))
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head % len(robot()) + robot())
            time.sleep(0.05)
    deadline = time.monotonic() + 30
    incoming = live_service.data_dir / "incoming"
    while time.monotonic() < deadline:
        page = client.get("/v1/jobs?limit=200").json()
        busy = [job for job in page["jobs"] if job["finished_at"] is None]
        if not busy and not list(incoming.iterdir()):
            break
        time.sleep(0.1)
    assert not busy
    assert not list(incoming.iterdir())
    still_serves(client)
