"""`meshpress mesh --pipeline trellis`, here and on a service, with tiny random networks."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from service.cli.root import run
from service.client import Client

ROBOT = Path(__file__).parents[1] / "samples" / "robot.png"
SMALL = ["--pipeline", "trellis", "--faces", "2000", "--texture-size", "1024"]


@pytest.fixture
def here(tmp_path: Path, tiny_trellis: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESHPRESS_MODELS_DIR", str(tiny_trellis))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


def count_of(sog: Path) -> int:
    with zipfile.ZipFile(sog) as bundle:
        return int(json.loads(bundle.read("meta.json"))["count"])


def test_a_mesh_and_a_sog_from_one_picture(here, capsys) -> None:
    files = ["-o", "robot.glb", "-o", "robot.sog", "--no-report"]
    assert run(["mesh", str(ROBOT), *SMALL, *files, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["pipeline"] == "trellis"
    assert [Path(file["path"]).name for file in facts["outputs"]] == ["robot.glb", "robot.sog"]
    assert (here / "robot.glb").read_bytes()[:4] == b"glTF"
    assert count_of(here / "robot.sog") == facts["report"]["trellis"]["gaussians"]


def test_auto_makes_splats_with_what_can_and_says_so(here, capsys) -> None:
    assert run(["mesh", str(ROBOT), "-o", "robot.splat.ply"]) == 0
    assert (here / "robot.splat.ply").read_bytes().startswith(b"ply\n")
    assert "Pipeline trellis: Nothing else can do this here" in capsys.readouterr().err


def test_auto_on_a_cpu_is_quick(here, capsys) -> None:
    assert run(["mesh", str(ROBOT), "--resolution", "128", "-o", "robot.glb"]) == 0
    error = capsys.readouterr().err
    assert "Pipeline embedded" in error and "trellis: it has no option resolution" in error


def test_without_weights_the_command_is_named(here, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MESHPRESS_MODELS_DIR", str(here / "none"))
    assert run(["mesh", str(ROBOT), *SMALL, "-o", "robot.sog"]) == 1
    assert "`meshpress models pull trellis-image-large" in capsys.readouterr().err
    assert run(["mesh", str(ROBOT), "-o", "robot.sog"]) == 1
    assert "formats=sog is for trellis or reconviagen" in capsys.readouterr().err
    assert run(["mesh", str(ROBOT), "--mask", "birefnet", "-o", "robot.glb"]) == 1
    assert "with mask=birefnet" in (error := capsys.readouterr().err)
    assert "`meshpress models pull birefnet`" in error


def test_embedded_makes_no_splats(here, capsys) -> None:
    assert run(["mesh", str(ROBOT), "--pipeline", "embedded", "-o", "robot.sog"]) == 2
    assert "one of .glb, .obj" in capsys.readouterr().err


def test_the_same_through_a_service(here: Path, trellis_service: Any) -> None:
    words = ["mesh", str(ROBOT), *SMALL, "--no-report", "--server", trellis_service.url]
    assert run([*words, "-o", "there.sog", "-o", "there.stl"]) == 0
    assert count_of(here / "there.sog") > 0 and (here / "there.stl").stat().st_size > 100_000
    with Client(trellis_service.url) as client:
        job = client.mesh(ROBOT, here / "client.spz", pipeline="trellis", report=False)
        assert [step["pipeline"] for step in job.data["steps"]] == ["trellis", "sog"]
    assert (here / "client.spz").stat().st_size > 1000
