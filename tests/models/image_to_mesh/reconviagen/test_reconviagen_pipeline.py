"""The whole pipeline on the CPU, with tiny random networks loaded from a release on disk."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from safetensors.torch import load_file, save_file

from models.context import (
    Cancelled,
    InputFile,
    InvalidInput,
    LocalContext,
    PipelineResult,
    Unavailable,
)
from models.image_to_mesh.options import ReconViaGenOptions
from models.image_to_mesh.reconviagen.checkpoint import read_vggt_config
from models.image_to_mesh.reconviagen.pipeline import ReconViaGenPipeline, load
from models.image_to_mesh.reconviagen.vggt.network import VGGT_1B
from models.image_to_mesh.trellis.release import ReleaseUnfit
from models.nn.dinov2 import DinoV2Config
from models.splat_to_sog.readers import read
from tests.models.image_to_mesh.reconviagen.conftest import load_from

Run = Callable[..., PipelineResult]
FEW = {"steps": 2, "faces": 500, "texture_size": 1024, "normal_map": False}


@pytest.fixture
def disc(drawn: Callable[..., np.ndarray], save: Callable[..., InputFile]) -> InputFile:
    return save(drawn(lambda x, y: x**2 + y**2 < 0.5), "disc.png")


@pytest.fixture
def bar(drawn: Callable[..., np.ndarray], save: Callable[..., InputFile]) -> InputFile:
    return save(drawn(lambda x, y: (abs(x) < 0.8) & (abs(y) < 0.2)), "bar.png")


@pytest.fixture
def run(loaded: ReconViaGenPipeline, tmp_path: Path) -> Run:
    def call(files: list[InputFile], **options: object) -> PipelineResult:
        workdir = tmp_path / "work"
        workdir.mkdir(exist_ok=True)
        return loaded(LocalContext(workdir), files, ReconViaGenOptions(**(FEW | options)))

    return call


def splat_of(run: Run, files: list[InputFile], **options: object) -> bytes:
    """The cheapest trace of what the networks made."""
    return run(files, formats=("splat",), **options).artifacts[0].path.read_bytes()


# -- results -------------------------------------------------------------------------------------


def test_two_views_to_mesh_and_splat(run: Run, disc: InputFile, bar: InputFile) -> None:
    result = run([disc, bar], formats=("glb", "splat"))
    assert [a.name for a in result.artifacts] == ["mesh.glb", "scene.splat.ply"]
    report = result.report
    assert report["pipeline"] == "reconviagen"
    assert report["voxels"] > 0
    glb = result.artifacts[0].path.read_bytes()
    mesh = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh", process=False)
    assert len(mesh.faces) == report["mesh"]["faces"] > 0
    # A random field's outermost crumbs are taken off, and what is left is simplified.
    assert 0.8 < np.ptp(mesh.vertices, axis=0).max() <= 1.02
    splats = read(result.artifacts[1].path, "scene.splat.ply")
    assert len(splats.means) == report["gaussians"] == 4 * report["voxels"]
    assert not any("imagined" in warning for warning in report["warnings"])


def test_one_view_says_that_the_rest_is_imagined(run: Run, disc: InputFile) -> None:
    report = run([disc], formats=("splat",)).report
    assert any("imagined" in warning for warning in report["warnings"])
    assert len(report["views"]) == 1


@pytest.mark.node
def test_the_glb_has_no_faults(run: Run, disc: InputFile, validate: Callable[[Path], dict]) -> None:
    issues = validate(run([disc], normal_map=True).artifacts[0].path)
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues["messages"]


@pytest.mark.parametrize("kind", ["obj", "ply", "stl"])
def test_every_other_mesh_format(run: Run, disc: InputFile, kind: str) -> None:
    (artifact,) = run([disc], formats=(kind,)).artifacts
    assert artifact.name.startswith(f"mesh.{kind}") and artifact.path.stat().st_size > 0


def test_cameras_are_told_in_pixels_of_the_photo(
    run: Run,
    loaded: ReconViaGenPipeline,
    disc: InputFile,
    bar: InputFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bias = loaded.generator.networks.vggt.camera_head.pose_branch.fc2.bias
    seeing = torch.tensor([0.0] * 7 + [2.0] * 2)  # random weights may see nothing at all
    monkeypatch.setattr(bias, "data", bias.data + seeing)
    report = run([disc, bar], formats=("splat",)).report
    assert "first image's camera" in report["cameras"]
    for view in report["views"]:
        turn = np.array(view["camera"]["world_to_camera"])
        np.testing.assert_allclose(turn[:, :3] @ turn[:, :3].T, np.eye(3), atol=1e-5)
        centre = np.array(view["camera"]["intrinsics_px"])[:2, 2]
        np.testing.assert_allclose(centre, np.array(view["size_px"]) / 2, atol=1.5)  # drawn there
    json.dumps(report)


def test_same_seed_same_bytes_another_seed_another_object(run: Run, disc: InputFile) -> None:
    first = splat_of(run, [disc], seed=7)
    assert splat_of(run, [disc], seed=7) == first
    assert splat_of(run, [disc], seed=8) != first


def test_every_view_counts(run: Run, disc: InputFile, bar: InputFile) -> None:
    alone = splat_of(run, [disc])
    assert splat_of(run, [disc, bar]) != alone
    assert splat_of(run, [bar, disc]) != splat_of(run, [disc, bar])  # the first sets the world


@pytest.mark.parametrize(
    ("options", "structure", "latent"),
    [
        ({"steps": None}, (30, 7.5), (12, 7.5)),
        ({"steps": 3, "guidance": 4.0}, (3, 4.0), (3, 4.0)),
        ({"structure_steps": 1, "latent_guidance": 0.5}, (1, 7.5), (2, 1.0)),
    ],
)
def test_samplers_are_the_authors_where_options_say_nothing(
    run: Run, disc: InputFile, options: dict, structure: tuple, latent: tuple
) -> None:
    samplers = run([disc], formats=("splat",), **options).report["samplers"]
    assert samplers == {
        "structure": {"steps": structure[0], "guidance": structure[1]},
        "latent": {"steps": latent[0], "guidance": latent[1]},
    }


# -- refusals and stops --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 17])
def test_wrong_number_of_images(run: Run, disc: InputFile, count: int) -> None:
    with pytest.raises(InvalidInput, match=f"{count} images were given; 1 to 16") as error:
        run([disc] * count)
    assert error.value.code == "image_count"


def test_image_without_an_object(run: Run, save: Callable[..., InputFile]) -> None:
    with pytest.raises(InvalidInput):
        run([save(np.zeros((64, 64, 4), np.uint8), "nothing.png")])


@pytest.mark.parametrize(
    ("stage", "reports"),
    [
        ("look", 1),  # after VGGT's first layer
        ("structure", 2),
        ("latent", 1),
    ],
)
def test_cancelling_ends_within_a_step(
    loaded: ReconViaGenPipeline, disc: InputFile, tmp_path: Path, stage: str, reports: int
) -> None:
    seen: list[tuple[str, float, str]] = []

    def of_stage() -> int:
        return sum(name == stage for name, _, _ in seen)

    context = LocalContext(
        tmp_path,
        on_progress=lambda *what: seen.append(what),
        is_cancelled=lambda: of_stage() > reports,
    )
    with pytest.raises(Cancelled):
        loaded(context, [disc], ReconViaGenOptions(**(FEW | {"steps": 4})))
    assert of_stage() == reports + 1
    assert seen[-1][0] == stage
    fractions = [fraction for _, fraction, _ in seen]
    assert fractions == sorted(fractions)


# -- loading -------------------------------------------------------------------------------------


def test_without_weights_the_command_to_run_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MESHPRESS_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(Unavailable) as missing:
        load("cpu")
    assert "meshpress models pull reconviagen-v0-2 --accept-licence" in missing.value.next_step


@pytest.fixture
def broken(models_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(models_folder, tmp_path / "models"))


def test_missing_and_unknown_tensors_of_vggt_are_named(broken: Path) -> None:
    path = broken / "vggt-object-v0-1/model.safetensors"
    state = load_file(path)
    del state["camera_head.trunk_norm.bias"]
    path.unlink()
    save_file({**state, "normal_head.weight": torch.zeros(1)}, path)
    with pytest.raises(Unavailable) as error:
        load_from(broken)
    assert "1 missing (camera_head.trunk_norm.bias)" in error.value.message
    assert "1 unexpected (normal_head.weight)" in error.value.message


def test_vggt_is_as_wide_as_its_configuration_says(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"embed_dim": 64}')
    config = read_vggt_config(path)
    assert config == replace(VGGT_1B, embed_dim=64, vision=replace(DinoV2Config(), embed_dim=64))
    path.write_text('["embed_dim"]')
    with pytest.raises(ReleaseUnfit, match="does not describe VGGT"):
        read_vggt_config(path)


def test_release_without_a_condition_network_is_refused(broken: Path) -> None:
    path = broken / "reconviagen-v0-2/pipeline.json"
    content = json.loads(path.read_text())
    del content["args"]["models"]["slat_vggt_cond"]
    path.write_text(json.dumps(content))
    with pytest.raises(ReleaseUnfit, match="no entry 'slat_vggt_cond'"):
        load_from(broken)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_rope": True}, "use_rope is True; only False is known"),
        ({"surprise": 1}, "an argument 'surprise'"),
    ],
)
def test_what_the_condition_network_does_not_do_is_refused(
    broken: Path, change: dict, words: str
) -> None:
    path = broken / "reconviagen-v0-2/ckpts/ss_vggt_cond.json"
    content = json.loads(path.read_text())
    content["args"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(ReleaseUnfit, match=words):
        load_from(broken)
