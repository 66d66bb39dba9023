"""The whole pipeline on the CPU, with tiny networks loaded from a release on disk."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from models.context import (
    Cancelled,
    InputFile,
    InvalidInput,
    LocalContext,
    PipelineError,
    PipelineResult,
    Unavailable,
)
from models.image_to_mesh.direct3d_s2 import pipeline
from models.image_to_mesh.direct3d_s2.generator import Generator
from models.image_to_mesh.direct3d_s2.pipeline import Direct3DS2Pipeline, load, load_v1_0
from models.image_to_mesh.direct3d_s2.release import RELEASES
from models.image_to_mesh.direct3d_s2.surface import cells_of
from models.image_to_mesh.options import Direct3DS2Options
from models.nn.residency import Residency

Run = Callable[..., PipelineResult]


@pytest.fixture
def run(egg_generators: dict[str, Generator], oval: InputFile, tmp_path: Path) -> Run:
    def call(version: str = "1.1", **options: object) -> PipelineResult:
        workdir = tmp_path / "work"
        workdir.mkdir(exist_ok=True)
        asked = Direct3DS2Options(faces=500, texture_size=1024, **options)
        return Direct3DS2Pipeline(egg_generators[version])(LocalContext(workdir), [oval], asked)

    return call


@pytest.mark.parametrize(
    ("version", "resolution"), [("1.1", 512), ("1.1", 1024), ("1.0", 1024)], ids=str
)
def test_image_to_mesh(run: Run, version: str, resolution: int) -> None:
    result = run(version, resolution=resolution)
    report = result.report
    json.dumps(report)
    glb = result.artifacts[0].path.read_bytes()
    mesh = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh", process=False)
    assert np.ptp(mesh.vertices, axis=0).max() == pytest.approx(1, abs=0.03)  # 500 faces
    assert len(mesh.faces) == report["mesh"]["faces"] <= 520
    assert report["mesh"]["watertight"]
    assert report["release"] == version
    fine = resolution == 1024
    assert ("tokens_1024" in report) == ("sparse_1024" in report["samplers"]) == fine
    assert report["views"][0]["camera"]["azimuth"] == 0
    assert report["views"][0]["agreement"] > 0.9
    # Of an egg one sees a little less than half, and of that a rim at a slant.
    assert 0.25 < report["views"][0]["seen_share"] < 0.5
    assert any("blend" in warning for warning in report["warnings"])


@pytest.mark.node
def test_the_validator_finds_no_fault(run: Run, validate: Callable[[Path], dict]) -> None:
    issues = validate(run(resolution=512).artifacts[0].path)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def test_same_seed_same_bytes(run: Run) -> None:
    first = run(resolution=512, seed=7).artifacts[0].path.read_bytes()
    assert run(resolution=512, seed=7).artifacts[0].path.read_bytes() == first


def test_options_override_the_release(run: Run) -> None:
    report = run(resolution=1024, steps=1, dense_steps=2, guidance=0.0).report
    assert report["samplers"] == {
        "dense": {"steps": 2, "guidance": 0.0},
        "sparse_512": {"steps": 1, "guidance": 0.0},
        "sparse_1024": {"steps": 1, "guidance": 0.0},
    }


@pytest.mark.parametrize("stage", ["coarse", "latent_512", "latent_1024"])
def test_cancelling_between_two_steps(
    egg_generators: dict[str, Generator], oval: InputFile, tmp_path: Path, stage: str
) -> None:
    seen: list[tuple[str, float, str]] = []
    context = LocalContext(
        tmp_path,
        on_progress=lambda *what: seen.append(what),
        is_cancelled=lambda: any((name, text[:2]) == (stage, "1/") for name, _, text in seen),
    )
    with pytest.raises(Cancelled):
        Direct3DS2Pipeline(egg_generators["1.1"])(context, [oval], Direct3DS2Options())
    assert [text[:2] for name, _, text in seen if name == stage] == ["", "1/"]
    assert seen[-1][0] == stage
    fractions = [fraction for _, fraction, _ in seen]
    assert fractions == sorted(fractions)


def test_cancelling_while_cells_are_found(
    egg_generators: dict[str, Generator],
    oval: InputFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Voxelising takes seconds, and tells nobody how far it is: it still asks between its parts."""
    seen: list[str] = []
    found: list[object] = []
    monkeypatch.setattr(pipeline, "cells_of", lambda *given: found.append(cells_of(*given)))
    context = LocalContext(
        tmp_path,
        on_progress=lambda name, *_: seen.append(name),
        is_cancelled=lambda: seen[-1:] == ["cells_1024"],
    )
    with pytest.raises(Cancelled):
        Direct3DS2Pipeline(egg_generators["1.1"])(context, [oval], Direct3DS2Options())
    assert seen[-1] == "cells_1024"
    assert not found


def test_failure_leaves_no_tensor_in_the_error(
    egg_generators: dict[str, Generator], oval: InputFile, tmp_path: Path
) -> None:
    """Frames of an error that somebody keeps, a log for instance, hold nothing any more."""
    context = LocalContext(tmp_path, is_cancelled=lambda: True)
    with pytest.raises(Cancelled) as caught:
        Direct3DS2Pipeline(egg_generators["1.1"])(context, [oval], Direct3DS2Options())
    frames = [frame.tb_frame for frame in _frames(caught.value)]
    assert not any(frame.f_locals for frame in frames if frame.f_code.co_name == "_run")


def _frames(error: BaseException) -> list:
    frames, here = [], error.__traceback__
    while here is not None:
        frames.append(here)
        here = here.tb_next
    return frames


def test_a_single_image_is_taken(
    egg_generators: dict[str, Generator], oval: InputFile, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="2 images were given"):
        Direct3DS2Pipeline(egg_generators["1.1"])(
            LocalContext(tmp_path), [oval, oval], Direct3DS2Options()
        )


def test_no_surface_is_said(
    egg_generators: dict[str, Generator], oval: InputFile, tmp_path: Path
) -> None:
    class Nowhere(torch.nn.Module):
        def forward(self, latent: torch.Tensor) -> torch.Tensor:
            return torch.full((1, 1, 4, 4, 4), -9.0)

    generator = egg_generators["1.1"]
    empty = replace(generator, networks=replace(generator.networks, dense_vae=Nowhere()))
    with pytest.raises(PipelineError) as caught:
        Direct3DS2Pipeline(empty)(LocalContext(tmp_path), [oval], Direct3DS2Options())
    assert caught.value.code == "structure_empty"


@pytest.mark.parametrize(("loader", "version"), [(load, "1.1"), (load_v1_0, "1.0")])
def test_without_weights_the_command_to_run_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loader: Callable[..., object], version: str
) -> None:
    monkeypatch.setenv("MESHPRESS_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(Unavailable) as missing:
        loader("cpu")
    assert f"meshpress models pull {RELEASES[version].entry}" in missing.value.next_step


def test_what_the_allocator_kept_is_given_back_after_each_turn(
    egg_generators: dict[str, Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: order.append("given back"))
    with replace(egg_generators["1.1"], residency=Residency("cuda")).turn():
        order.append("work")
    with egg_generators["1.1"].turn():
        order.append("work of a CPU")
    assert order == ["work", "given back", "work of a CPU"]
