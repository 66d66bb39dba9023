"""A pipeline whose weights are not here: listed as such, refused with the command, used later."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models.weights.catalogue import find_entries
from service.jobs import database
from service.jobs.roster import Roster
from service.pipelines import PIPELINES, find_pipeline

COMMAND = "meshpress models pull trellis-image-large dinov2-large-registers"
WEIGHTS = ("trellis-image-large", "dinov2-large-registers")
PICTURE = b"\x89PNG\r\n\x1a\n" + b"\0" * 24


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHPRESS_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path / "models"


@pytest.fixture
def api(serve: Callable, models_dir: Path):
    """The usual pipelines and one, `weighty`, that needs weights."""
    weighty = replace(find_pipeline("mesh"), name="weighty", weights=WEIGHTS)
    return serve(table=(*PIPELINES, weighty))


def provide(models_dir: Path) -> None:
    """Files of the right names and sizes; those of unknown size hold an empty set of tensors."""
    for entry in find_entries(WEIGHTS):
        for file in entry.files:
            path = models_dir / entry.name / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\x02" + b"\0" * 7 + b"{}")
            if file.size_bytes:
                with path.open("r+b") as sparse:
                    sparse.truncate(file.size_bytes)


def listed(api, name: str) -> dict:
    rows = api.client.get("/v1/pipelines").json()["pipelines"]
    return next(row for row in rows if row["name"] == name)


def test_the_list_says_what_is_missing_and_what_fetches_it(api, models_dir) -> None:
    row = listed(api, "weighty")
    assert row["available"] is False
    assert row["reason"] == (
        f"Weights are not in {models_dir}: trellis-image-large, dinov2-large-registers. "
        f"Run `{COMMAND}`."
    )
    assert listed(api, "embedded")["available"] is True
    assert listed(api, "embedded")["reason"] == ""


@pytest.mark.parametrize("path", ["/v1/mesh", "/v1/jobs/mesh", "/invocations"])
def test_a_request_is_refused_with_the_command(path, api) -> None:
    headers = {"Content-Type": "image/png"}
    params = {"pipeline": "weighty"}
    answer = api.client.post(path, params=params, content=PICTURE, headers=headers)
    assert answer.status_code == 409
    problem = answer.json()
    assert problem["code"] == "pipeline_unavailable"
    assert problem["command"] == COMMAND
    assert f"Run `{COMMAND}` on this machine" in problem["next_step"]
    assert "weighty" in problem["detail"] and "trellis-image-large" in problem["detail"]
    assert "Traceback" not in answer.text
    assert api.queue.jobs == {}


def test_a_form_is_refused_as_well(api) -> None:
    form = {"data": {"pipeline": "weighty"}, "files": {"image": ("a.png", PICTURE)}}
    answer = api.client.post("/v1/jobs/mesh", **form)
    assert answer.status_code == 409 and answer.json()["command"] == COMMAND


def test_a_body_is_not_read_for_a_pipeline_that_cannot_run(api) -> None:
    """The refusal comes while the client still holds its picture back."""
    with api.connect() as connection:
        connection.sendall(
            b"POST /v1/jobs/mesh?pipeline=weighty HTTP/1.1\r\nHost: here\r\n"
            b"Content-Type: image/png\r\nContent-Length: 1000000\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 409 ")


def test_weights_that_arrive_while_the_service_runs_are_used(api, models_dir) -> None:
    assert listed(api, "weighty")["available"] is False
    provide(models_dir)
    assert listed(api, "weighty")["available"] is True
    headers = {"Content-Type": "image/png"}
    params = {"pipeline": "weighty"}
    answer = api.client.post("/v1/jobs/mesh", params=params, content=PICTURE, headers=headers)
    assert answer.status_code == 202
    (models_dir / "dinov2-large-registers" / "model.safetensors").unlink()
    assert "dinov2-large-registers" in listed(api, "weighty")["reason"]
    assert "trellis-image-large" not in listed(api, "weighty")["reason"]


def test_no_pipeline_of_the_table_names_unknown_weights() -> None:
    for entry in PIPELINES:
        assert {found.name for found in find_entries(entry.weights)} >= set(entry.weights)


# -- TRELLIS, which needs packages as well as weights ---------------------------------------------


def refusal(api, **params: str):
    params = {"pipeline": "trellis"} | params
    headers = {"Content-Type": "image/png"}
    before = len(api.queue.jobs)
    answer = api.client.post("/v1/jobs/mesh", params=params, content=PICTURE, headers=headers)
    assert answer.status_code == 409 and len(api.queue.jobs) == before
    return answer.json()


def test_trellis_without_weights_names_the_command(api) -> None:
    assert refusal(api)["command"] == COMMAND
    assert refusal(api, formats="sog")["command"] == COMMAND
    assert COMMAND in listed(api, "trellis")["commands"]


def test_trellis_without_torch_names_the_command(api, models_dir, monkeypatch) -> None:
    provide(models_dir)
    assert listed(api, "trellis")["available"] is True
    monkeypatch.setitem(sys.modules, "torch", None)  # as find_spec sees it: not there
    problem = refusal(api)
    assert problem["command"] == 'pip install "meshpress[torch]"'
    assert "torch is not installed" in problem["detail"]
    row = listed(api, "trellis")
    assert row["available"] is False and "torch is not installed" in row["reason"]
    assert api.client.post("/v1/jobs/mesh", content=PICTURE).status_code == 202


def test_a_sog_is_refused_by_who_makes_none_and_by_auto_without_weights(api) -> None:
    params = {"pipeline": "embedded", "formats": "sog"}
    answer = api.client.post("/v1/jobs/mesh", params=params, content=PICTURE)
    assert answer.status_code == 422
    assert "embedded makes none; pipeline=trellis" in answer.json()["detail"]
    answer = api.client.post("/v1/jobs/mesh", params={"formats": "sog"}, content=PICTURE)
    assert answer.status_code == 409
    assert "formats=sog is for trellis or reconviagen" in answer.json()["detail"]


# -- options that need something of their own ------------------------------------------------------


@pytest.mark.parametrize("pipeline", ["embedded", "auto"])
@pytest.mark.parametrize("path", ["/v1/mesh", "/v1/jobs/mesh", "/invocations"])
def test_a_mask_by_a_network_that_is_not_here_is_refused_before_it_is_queued(
    path, pipeline, api
) -> None:
    params = {"pipeline": pipeline, "mask": "birefnet"}
    headers = {"Content-Type": "image/png"}
    answer = api.client.post(path, params=params, content=PICTURE, headers=headers)
    assert answer.status_code == 409 and api.queue.jobs == {}
    problem = answer.json()
    assert "'embedded' cannot run here with mask=birefnet. Weights" in problem["detail"]
    assert problem["command"] == "meshpress models pull birefnet"
    assert problem["next_step"].endswith("Or choose another mask.")


def test_what_an_option_needs_is_asked_of_those_who_give_it(api, models_dir, monkeypatch) -> None:
    provide(models_dir)
    assert listed(api, "trellis")["available"] is True  # the list asks for no option
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    problem = refusal(api, compression="draco", mask="classic")
    assert problem["command"] == 'pip install "meshpress[draco]"'
    assert "with compression=draco. DracoPy is not installed" in problem["detail"]
    both = refusal(api, compression="draco", mask="birefnet")
    assert both["command"] == 'pip install "meshpress[draco]" && meshpress models pull birefnet'
    assert "with mask=birefnet and compression=draco." in both["detail"]
    monkeypatch.delitem(sys.modules, "DracoPy")
    params = {"pipeline": "trellis", "compression": "draco"}
    answer = api.client.post("/v1/jobs/mesh", params=params, content=PICTURE)
    assert answer.status_code == 202
    problem = refusal(api, compression="draco", mask="birefnet")
    assert "with mask=birefnet. Weights" in problem["detail"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"steps": "0"}, "allowed: a whole number from 1 to 100"),
        ({"guidance": "much"}, "allowed: a number from 0 to 20"),
        ({"azimuth": "90"}, "unknown option"),
        ({"preset": "small"}, "only for splats; add one of sog"),
        ({"formats": "glb,usdz"}, "each one of glb, obj, ply, stl, splat, sog"),
        ({"formats": "sog", "target_psnr": "40", "target_bytes": "9"}, "exclude each other"),
    ],
)
def test_options_that_cannot_be_are_explained(option, words, api) -> None:
    params = {"pipeline": "trellis"} | option
    answer = api.client.post("/v1/jobs/mesh", params=params, content=PICTURE)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


@pytest.fixture
def gpu_api(serve: Callable, models_dir: Path):
    """An API whose one worker says that it has a GPU of 24 GiB."""
    api = serve(real_queue=True)
    engine = database.create_engine(api.settings.effective_queue_url)
    roster = Roster(engine)
    roster.register("w:cuda:0", 24 << 30)
    roster.heartbeat("w:cuda:0", "cuda:0", 1, "idle")
    engine.dispose()
    return api


def test_auto_follows_what_is_here_and_a_key_keeps_what_was_taken(gpu_api, models_dir) -> None:
    """Weights arrive between a request and its repetition: it is still the same request."""

    def send(key: str) -> dict:
        headers = {"Idempotency-Key": key, "Content-Type": "image/png"}
        answer = gpu_api.client.post("/v1/jobs/mesh", content=PICTURE, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json()

    first = send("once")
    assert first["steps"][0]["pipeline"] == "embedded"
    assert "not in" in first["steps"][0]["choice"]["passed_over"]["trellis"]
    provide(models_dir)
    assert send("twice")["steps"][0]["pipeline"] == "trellis"
    assert listed(gpu_api, "trellis")["default"] is True
    again = send("once")
    assert again["id"] == first["id"] and again["steps"] == first["steps"]
