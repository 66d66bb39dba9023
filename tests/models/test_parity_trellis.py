"""TRELLIS's networks, DINOv2 and FlexiCubes against files of the reference networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn

from models.image_to_mesh.trellis.flexicubes import Cubes, Grid, flexicubes
from models.image_to_mesh.trellis.gaussian_decoder import SlatGaussianDecoder
from models.image_to_mesh.trellis.networks import build
from models.image_to_mesh.trellis.preprocess import centre_on_black
from models.image_to_mesh.trellis.ss_decoder import occupied
from models.image_to_mesh.trellis.voxel_mesh import mesh_from_voxels
from models.nn.dinov2 import DinoV2, DinoV2Config
from models.nn.guidance import Guidance
from models.nn.precision import to_half
from models.nn.samplers import rescaled_times, sample
from models.nn.sparse_tensor import SparseTensor
from models.nn.velocity import SparseVelocity
from models.nn.weights import on_meta
from tests.models.parity import Golden, agree, file, triton_on_cuda

HALF = 2e-2
"""Absolute: what they allow an fp16 torso."""

FULL_SIZE = [
    "trellis_ss_flow_img_dit_L_16l8",
    "trellis_ss_dec_conv3d_16l8",
    "trellis_slat_flow_img_dit_L_64l8p2",
    "trellis_slat_dec_mesh_swin8_B_64l8m256c",
    "trellis_slat_dec_gs_swin8_B_64l8gs32",
]


@pytest.fixture
def computing(device: str) -> Iterator[None]:
    with triton_on_cuda(device, attention="triton"):
        yield


def network_of(golden: Golden) -> nn.Module:
    """The network of the file's class and configuration, with its weights, in fp32."""
    network = build(golden.metadata["class"], golden.config)
    seeded = "weight_seed" in golden.metadata
    filled = golden.fill(network, rel=1e-5) if seeded else golden.load(network)
    return filled.requires_grad_(False)


# -- the image -----------------------------------------------------------------------------------


@file("img_preprocess_trellis")
def test_picture_on_black(golden: Golden) -> None:
    picture = centre_on_black(golden["in/rgba"].cpu().numpy())
    assert picture.shape == (*golden.config["size"], 3)
    np.testing.assert_allclose(
        picture.mean(axis=(0, 1)), golden["out/mean"].cpu().numpy(), rtol=1e-9
    )
    np.testing.assert_array_equal(picture[200:204], golden["out/crop_rows"].cpu().numpy())
    small = Image.fromarray(picture).resize((64, 64), Image.Resampling.BOX)
    np.testing.assert_array_equal(np.asarray(small), golden["out/box64"].cpu().numpy())


@file("dinov2_vit_reg")
def test_dinov2(golden: Golden) -> None:
    fields = DinoV2Config.__dataclass_fields__
    config = DinoV2Config(**{k: v for k, v in golden.config.items() if k in fields})
    tokens = golden.load(DinoV2(config))(golden["in/x"])
    agree(tokens.prenorm, golden["out/x_prenorm"])
    agree(tokens.patches, golden["out/x_norm_patchtokens"])
    agree(F.layer_norm(tokens.prenorm, tokens.prenorm.shape[-1:]), golden["out/x_prenorm_ln"])


# -- sparse structure ----------------------------------------------------------------------------


@file("trellis_ss_flow")
def test_structure_flow(golden: Golden) -> None:
    network = network_of(golden)
    x, t, cond = golden["in/x"], golden["in/t"], golden["in/cond"]
    agree(network(x, t, cond), golden["out/v"])
    agree(network(x, t, network.contexts(cond)), golden["out/v"])


@file("trellis_ss_flow_fp16")
def test_structure_flow_in_half_precision(golden: Golden) -> None:
    network = to_half(network_of(golden.beside("trellis_ss_flow")), torch.float16)
    v = network(golden["in/x"], golden["in/t"], golden["in/cond"])
    assert v.dtype == torch.float32
    assert (v - golden["out/v"]).abs().max() <= HALF


@file("trellis_ss_decoder")
def test_structure_decoder(golden: Golden) -> None:
    logits = network_of(golden)(golden["in/z"])
    agree(logits, golden["out/logits"])
    assert torch.equal(occupied(logits), golden["out/coords"])


# -- structured latent ---------------------------------------------------------------------------


@file("trellis_slat_flow_b2")
def test_latent_flow(golden: Golden) -> None:
    network = network_of(golden)
    x = SparseTensor(golden["in/feats"], golden["in/coords"])
    t, cond = golden["in/t"], golden["in/cond"]
    agree(network(x, t, cond).feats, golden["out/v"])
    agree(network(x, t, network.contexts(cond)).feats, golden["out/v"])


@file("trellis_slat_sampler")
@pytest.mark.parametrize("batched", [False, True])
def test_latent_sampling_with_contexts_made_once(golden: Golden, batched: bool) -> None:
    """As the pipeline does it: cached keys and values, and one token for the negative's zeros."""
    config, cond = golden.config, golden["in/cond"]
    flow = network_of(golden.beside(config["model"]))
    noise = SparseTensor(golden["in/noise"], golden["in/coords"])
    out = sample(
        SparseVelocity(flow, noise, batched=batched),
        noise.feats,
        [flow.contexts(cond)],
        times=rescaled_times(config["steps"], config["rescale_t"]),
        negative=flow.contexts(cond.new_zeros(1, 1, cond.shape[2])),
        guidance=Guidance.added(config["cfg_strength"], tuple(config["cfg_interval"])),
    )
    agree(out, golden["out/samples"])


