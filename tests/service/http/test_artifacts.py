"""Result files over HTTP, against plain slices of the bytes they should be."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from service.jobs.states import JobState

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
CONTENT = bytes(range(256)) * 9000 + b"end"  # 2.3 MB: several chunks


@pytest.fixture(scope="module")
def job_id(api: Any) -> str:
    """A job that has succeeded with CONTENT and a second file."""
    created: str = api.client.post("/v1/jobs/mesh", content=PNG).json()["id"]
    api.queue.succeed(
        created,
        ("mesh.glb", "model/gltf-binary", CONTENT),
        ('we "ird"/näme.bin', "application/octet-stream", b"x"),
    )
    return created


@pytest.fixture
def path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/artifacts/mesh.glb"


def test_the_whole_file_with_its_headers(api: Any, path: str) -> None:
    answer = api.client.get(path)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == "model/gltf-binary"
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert "immutable" in answer.headers["cache-control"]
    assert 3000 < int(answer.headers["cache-control"].split("max-age=")[1].split(",")[0]) <= 3600
    assert answer.headers["content-disposition"] == 'attachment; filename="mesh.glb"'
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_list_leads_to_every_file(api: Any, job_id: str) -> None:
    listed = api.client.get(f"/v1/jobs/{job_id}/artifacts").json()["artifacts"]
    assert [file["name"] for file in listed] == ["mesh.glb", 'we "ird"/näme.bin']
    assert api.client.get(listed[0]["url"]).content == CONTENT


def test_a_name_cannot_break_the_header(api: Any) -> None:
    from service.http.filenames import attachment

    header = attachment('we"ird\r\nname;ä.bin')
    assert "\r" not in header
    assert header.startswith('attachment; filename="we_ird__name__.bin"')
    assert header.endswith("filename*=UTF-8''we%22ird%0D%0Aname%3B%C3%A4.bin")


def test_head_has_the_headers_and_no_body(api: Any, path: str) -> None:
    answer = api.client.head(path)
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["etag"] == api.client.get(path).headers["etag"]
    assert answer.content == b""


def test_ranges_are_slices(api: Any, path: str, rng: np.random.Generator) -> None:
    size = len(CONTENT)
    cases = [("0-0", 0, 1), ("5-", 5, size), ("-7", size - 7, size), (f"-{size + 9}", 0, size)]
    cases += [(f"{size - 1}-{size + 100}", size - 1, size), ("0-" + "9" * 30, 0, size)]
    for start in rng.integers(0, size, 20):
        end = int(rng.integers(start, size))
        cases.append((f"{start}-{end}", int(start), end + 1))
    for text, start, end in cases:
        answer = api.client.get(path, headers={"Range": f"bytes={text}"})
        assert answer.status_code == 206, text
        assert answer.content == CONTENT[start:end], text
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "text", ["bytes=9-5", "bytes=-0", "bytes=abc", "bytes=", "bytes=-", "bytes=99999999-", "bytes"]
)
def test_a_bad_range_is_416_with_the_size(api: Any, path: str, text: str) -> None:
    answer = api.client.get(path, headers={"Range": text})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"
    assert text in answer.json()["detail"]


@pytest.mark.parametrize("text", ["bytes=0-1,5-6", "lines=1-2"])
def test_what_rfc_9110_lets_us_ignore_gives_the_whole_file(api: Any, path: str, text: str) -> None:
    answer = api.client.get(path, headers={"Range": text})
    assert (answer.status_code, len(answer.content)) == (200, len(CONTENT))


def test_conditional_requests(api: Any, path: str) -> None:
    etag = api.client.get(path).headers["etag"]

    def get(**headers: str) -> Any:
        return api.client.get(path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    assert get(If_None_Match=etag).status_code == 304
    assert get(If_None_Match=f'"other", W/{etag}').status_code == 304
    assert get(If_None_Match="*").status_code == 304
    assert get(If_None_Match='"other"').status_code == 200
    assert get(Range="bytes=0-3", If_Range=etag).status_code == 206
    assert get(Range="bytes=0-3", If_Range='"other"').status_code == 200
    assert get(Range="bytes=0-3", If_Range="Wed, 21 Oct 2026 07:28:00 GMT").status_code == 200
    assert get(If_None_Match=etag).content == b""


def test_an_interrupted_download_resumes(api: Any, path: str) -> None:
    with api.client.stream("GET", path) as answer:
        begun = next(answer.iter_raw(100_000))
        etag = answer.headers["etag"]
    rest = api.client.get(path, headers={"Range": f"bytes={len(begun)}-", "If-Range": etag})
    assert begun + rest.content == CONTENT


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        (JobState.QUEUED, 409, "job_not_finished"),
        (JobState.RUNNING, 409, "job_not_finished"),
        (JobState.FAILED, 409, "job_without_artifacts"),
        (JobState.CANCELLED, 409, "job_without_artifacts"),
        (JobState.EXPIRED, 410, "result_expired"),
    ],
)
def test_a_job_without_a_result_says_its_state(
    api: Any, state: JobState, status: int, code: str
) -> None:
    created = api.client.post("/v1/jobs/mesh", content=PNG).json()["id"]
    api.queue.become(created, state=state)
    for url in (f"/v1/jobs/{created}/artifacts/mesh.glb", f"/v1/jobs/{created}/artifacts"):
        answer = api.client.get(url)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        if status == 409:
            assert answer.json()["state"] == state
            assert state in answer.json()["detail"]


def test_bytes_that_went_before_the_row_are_410(api: Any) -> None:
    created = api.client.post("/v1/jobs/mesh", content=PNG).json()["id"]
    job = api.queue.succeed(created, ("mesh.glb", "model/gltf-binary", b"short-lived"))
    api.queue.become(created, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    api.store.delete(job.artifacts[0].sha256)
    answer = api.client.get(f"/v1/jobs/{created}/artifacts/mesh.glb")
    assert answer.status_code == 410
    assert answer.json()["code"] == "result_expired"


def test_an_unknown_name_lists_the_known(api: Any, job_id: str) -> None:
    answer = api.client.get(f"/v1/jobs/{job_id}/artifacts/mesh.fbx")
    assert answer.status_code == 404
    assert "mesh.fbx" in answer.json()["detail"]
    assert "mesh.glb" in answer.json()["next_step"]
