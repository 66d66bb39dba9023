"""Splat jobs over HTTP: files merged, formats, list options, the report in the job."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import Splats
from service.http.negotiation import format_of
from service.pipelines import find_pipeline

FORMATS = [format_of(name) for name in find_pipeline("splat").artifacts]
BOX = "-3,-3,-3,3,3,3"
BOXED = "6 values, each a number from -1e+30 to 1e+30"


@pytest.fixture(scope="module")
def client(live_service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_service.url, timeout=120) as connected:
        yield connected


@pytest.fixture
def scene(tmp_path: Path) -> Callable[[bytes], Splats]:
    """The splats in a file's bytes."""

    def parse(content: bytes) -> Splats:
        path = tmp_path / "scene"
        path.write_bytes(content)
        return read(path, "scene")

    return parse


def old_splat(count: int) -> bytes:
    """An antimatter15 .splat, which has no signature: 32 bytes a splat."""
    place = bytes.fromhex("0000803f") * 6  # position and size 1, 1, 1
    return (place + bytes([200, 100, 50, 255, 255, 128, 128, 128])) * count


# -- formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_comes_back_under_its_name_and_type(client, splat_ply, scene, form) -> None:
    (name,) = (name for name in find_pipeline("splat").artifacts if format_of(name) == form)
    answer = client.post(f"/v1/splat?formats={form}&report=false", content=splat_ply(200))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    kinds = {"ply": "application/ply", "compressed": "application/ply"}
    kinds |= {"spz": "application/octet-stream"}
    assert answer.headers["content-type"] == kinds.get(form, "application/zip")
    assert len(scene(answer.content)) == 200


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("*/*", "scene.sog"),
        ("application/zip", "scene.sog"),
        ("application/octet-stream", "scene.sog"),
        ("application/ply", "scene.ply"),
        ("application/zip;q=0.1, application/ply", "scene.ply"),
    ],
)
def test_accept_chooses_the_format(client, splat_ply, accept: str, name: str) -> None:
    answer = client.post(
        "/v1/splat?report=false", content=splat_ply(50), headers={"Accept": accept}
    )
    assert answer.status_code == 200, answer.text
    assert f'filename="{name}"' in answer.headers["content-disposition"]


