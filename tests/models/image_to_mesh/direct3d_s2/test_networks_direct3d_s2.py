"""The tiny networks' stages against the same on dense grids; loading; half precision."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.context import Unavailable
from models.image_to_mesh.direct3d_s2.adaptive import adaptive_block
from models.image_to_mesh.direct3d_s2.blocks import EDGE
from models.image_to_mesh.direct3d_s2.generator import Generator
from models.image_to_mesh.direct3d_s2.group_norm import GroupNormSiLU
from models.image_to_mesh.direct3d_s2.networks import build, halve
from models.image_to_mesh.direct3d_s2.preprocess import SIDE_PX, Picture, centre_on_white
from models.image_to_mesh.direct3d_s2.release import RELEASES, Sampler
from models.nn.sparse_tensor import SparseTensor
from models.weights.pickles import convert
from tests.models.image_to_mesh.direct3d_s2.conftest import load
from tests.models.image_to_mesh.direct3d_s2.tiny import (
    COARSE,
    STEPS,
    tiny_release,
    write_pickles,
)

VOXELS = COARSE * EDGE


def latent(rng: np.random.Generator, side: int, share: float = 0.5) -> SparseTensor:
    cells = torch.from_numpy(rng.random((side, side, side)) < share).nonzero().int()
    feats = torch.from_numpy(rng.standard_normal((len(cells), 8)).astype(np.float32))
    return SparseTensor(feats, F.pad(cells, (1, 0)))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@torch.no_grad()
def test_refined_patches_are_blended_as_the_reference_does(
    generators: dict[str, Generator], rng: np.random.Generator, version: str
) -> None:
    """On dense grids of all features, patch by patch, axis by axis."""
    networks = generators[version].networks
    refiner = networks.refiner
    x = latent(rng, COARSE)
    decoded = networks.sparse_vae_512(x, head=refiner.head)
    parts: list[tuple[int, int]] = []
    field = refiner(decoded, lambda done, total: parts.append((done, total)))
    assert parts == [(n + 1, 27) for n in range(27)]

    raw = networks.sparse_vae_512(x, head=lambda features: features)
    a, b, c = raw.sdf.voxels().long().unbind(1)
    sdf, features = torch.ones([VOXELS] * 3), torch.zeros(4, *[VOXELS] * 3)
    sdf[a, b, c] = raw.sdf.values.flatten()
    features[:, a, b, c] = raw.extra.values.movedim(1, -1).flatten(0, 3).T
    patches = {}
    for i, j, k in np.ndindex(3, 3, 3):
        place = tuple(slice(8 * n, 8 * n + 16) for n in (i, j, k))
        wide = refiner.latent_mlp(features[:, *place].movedim(0, -1)).movedim(-1, 0)
        h = torch.cat((refiner.conv_in(sdf[place][None, None]), wide[None]), dim=1)
        h = adaptive_block(refiner.unet3d1(h), refiner.adaptive_conv1)
        h = adaptive_block(refiner.mid_conv(h), refiner.adaptive_conv2)
        out = adaptive_block(refiner.conv_out(h), refiner.adaptive_conv3, h)
        patches[i, j, k] = torch.tanh(out)[0, 0]
    lines = {(i, j): _faded([patches[i, j, k] for k in range(3)], 2) for i, j in np.ndindex(3, 3)}
    layers = {i: _faded([lines[i, j] for j in range(3)], 1) for i in range(3)}
    expected = _faded([layers[i] for i in range(3)], 0)
    assert (field - expected).abs().max() < 1e-5  # fp32, sums in another order


def _faded(parts: list[Tensor], axis: int) -> Tensor:
    """Three patches of 16 at 0, 8 and 16 as one of 32; neighbours fade over their common 8."""
    rise = torch.linspace(0, 1, 8).view([-1 if n == axis else 1 for n in range(3)])

    def cut(part: Tensor, start: int) -> Tensor:
        return part.narrow(axis, start, 8)

    first, second, third = parts
    return torch.cat(
        (
            cut(first, 0),
            cut(first, 8) * (1 - rise) + cut(second, 0) * rise,
            cut(second, 8) * (1 - rise) + cut(third, 0) * rise,
            cut(third, 8),
        ),
        dim=axis,
    )


@torch.no_grad()
def test_patches_without_a_block_are_outside_and_cost_nothing(
    generators: dict[str, Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = generators["1.1"].networks
    x = SparseTensor(torch.ones(1, 8), torch.tensor([[0, 0, 0, 0]]).int())
    seen = []
    patch = type(networks.refiner).patch

    def counted(self: object, sdf: Tensor, features: Tensor) -> Tensor:
        seen.append(sdf.shape)
        return patch(self, sdf, features)

    monkeypatch.setattr(type(networks.refiner), "patch", counted)
    field = networks.refiner(networks.sparse_vae_512(x, head=networks.refiner.head))
    assert len(seen) == 1
    assert ((field[16:] - 1).abs() < 1e-6).all() and ((field[:8, :8, :8] - 1).abs() > 0.1).any()


@torch.no_grad()
def test_signs_come_from_pooled_distances(
    generators: dict[str, Generator], rng: np.random.Generator
) -> None:
    """Divided by nine, patch after patch over what was there, as the reference has it."""
    networks = generators["1.1"].networks
    refiner = networks.sign_refiner
    assert refiner is not None
    sdf = networks.sparse_vae_1024(latent(rng, 2 * COARSE, 0.2)).sdf
    signs = refiner(sdf)

    dense, count = torch.zeros([2 * VOXELS] * 3), torch.zeros([2 * VOXELS] * 3)
    a, b, c = sdf.voxels().long().unbind(1)
    dense[a, b, c], count[a, b, c] = sdf.values.flatten(), 1
    pooled = F.avg_pool3d(dense[None], 2)[0] * 8 / 9
    grid = torch.where(F.max_pool3d(count[None], 2)[0] > 0, pooled, 1.0)
    expected = torch.ones_like(grid)
    for i, j, k in np.ndindex(3, 3, 3):
        place = tuple(slice(8 * n, 8 * n + 16) for n in (i, j, k))
        if (grid[place] != 1).any():
            h = refiner.conv_out(refiner.unet3d1(refiner.conv_in(grid[place][None, None])))
            expected[place] = torch.where(torch.sigmoid(h[0, 0]) >= 0.5, 1.0, -1.0)
    assert (signs == expected).float().mean() > 0.9999  # ties of rounding apart
    assert {-1, 1} == set(signs.unique().tolist())


@torch.no_grad()
def test_encoders_answer_on_the_coarse_grid(rng: np.random.Generator) -> None:
    """Shapes, and that what lies far away changes nothing."""
    networks = tiny_release("1.1").networks
    sparse = build("SparseSDFVAE", networks["sparse_vae_512"].arguments)
    x = latent(rng, 16)
    x = x.replace(x.feats[:, :1])
    mean, log_variance = sparse.encoder(x)
    assert mean.feats.shape == log_variance.feats.shape == (8, 8)
    dense = build("DenseShapeVAE", networks["dense_vae"].arguments)
    mean, _ = dense.encode(torch.ones(1, 1, 8, 8, 8))
    assert mean.shape == (1, 8, 2, 2, 2)
    assert dense.decode(mean).shape == (1, 1, 8, 8, 8)


# -- sampling ------------------------------------------------------------------------------------


def test_stages_hand_over_what_the_next_one_takes(
    generators: dict[str, Generator], rng: np.random.Generator
) -> None:
    """Every network real, tiny and random, in both releases."""
    pixels = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    alpha = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    alpha[100:300, 50:200] = 255
    for generator in generators.values():
        noise = torch.Generator().manual_seed(1)
        seen = generator.look(Picture(pixels, alpha))
        assert seen.tokens.shape == (1, 1374, 32)
        assert len(seen.objects.feats) == 5 + 15 * 12  # rows 7 to 21, columns 3 to 14
        cells = generator.coarse(seen, noise, Sampler(2, 7.0, 6.0))
        networks = generator.networks
        x = generator.latent(networks.sparse_flow_512, seen, cells, noise, Sampler(2, 7.0, 6.0))
        assert sorted(x.coords.tolist()) == cells.tolist()
        field = generator.surface_512(x, lambda done, total: None)
        assert torch.isfinite(field.values).all()
        assert generator.networks.sparse_vae_1024.out_resolution == 2 * VOXELS
        field = generator.surface_1024(x, lambda done, total: None)
        assert torch.isfinite(field.values).all()


def test_no_guidance_is_the_condition_alone(
    generators: dict[str, Generator], rng: np.random.Generator
) -> None:
    """0 and 1 alike, as in the reference."""
    generator = generators["1.1"]
    pixels = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    seen = generator.look(Picture(pixels, pixels[..., 0]))
    coords = latent(rng, COARSE).coords
    flow = generator.networks.sparse_flow_512

    def sampled(guidance: float) -> Tensor:
        noise = torch.Generator().manual_seed(1)
        return generator.latent(flow, seen, coords, noise, Sampler(STEPS, guidance, 6.0)).feats

    assert torch.equal(sampled(0.0), sampled(1.0))
    assert not torch.equal(sampled(7.0), sampled(1.0))


# -- the image -----------------------------------------------------------------------------------


def test_object_on_white_fills_the_square_but_for_the_rim() -> None:
    rgba = np.zeros((90, 140, 4), np.uint8)
    rgba[20:60, 30:130] = (10, 200, 30, 255)
    picture = centre_on_white(rgba)
    assert picture.rgb.shape == (518, 518, 3)
    rim = round(16 * 518 / 550)
    assert (picture.rgb[:, : rim - 2] == 255).all() and (picture.rgb[:, -rim + 2 :] == 255).all()
    middle = picture.rgb[259, rim + 4 : -rim - 4]
    assert (middle == (10, 200, 30)).all()
    rows = np.flatnonzero(picture.alpha.any(axis=1))
    assert np.ptp(rows) == pytest.approx(0.4 * 518 * 518 / 550, abs=3)  # 40 rows of 100 columns


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    rgba = np.full((50, 50, 4), 128, np.uint8)
    rgba[..., :3] = 0
    assert np.abs(centre_on_white(rgba).rgb[259, 259].astype(int) - 127).max() <= 1


def test_a_speck_is_not_cropped_to() -> None:
    rgba = np.zeros((100, 100, 4), np.uint8)
    rgba[50, 50] = 255
    assert (centre_on_white(rgba).rgb == 255).all()


# -- loading -------------------------------------------------------------------------------------


def test_published_pickles_load_once_converted(
    generators: dict[str, Generator], models_folder: Path, tmp_path: Path
) -> None:
    """The official layout, converted in a child process: the same networks to the last bit."""
    release = tiny_release("1.1")
    write_pickles(release, tmp_path / release.entry)
    small = "model_refiner_1024"  # one file goes the whole way; a child takes seconds to begin
    place = tmp_path / release.entry / release.folder
    for path in (models_folder / release.entry / release.folder).iterdir():
        if path.stem != small:
            shutil.copy(path, place)
    assert convert(place / f"{small}.ckpt", place / f"{small}.safetensors") == []
    shutil.copytree(models_folder / "dinov2-large-registers", tmp_path / "dinov2-large-registers")
    found = load(tmp_path, "1.1").networks.sign_refiner
    expected = generators["1.1"].networks.sign_refiner
    assert found is not None and expected is not None
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)


def test_a_release_may_lack_the_refiner_of_signs(
    models_folder: Path, tmp_path: Path, generators: dict[str, Generator]
) -> None:
    folder = Path(shutil.copytree(models_folder, tmp_path / "models"))
    release = tiny_release("1.0")
    (folder / release.entry / release.folder / "model_refiner_1024.safetensors").unlink()
    assert load(folder, "1.0").networks.sign_refiner is None
    assert generators["1.0"].networks.sign_refiner is not None


def test_a_missing_tensor_is_named(models_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models_folder, tmp_path / "models"))
    release = tiny_release("1.1")
    path = folder / release.entry / release.folder / "model_sparse_512.safetensors"
    state = load_file(path)
    del state["dit.out_layer.bias"]
    path.unlink()
    save_file(state, path)
    with pytest.raises(Unavailable, match=r"1 missing \(out_layer.bias\)"):
        load(folder, "1.1")


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="'Other' is no network of Direct3D-S2"):
        build("Other", {})


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_releases_are_what_is_published(version: str) -> None:
    """Top-k, blocks and conditions, which no tensor's shape gives away."""
    flows = [RELEASES[version].networks[f"sparse_flow_{n}"].arguments for n in (512, 1024)]
    assert [(f["topk"], f["factor"], f["resolution"]) for f in flows] == {
        "1.0": [(32, 1.0, 64), (8, 0.5, 128)],
        "1.1": [(8, 1.0, 64), (8, 0.5, 128)],
    }[version]
    block = {"1.0": (4, "v2", True), "1.1": (8, "v1", False)}[version]
    for flow in flows:
        assert tuple(
            flow[key]
            for key in ("compression_block_size", "compression_version", "sparse_conditions")
        ) == block  # fmt: skip
    assert RELEASES[version].samplers["sparse_1024"] == Sampler(15, 7.0, 8.0)