@file("trellis_gs_decoder")
def test_gaussian_decoder(golden: Golden) -> None:
    network = network_of(golden)
    assert isinstance(network, SlatGaussianDecoder)
    decoded = network(SparseTensor(golden["in/latent"], golden["in/coords"]))
    agree(decoded.feats, golden["out/feats"])
    (raw,) = network.raw(decoded)
    for name in ("xyz", "scaling", "rotation", "opacity"):
        agree(getattr(raw, name), golden[f"out/{name}"])
    agree(raw.features_dc, golden["out/features_dc"].squeeze(1))


@file("trellis_gs_decoder")
def test_gaussians_start_where_the_reference_spreads_them(golden: Golden) -> None:
    fresh = build(golden.metadata["class"], golden.config)
    spread = fresh.get_buffer("offset_perturbation").to(golden.device)
    agree(spread, golden["w/offset_perturbation"], within=1e-6)


@file("trellis_mesh_decoder")
def test_mesh_decoder(golden: Golden) -> None:
    decoded = network_of(golden)(SparseTensor(golden["in/latent"], golden["in/coords"]))
    agree(decoded.feats, golden["out/feats"])
    assert torch.equal(decoded.coords, golden["out/feat_coords"])


# -- meshes --------------------------------------------------------------------------------------


def turned_to_least(faces: Tensor) -> set[tuple[int, ...]]:
    """Faces [F, 3] as a set: each turned, not flipped, until its least vertex comes first."""
    turn = (faces.argmin(dim=1, keepdim=True) + torch.arange(3, device=faces.device)) % 3
    return {tuple(face) for face in faces.gather(1, turn).tolist()}


def same_mesh(
    golden: Golden, vertices: Tensor, attributes: Tensor, faces: Tensor, name: str
) -> None:
    """The same vertices, attributes and oriented triangles, in whatever order."""
    expected = golden["out/vertices"]
    assert vertices.shape == expected.shape
    apart, match = torch.cdist(vertices.double(), expected.double()).min(dim=1)
    assert apart.max() < 1e-6
    assert len(match.unique()) == len(expected)
    agree(attributes, golden[name][match])
    assert len(faces) == len(golden["out/faces"])
    assert turned_to_least(match[faces]) == turned_to_least(golden["out/faces"])


@file("flexicubes_smooth")
def test_flexicubes(golden: Golden) -> None:
    corners, weights = golden["in/cubes"], golden["in/weights"]
    place = (golden["in/verts"][corners[:, 0]] + 0.5) * golden.config["res"]
    surface = flexicubes(
        Grid(golden["in/verts"], golden["in/sdf"], torch.sigmoid(golden["in/colors"])),
        Cubes(place.round().long(), corners, *weights.split((12, 8, 1), dim=1)[:2], weights[:, 20]),
    )
    same_mesh(golden, surface.vertices, surface.attributes, surface.faces, "out/colors")


@file("trellis_sparsefeats2mesh", "trellis_mesh_decoder")
def test_mesh_of_voxels(golden: Golden) -> None:
    """The second file's random field crosses every cell, ambiguous cases and borders included."""
    coords, feats = ("in/coords", "in/feats")
    resolution = golden.config.get("res", 4 * golden.config.get("resolution", 0))
    if coords not in golden.tensors or feats not in golden.tensors:
        coords, feats = ("out/feat_coords", "out/feats")
    mesh = mesh_from_voxels(golden[coords][:, 1:], golden[feats], resolution)
    attributes = torch.cat((mesh.colours, mesh.normals), dim=1)
    same_mesh(golden, mesh.vertices, attributes, mesh.faces, "out/vertex_attrs")


# -- names, shapes and dtypes of the checkpoints ---------------------------------------------------


@pytest.mark.parametrize("name", FULL_SIZE)
def test_state_dict_at_full_size(shared: Callable[[str], Path], name: str) -> None:
    dump = json.loads(shared(f"data/state_dicts/{name}.json").read_text())
    network = on_meta(lambda: build(dump["class"], dump["config_args"]))
    ours = {
        key: (list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for key, tensor in to_half(network, torch.float16).state_dict().items()
    }
    assert ours == {key: (t["shape"], t["dtype"]) for key, t in dump["tensors"].items()}


def test_dinov2_at_full_size(shared: Callable[[str], Path]) -> None:
    """VGGT holds a `dinov2_vitl14_reg` whole, under the official names."""
    dump = json.loads(shared("data/state_dicts/vggt_full.json").read_text())["tensors"]
    prefix = "aggregator.patch_embed."
    held = {k.removeprefix(prefix): t for k, t in dump.items() if k.startswith(prefix)}
    ours = {k: list(tensor.shape) for k, tensor in on_meta(DinoV2).state_dict().items()}
    assert ours == {key: tensor["shape"] for key, tensor in held.items()}