def test_a_picture_is_never_the_result(client, splat_ply) -> None:
    """The preview is there, beside the scene; who accepts pictures only gets no scene."""
    refused = client.post("/v1/splat", content=splat_ply(9), headers={"Accept": "image/webp"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")
    answer = client.post("/v1/splat", content=splat_ply(50), headers={"Accept": "*/*"})
    assert answer.content[:2] == b"PK"
    assert 'preview.webp>; rel="alternate"; type="image/webp"' in answer.headers["link"]


def test_several_formats_are_artifacts_of_one_job(client, splat_ply, scene) -> None:
    answer = client.post(
        "/v1/jobs/splat?formats=spz,ply&formats=sog&report=false",
        content=splat_ply(60),
        headers={"Prefer": "wait=60"},
    )
    job = answer.json()
    assert (answer.status_code, job["state"]) == (200, "succeeded")
    assert [file["name"] for file in job["artifacts"]] == ["scene.spz", "scene.ply", "scene.sog"]
    for file in job["artifacts"]:
        content = client.get(f"/v1/jobs/{job['id']}/artifacts/{file['name']}").content
        assert len(scene(content)) == 60


def test_invocations_take_options_from_their_header(client, splat_ply) -> None:
    header = f"task=splat;formats=spz;report=false;box={BOX}"
    answer = client.post(
        "/invocations",
        content=splat_ply(200),
        headers={
            "Content-Type": "application/octet-stream",
            "X-Amzn-SageMaker-Custom-Attributes": header,
        },
    )
    assert answer.status_code == 200, answer.text
    assert answer.content[:2] == b"\x1f\x8b"
    assert 'filename="scene.spz"' in answer.headers["content-disposition"]


# -- inputs ----------------------------------------------------------------------------------


def test_the_files_of_a_form_become_one_scene(client, splat_ply, scene) -> None:
    files = [
        ("a", ("a.ply", splat_ply(100, degree=1))),
        ("b", ("b.splat", old_splat(40))),
        ("c", ("c.ply", splat_ply(30, seed=2), "application/octet-stream")),
    ]
    answer = client.post("/v1/splat?formats=ply", files=files, data={"report": "false"})
    assert answer.status_code == 200, answer.text
    merged = scene(answer.content)
    assert (len(merged), merged.degree) == (170, 1)
    job = client.get(answer.headers["link"].partition(">")[0].lstrip("<")).json()
    assert [file["name"] for file in job["inputs"]] == ["a.ply", "b.splat", "c.ply"]
    assert job["report"]["splats_in"] == job["report"]["splats_out"] == 170


def test_a_splat_file_goes_by_its_name(client, scene) -> None:
    content = old_splat(12)
    refused = client.post("/v1/splat", content=content)
    assert (refused.status_code, refused.json()["code"]) == (422, "wrong_file_type")
    assert "X-Filename" in refused.json()["next_step"]
    named = client.post(
        "/v1/splat?report=false&formats=ply", content=content, headers={"X-Filename": "x.splat"}
    )
    assert named.status_code == 200, named.text
    assert len(scene(named.content)) == 12


def test_a_header_line_that_ends_in_a_space_is_still_a_ply(client, splat_ply, scene) -> None:
    content = splat_ply(12).replace(b"ply\n", b"ply \n", 1)
    answer = client.post("/v1/splat?report=false&formats=ply", content=content)
    assert answer.status_code == 200, answer.text
    assert len(scene(answer.content)) == 12


def test_a_streamed_scene_gives_the_level_asked_for(client, splat_ply, scene) -> None:
    made = client.post(
        "/v1/splat?report=false&formats=lod&lod_levels=3", content=splat_ply(400)
    ).content
    assert "lod-meta.json" in zipfile.ZipFile(io.BytesIO(made)).namelist()
    coarse = client.post("/v1/splat?report=false&formats=ply&level=2", content=made)
    assert len(scene(coarse.content)) == 100
    refused = client.post("/v1/splat?level=3", content=made)
    assert refused.status_code == 422
    assert "there are 0 (finest) to 2" in refused.json()["detail"]


# -- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("repeated", [False, True], ids=["commas", "repeated"])
def test_a_list_option_in_the_query(client, splat_ply, scene, repeated: bool) -> None:
    box = "&".join(f"box={value}" for value in BOX.split(",")) if repeated else f"box={BOX}"
    content = splat_ply(200)
    answer = client.post(f"/v1/splat?report=false&formats=ply&{box}", content=content)
    assert answer.status_code == 200, answer.text
    whole, inside = scene(content), scene(answer.content)
    assert 0 < len(inside) == int((abs(whole.means) <= 3).all(axis=1).sum()) < 200


@pytest.mark.parametrize(
    ("query", "faults"),
    [
        ("box=0,0,0,1", {"box": BOXED}),
        ("box=a,0,0,1,1,1", {"box.0": BOXED}),
        ("box=1,0,0,0,1,1", {"box": BOXED}),
        ("scale=0", {"scale": "a number above 0, at most 1000000.0"}),
        ("min_size=0", {"min_size": "a number above 0"}),
        ("keep=0", {"keep": "a whole number of at least 1"}),
        (
            "keep=5&keep_fraction=0.5",
            {
                "keep": "a whole number of at least 1",
                "keep_fraction": "a number above 0, at most 1",
            },
        ),
        (
            "target_bytes=90000&formats=lod",
            {
                "formats": "a list, each one of " + ", ".join(FORMATS),
                "target_bytes": "a whole number of at least 1",
            },
        ),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(client, splat_ply, query, faults) -> None:
    answer = client.post(f"/v1/jobs/splat?{query}", content=splat_ply(9))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_options")
    assert {fault["field"]: fault["allowed"] for fault in problem["errors"]} == faults
    assert "Value error" not in answer.text and "allowed: ." not in answer.text


def test_an_option_that_leaves_nothing_is_the_users_fault(client, splat_ply) -> None:
    answer = client.post("/v1/splat?box=90,90,90,91,91,91", content=splat_ply(9))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "splat_empty")
    assert problem["detail"] == "box: it leaves none of the 9 splats."


# -- report ----------------------------------------------------------------------------------


def test_the_job_carries_the_report_and_a_preview(client, splat_ply) -> None:
    answer = client.post(
        "/v1/jobs/splat", content=splat_ply(150, degree=1), headers={"Prefer": "wait=100"}
    )
    job = answer.json()
    assert job["state"] == "succeeded", job
    assert [file["name"] for file in job["artifacts"]] == ["scene.sog", "preview.webp"]
    assert job["artifacts"][1]["media_type"] == "image/webp"
    report = job["report"]
    assert report["quality"]["psnr_db"] > 35
    assert set(report["quality"]["attributes"]) >= {"position", "colour", "harmonics"}
    assert report["bytes_out"] == job["artifacts"][0]["size_bytes"]
    assert json.dumps(report, allow_nan=False)
    preview = client.get(f"/v1/jobs/{job['id']}/artifacts/preview.webp")
    assert preview.headers["content-type"] == "image/webp"
    assert preview.content[8:12] == b"WEBP"


def test_a_running_job_is_cancelled(client, splat_ply) -> None:
    """Merging 60,000 splats down to one takes many rounds; between two the job stops."""
    job = client.post(
        "/v1/jobs/splat?keep=1&report=false&formats=ply", content=splat_ply(60_000)
    ).json()
    url = f"/v1/jobs/{job['id']}"
    while client.get(url).json()["progress"]["stage"] != "edit":
        time.sleep(0.02)
    assert client.delete(url).status_code == 202
    while (ended := client.get(url).json())["state"] == "cancelling":
        time.sleep(0.02)
    assert (ended["state"], ended["artifacts"]) == ("cancelled", [])
