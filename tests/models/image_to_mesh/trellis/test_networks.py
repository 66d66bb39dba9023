"""Parts of TRELLIS that parity files do not show: refusals, activations, files, formats."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from models.context import InvalidInput
from models.image_to_mesh.trellis.conditioning import image_tokens, no_image
from models.image_to_mesh.trellis.gaussian_decoder import (
    GaussianSettings,
    RawGaussians,
    SlatGaussianDecoder,
)
from models.image_to_mesh.trellis.networks import build
from models.image_to_mesh.trellis.preprocess import centre_on_black
from models.image_to_mesh.trellis.splat_ply import encode_splat_ply
from models.image_to_mesh.trellis.ss_decoder import pixel_shuffle_3d
from models.image_to_mesh.trellis.ss_flow import SparseStructureFlow, patchify, unpatchify
from models.nn.dinov2 import DinoV2, DinoV2Config
from models.splat_to_sog.readers import read
from tests.models.image_to_mesh.trellis.tiny import FLOW, GAUSSIANS, LATENT, NETWORKS

Build = Callable[[str], torch.nn.Module]


def tensor(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


# -- configurations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("slat_flow_model", {"share_mod": True}, "share_mod is True"),
        ("slat_flow_model", {"patch_size": 4}, "patch_size is 4"),
        ("slat_flow_model", {"surprise": 1}, "argument 'surprise'"),
        ("slat_decoder_mesh", {"attn_mode": "full"}, "attn_mode is 'full'"),
        ("slat_decoder_mesh", {"representation_config": {}}, "without colours"),
        (
            "slat_decoder_gs",
            {"representation_config": {**GAUSSIANS, "scaling_activation": "exp"}},
            "scaling_activation is 'exp'",
        ),
    ],
)
def test_what_our_networks_do_not_do_is_refused(
    name: str, change: dict[str, object], words: str
) -> None:
    class_name, args = NETWORKS[name]
    with pytest.raises(ValueError, match=words):
        build(class_name, {**args, **change})


def test_unknown_class_is_refused() -> None:
    with pytest.raises(ValueError, match="'SLatRadianceFieldDecoder' is no network of TRELLIS"):
        build("SLatRadianceFieldDecoder", {})


# -- grids ---------------------------------------------------------------------------------------


def test_pixel_shuffle_deals_channels_out_as_the_decoder_was_trained(
    rng: np.random.Generator,
) -> None:
    x = tensor(rng, 2, 3 * 8, 2, 3, 4)
    out = pixel_shuffle_3d(x)
    assert out.shape == (2, 3, 4, 6, 8)
    for c, i, j, k in product(range(3), range(2), range(2), range(2)):
        torch.testing.assert_close(out[:, c, i::2, j::2, k::2], x[:, 8 * c + 4 * i + 2 * j + k])


def test_patches_come_back(rng: np.random.Generator) -> None:
    x = tensor(rng, 2, 3, 4, 4, 4)
    tokens = patchify(x, 2)
    assert tokens.shape == (2, 8, 24)
    torch.testing.assert_close(tokens[:, 1].reshape(2, 3, 2, 2, 2), x[:, :, :2, :2, 2:])
    torch.testing.assert_close(unpatchify(tokens, 4, 2), x)


# -- conditions ----------------------------------------------------------------------------------


def test_one_zero_token_stands_for_an_image_of_zeros(rng: np.random.Generator) -> None:
    """The unconditional pass attends to equal tokens: one weighs as 1374 of them."""
    torch.manual_seed(int(rng.integers(2**31)))
    args = {k: v for k, v in {**FLOW, **LATENT}.items() if k not in ("use_fp16", "pe_mode")}
    flow = SparseStructureFlow(**args, resolution=2, patch_size=1).eval()
    x, t = tensor(rng, 1, 8, 2, 2, 2), torch.tensor([700.0])
    tokens = torch.zeros(1, 11, FLOW["cond_channels"])
    with torch.no_grad():
        whole, single = flow(x, t, tokens), flow(x, t, no_image(tokens))
    torch.testing.assert_close(single, whole, atol=1e-6, rtol=1e-5)


def test_tokens_are_normed_and_of_the_normalised_picture(rng: np.random.Generator) -> None:
    torch.manual_seed(int(rng.integers(2**31)))
    network = DinoV2(DinoV2Config(28, 14, 16, 1, 2, 2, 1)).eval()
    picture = rng.integers(0, 256, (28, 28, 3), np.uint8)
    with torch.no_grad():
        tokens = image_tokens(network, [picture], "cpu")
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        pixels = torch.from_numpy(((picture / 255 - mean) / std).astype(np.float32))
        plain = network(pixels.permute(2, 0, 1)[None]).prenorm.double()
    expected = (plain - plain.mean(-1, keepdim=True)) / (
        plain.var(-1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(tokens.double(), expected, atol=1e-5, rtol=1e-5)


# -- pictures ------------------------------------------------------------------------------------


def test_object_is_centred_with_a_margin() -> None:
    rgba = np.zeros((100, 200, 4), np.uint8)
    rgba[10:50, 120:180] = 255
    picture = centre_on_black(rgba)
    rows, columns = np.nonzero(picture[..., 0] > 127)
    pixel = 518 / 70  # of the crop: the object's longer side is 60 pixels
    assert (rows.min() + rows.max()) / 2 == pytest.approx(258.5, abs=pixel)
    assert np.ptp(columns) + 1 == pytest.approx(518 / 1.2, abs=2 * pixel)


def test_transparent_picture_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="ghost.png shows no object"):
        centre_on_black(np.full((64, 64, 4), 100, np.uint8), "ghost.png")


# -- Gaussians -----------------------------------------------------------------------------------


def decoder() -> SlatGaussianDecoder:
    class_name, args = NETWORKS["slat_decoder_gs"]
    network = build(class_name, args)
    assert isinstance(network, SlatGaussianDecoder)
    return network


def test_raw_zeros_become_what_the_biases_say() -> None:
    zeros = RawGaussians(*(torch.zeros(1, width) for width in (3, 3, 3, 4, 1)))
    gaussians = decoder().activated(zeros)
    settings = GaussianSettings.from_config(GAUSSIANS)
    torch.testing.assert_close(gaussians.opacities, torch.tensor([0.1]))
    spread = (settings.scaling_bias**2 + settings.filter_size**2) ** 0.5
    torch.testing.assert_close(gaussians.scales, torch.full((1, 3), spread))
    torch.testing.assert_close(gaussians.quaternions, torch.tensor([[1.0, 0, 0, 0]]))
    torch.testing.assert_close(gaussians.means, torch.full((1, 3), -0.5))


def test_scene_file_holds_the_turned_gaussians(rng: np.random.Generator, tmp_path: Path) -> None:
    """Covariances turn with the positions: R S S R' in the file is M R S S R' M' of the arrays."""
    count = 50
    means, sh0 = (rng.normal(size=(count, 3)).astype(np.float32) for _ in range(2))
    scales = rng.uniform(0.01, 0.1, (count, 3)).astype(np.float32)
    quaternions = rng.normal(size=(count, 4)).astype(np.float32)
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    opacities = rng.uniform(0, 1, count).astype(np.float32)
    opacities[:2] = 0, 1
    path = tmp_path / "splat.ply"
    path.write_bytes(encode_splat_ply(means, sh0, scales, quaternions, opacities))
    splats = read(path, "splat.ply")

    turn = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    np.testing.assert_allclose(splats.means, means @ turn.T, rtol=1e-6)
    np.testing.assert_allclose(splats.sh0, sh0, rtol=1e-6)
    ours = turn @ covariances(quaternions, scales) @ turn.T
    theirs = covariances(splats.quats, np.exp(splats.scales))
    np.testing.assert_allclose(theirs, ours, atol=1e-7)
    logits = splats.opacities.astype(np.float64)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), opacities, atol=2e-6)


def covariances(quaternions: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """(P, 3, 3) from (P, 4) w first and (P, 3)."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    rotation = np.moveaxis(np.array(rows), 2, 0)
    return rotation @ (scales[:, :, None] ** 2 * np.swapaxes(rotation, 1, 2))
