"""The whole pipeline on the CPU, with tiny random networks loaded from a release on disk."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from safetensors.torch import load_file, save_file

from models.context import Cancelled, InputFile, LocalContext, PipelineResult, Unavailable
from models.image_to_mesh.options import TrellisOptions
from models.image_to_mesh.trellis.checkpoint import load_generator
from models.image_to_mesh.trellis.generator import Networks
from models.image_to_mesh.trellis.pipeline import TrellisPipeline, load
from models.image_to_mesh.trellis.release import ReleaseUnfit, read_release
from models.nn.precision import torso_dtype
from models.nn.residency import Residency
from models.nn.sparse_tensor import SparseTensor
from models.splat_to_sog.readers import read
from tests.models.image_to_mesh.trellis.tiny import COND, STEPS

Run = Callable[..., PipelineResult]
FACES = 2000


def pipeline(models_folder: Path) -> TrellisPipeline:
    release = read_release(models_folder / "trellis-image-large")
    generator = load_generator(
        release, models_folder / "dinov2-large-registers", Residency("cpu"), torch.float32
    )
    return TrellisPipeline(generator, release)


@pytest.fixture(scope="module")
def loaded(models_folder: Path) -> TrellisPipeline:
    return pipeline(models_folder)


@pytest.fixture
def disc(drawn: Callable[..., np.ndarray], save: Callable[..., InputFile]) -> InputFile:
    return save(drawn(lambda x, y: x**2 + y**2 < 0.5), "disc.png")


@pytest.fixture
def run(loaded: TrellisPipeline, tmp_path: Path) -> Run:
    def call(files: list[InputFile], **options: object) -> PipelineResult:
        workdir = tmp_path / "work"
        workdir.mkdir(exist_ok=True)
        small = {"faces": FACES, "texture_size": 1024} | options
        return loaded(LocalContext(workdir), files, TrellisOptions(**small))

    return call


def test_image_to_mesh_and_splat(run: Run, disc: InputFile) -> None:
    result = run([disc], formats=("glb", "splat"))
    assert [a.name for a in result.artifacts] == ["mesh.glb", "scene.splat.ply"]
    assert result.report["voxels"] > 0
    glb = result.artifacts[0].path.read_bytes()
    mesh = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh", process=False)
    assert 0 < len(mesh.faces) == result.report["mesh"]["faces"] <= FACES
    assert np.ptp(mesh.vertices, axis=0).max() == pytest.approx(1, abs=0.1)
    assert mesh.visual.material.baseColorTexture.size == (1024, 1024)
    assert mesh.visual.material.normalTexture is not None
    assert result.report["gaussians"] == 4 * result.report["voxels"]


def test_every_format_in_the_order_asked_for(run: Run, disc: InputFile) -> None:
    result = run([disc], formats=("stl", "splat", "obj", "stl", "ply"))
    assert [a.name for a in result.artifacts] == [
        "mesh.stl",
        "scene.splat.ply",
        "mesh.obj.zip",
        "mesh.ply",
    ]
    assert all(a.path.stat().st_size > 0 for a in result.artifacts)


def test_gaussians_alone_need_no_surface(run: Run, disc: InputFile) -> None:
    report = run([disc], formats=("splat",)).report
    assert "mesh" not in report and "surface" not in report["seconds"]


def test_textures_and_geometry_as_asked_for(run: Run, disc: InputFile) -> None:
    plain = run([disc], normal_map=False, texture_format="png").artifacts[0].path.read_bytes()
    assert b'"normalTexture"' not in plain and b'"image/png"' in plain
    packed = run([disc], compression="quantize").artifacts[0].path.read_bytes()
    assert b"KHR_mesh_quantization" in packed


def test_splat_is_read_as_a_scene(run: Run, disc: InputFile) -> None:
    """The next step of an image -> .sog job finds every Gaussian and no harmonics beyond 0."""
    result = run([disc], formats=("splat",))
    path = result.artifacts[0].path
    splats = read(path, path.name)
    assert len(splats.means) == result.report["gaussians"]
    assert np.isfinite(splats.means).all()


def test_same_seed_same_bytes_another_seed_another_shape(run: Run, disc: InputFile) -> None:
    first = run([disc], seed=7, formats=("splat",)).artifacts[0].path.read_bytes()
    assert run([disc], seed=7, formats=("splat",)).artifacts[0].path.read_bytes() == first
    assert run([disc], seed=8, formats=("splat",)).artifacts[0].path.read_bytes() != first


@pytest.mark.parametrize("mixing", ["stochastic", "multidiffusion"])
def test_second_image_changes_the_result(
    run: Run,
    disc: InputFile,
    drawn: Callable[..., np.ndarray],
    save: Callable[..., InputFile],
    mixing: str,
) -> None:
    bar = save(drawn(lambda x, y: (abs(x) < 0.8) & (abs(y) < 0.2)), "bar.png")
    options = {"mixing": mixing, "formats": ("splat",)}
    alone = run([disc], **options).artifacts[0].path.read_bytes()
    assert run([disc, bar], **options).artifacts[0].path.read_bytes() != alone


def test_options_override_the_release(run: Run, disc: InputFile) -> None:
    report = run([disc], structure_steps=2, latent_guidance=0.0, formats=("splat",)).report
    assert report["samplers"] == {
        "structure": {"steps": 2, "guidance": 5.0},
        "latent": {"steps": STEPS, "guidance": 0.0},
    }


def test_steps_and_guidance_are_both_samplers_unless_one_says_otherwise(
    run: Run, disc: InputFile
) -> None:
    report = run([disc], steps=2, guidance=1.5, latent_steps=1, formats=("splat",)).report
    assert report["samplers"] == {
        "structure": {"steps": 2, "guidance": 1.5},
        "latent": {"steps": 1, "guidance": 1.5},
    }


def test_cancelled_while_it_is_finished(
    loaded: TrellisPipeline, disc: InputFile, tmp_path: Path
) -> None:
    seen: list[str] = []
    context = LocalContext(
        tmp_path,
        on_progress=lambda stage, *rest: seen.append(stage),
        is_cancelled=lambda: seen[-1:] == ["simplify"],
    )
    with pytest.raises(Cancelled):
        loaded(context, [disc], TrellisOptions(faces=FACES, texture_size=1024))
    assert seen[-1] == "simplify" and not list(tmp_path.glob("mesh.*"))


def test_progress_of_each_step_and_cancelling_between_two(
    loaded: TrellisPipeline, disc: InputFile, tmp_path: Path
) -> None:
    seen: list[tuple[str, float, str]] = []
    context = LocalContext(
        tmp_path,
        on_progress=lambda *what: seen.append(what),
        is_cancelled=lambda: any(message == f"2/{STEPS}" for _, _, message in seen),
    )
    with pytest.raises(Cancelled):
        loaded(context, [disc], TrellisOptions())
    assert [message for stage, _, message in seen if stage == "structure"] == [
        "",
        f"1/{STEPS}",
        f"2/{STEPS}",
    ]
    fractions = [fraction for _, fraction, _ in seen]
    assert fractions == sorted(fractions)


@pytest.mark.parametrize(
    ("dtype", "within"),
    [
        pytest.param(torch.float16, 5e-3, id="fp16"),  # 11 bits, through a few dozen roundings
        pytest.param(torch.bfloat16, 4e-2, id="bf16"),  # 8 bits
    ],
)
def test_every_network_in_half_precision(
    models_folder: Path,
    loaded: TrellisPipeline,
    rng: np.random.Generator,
    dtype: torch.dtype,
    within: float,
) -> None:
    """Torsos in half precision answer in fp32, and what the fp32 networks do, up to rounding."""
    release, images = (
        models_folder / "trellis-image-large",
        models_folder / "dinov2-large-registers",
    )
    halved = load_generator(read_release(release), images, Residency("cpu"), dtype).networks
    whole = loaded.generator.networks
    seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
    grid, tokens = (torch.randn(shape, generator=seed) for shape in ((1, 8, 2, 2, 2), (1, 9, COND)))
    coords = (torch.rand(8, 8, 8, generator=seed) < 0.2).nonzero().int()
    coords = torch.nn.functional.pad(coords, (1, 0))
    latent = SparseTensor(torch.randn(len(coords), 8, generator=seed), coords)
    t = torch.tensor([500.0])

    def answers(networks: Networks) -> list[torch.Tensor]:
        with torch.no_grad():
            return [
                networks.structure_flow(grid, t, tokens),
                networks.structure_decoder(grid),
                networks.latent_flow(latent, t, tokens).feats,
                networks.mesh_decoder(latent).feats,
                networks.gaussian_decoder(latent).feats,
            ]

    assert torso_dtype(halved.latent_flow) == dtype
    for half, full in zip(answers(halved), answers(whole), strict=True):
        assert half.dtype == torch.float32
        assert 0 < (half - full).abs().max() <= within * full.abs().max()


# -- loading -------------------------------------------------------------------------------------


def test_without_weights_the_command_to_run_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MESHPRESS_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(Unavailable) as missing:
        load("cpu")
    assert "meshpress models pull trellis-image-large" in missing.value.next_step


def test_denormalisation_comes_from_the_release(models_folder: Path) -> None:
    generator = pipeline(models_folder).generator
    assert generator.latent_mean == (0.5,) * 8
    assert generator.latent_std == (2.0,) * 8


def broken(models_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(models_folder, tmp_path / "models"))


def test_missing_tensor_is_named(models_folder: Path, tmp_path: Path) -> None:
    folder = broken(models_folder, tmp_path)
    path = folder / "trellis-image-large/ckpts/slat_flow_model_fp16.safetensors"
    state = load_file(path)
    del state["blocks.1.norm2.bias"]
    path.unlink()
    save_file({**state, "surplus": torch.zeros(1)}, path)
    with pytest.raises(Unavailable) as error:
        pipeline(folder)
    assert "1 missing (blocks.1.norm2.bias); 1 unexpected (surplus)" in error.value.message


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda args: args.pop("slat_normalization"), "no entry 'slat_normalization'"),
        (lambda args: args["models"].pop("slat_decoder_gs"), "no entry 'slat_decoder_gs'"),
        (
            lambda args: args["slat_sampler"]["params"].update(cfg_interval=[0.5]),
            r"'cfg_interval' is \[0.5\], not 2 numbers",
        ),
        (
            lambda args: args["slat_sampler"]["params"].update(steps="many"),
            "'steps' is 'many', not 1 number",
        ),
        (
            lambda args: args["slat_normalization"].update(mean=[0, None]),
            r"'mean' is \[0, None\], not numbers",
        ),
    ],
)
def test_release_without_an_entry_is_refused(
    models_folder: Path, tmp_path: Path, damage: Callable[[dict], object], words: str
) -> None:
    path = broken(models_folder, tmp_path) / "trellis-image-large/pipeline.json"
    content = json.loads(path.read_text())
    damage(content["args"])
    path.write_text(json.dumps(content))
    with pytest.raises(ReleaseUnfit, match=words):
        read_release(path.parent)


def test_unknown_argument_of_a_network_is_refused(models_folder: Path, tmp_path: Path) -> None:
    folder = broken(models_folder, tmp_path)
    path = folder / "trellis-image-large/ckpts/slat_flow_model_fp16.json"
    content = json.loads(path.read_text())
    content["args"]["pe_mode"] = "rope"
    path.write_text(json.dumps(content))
    with pytest.raises(ReleaseUnfit, match="pe_mode is 'rope'; only 'ape' is known"):
        pipeline(folder)