def test_every_network_in_half_precision(
    generators: dict[str, Generator], rng: np.random.Generator
) -> None:
    """bf16 on a CPU: what the fp32 networks answer, up to eight bits and a few dozen layers.

    The refiner's distances here are a thousandth of what it works on, and no closer than that.
    """
    whole = generators["1.1"].networks
    x = latent(rng, COARSE, 0.3)
    grid = torch.randn(1, 8, 1, 1, 1, generator=torch.Generator().manual_seed(1))

    def answers(dtype: torch.dtype) -> list[Tensor]:
        nets = {
            name: halve(build(source.class_name, source.arguments), dtype)
            for name, source in tiny_release("1.1").networks.items()
            if name in ("dense_vae", "sparse_vae_512", "refiner")
        }
        nets["dense_vae"].decoder.load_state_dict(whole.dense_vae.state_dict())
        nets["sparse_vae_512"].decoder.load_state_dict(whole.sparse_vae_512.state_dict())
        nets["refiner"].load_state_dict(whole.refiner.state_dict())
        with torch.no_grad():
            decoded = nets["sparse_vae_512"].decoder(x, head=nets["refiner"].head)
            field = nets["refiner"](decoded)
            return [nets["dense_vae"].decode(grid.to(dtype)), decoded.sdf.values, field + 1]

    for half, full in zip(answers(torch.bfloat16), answers(torch.float32), strict=True):
        assert half.dtype == torch.bfloat16
        assert 0 < (half.float() - full).abs().mean() <= 4e-2 * full.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_group_norm_by_parts(rng: np.random.Generator, dtype: torch.dtype) -> None:
    """As in fp64 at once, where numbers lie far from zero; what it is given stays as it was."""
    x = torch.from_numpy(rng.standard_normal((2, 8, 6, 5, 4)) * 0.1 + 20).to(dtype)
    before = x.clone()
    norm = GroupNormSiLU(4, 8)
    torch.nn.init.normal_(norm.weight, 1, 0.1)
    torch.nn.init.normal_(norm.bias)
    with torch.no_grad():
        found = norm(x)
    expected = F.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double(), norm.eps)
    expected = F.silu(expected)
    assert found.dtype == dtype and torch.equal(x, before)
    # fp32: 20 / 0.1 times its rounding; bf16: its own
    within = 1e-3 if dtype == torch.float32 else 2e-2
    assert (found.double() - expected).abs().max() <= within * expected.abs().max()
