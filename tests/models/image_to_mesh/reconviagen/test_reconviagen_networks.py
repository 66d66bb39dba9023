"""What leads the flows, against plain sums; what the networks look at; the latent's sampling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.context import InvalidInput
from models.image_to_mesh.reconviagen.cameras import camera_facts
from models.image_to_mesh.reconviagen.generator import Conditions
from models.image_to_mesh.reconviagen.latent_condition import TORSO as LATENT_TORSO
from models.image_to_mesh.reconviagen.latent_condition import LatentCondition
from models.image_to_mesh.reconviagen.multi_view_flow import MultiViewCrossAttention
from models.image_to_mesh.reconviagen.networks import build
from models.image_to_mesh.reconviagen.pipeline import ReconViaGenPipeline
from models.image_to_mesh.reconviagen.preprocess import Framed, frame_on_black
from models.image_to_mesh.reconviagen.release import SamplerSettings
from models.image_to_mesh.reconviagen.structure_condition import TORSO as STRUCTURE_TORSO
from models.image_to_mesh.reconviagen.structure_condition import StructureCondition
from models.nn.attention import CrossAttention, Segments
from models.nn.precision import to_half
from models.nn.samplers import rescaled_times
from models.nn.sparse_tensor import SparseTensor
from models.nn.velocity import SparseVelocity
from tests.models.image_to_mesh.reconviagen.tiny import random_weights
from tests.models.image_to_mesh.trellis.tiny import COND, NETWORKS

COORDS = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4], [0, 5, 5, 5]], dtype=torch.int32)


def tensor(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


# -- several views -------------------------------------------------------------------------------


@pytest.fixture
def attention(rng: np.random.Generator) -> MultiViewCrossAttention:
    layer = random_weights(MultiViewCrossAttention(16, 12, 2), seed=int(rng.integers(1 << 30)))
    assert isinstance(layer, MultiViewCrossAttention)
    return layer


def one_view_in_fp64(layer: CrossAttention, x: Tensor, view: Tensor) -> Tensor:
    p = {name: value.double() for name, value in layer.named_parameters()}
    heads = layer.heads
    q = (x.double() @ p["to_q.weight"].T + p["to_q.bias"]).view(len(x), heads, -1)
    kv = (view.double() @ p["to_kv.weight"].T + p["to_kv.bias"]).view(len(view), 2, heads, -1)
    scores = torch.einsum("lhd,mhd->hlm", q, kv[:, 0]) / q.shape[-1] ** 0.5
    h = torch.einsum("hlm,mhd->lhd", scores.softmax(-1), kv[:, 1]).flatten(1)
    return h @ p["to_out.weight"].T + p["to_out.bias"]


@pytest.mark.parametrize("lengths", [(5, 5, 5), (5, 3, 1), (4,), (1,)])
@torch.no_grad()
def test_views_are_asked_one_by_one_and_their_answers_averaged(
    attention: MultiViewCrossAttention, rng: np.random.Generator, lengths: tuple[int, ...]
) -> None:
    x, views = tensor(rng, 7, 16), [tensor(rng, length, 12) for length in lengths]
    expected = torch.stack([one_view_in_fp64(attention, x, view) for view in views]).mean(0)
    out = attention(x, attention.keys_values(views), Segments([7]))
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_views_lead_one_item_at_a_time(
    attention: MultiViewCrossAttention, rng: np.random.Generator
) -> None:
    kv = attention.keys_values(tensor(rng, 3, 5, 12))
    with pytest.raises(ValueError, match="views lead one item of 2"):
        attention(tensor(rng, 8, 16), kv, Segments([4, 4]))


@torch.no_grad()
def test_a_view_given_twice_is_a_view_given_once(rng: np.random.Generator) -> None:
    flow = random_weights(build(*NETWORKS["slat_flow_model"]), seed=3)
    x, view = SparseTensor(tensor(rng, 3, 8), COORDS), tensor(rng, 1, 9, COND)
    t = torch.tensor([500.0])
    once, twice = flow(x, t, view).feats, flow(x, t, view.expand(2, -1, -1)).feats
    torch.testing.assert_close(twice, once, atol=1e-5, rtol=1e-4)
    other = flow(x, t, torch.cat((view, tensor(rng, 1, 9, COND)))).feats
    assert (other - once).abs().max() > 1e-3


@torch.no_grad()
def test_views_and_no_view_in_one_batch(rng: np.random.Generator) -> None:
    """What a GPU computes at once: the views' velocity, and that under no view at all."""
    flow = random_weights(build(*NETWORKS["slat_flow_model"]), seed=3)
    x, views = SparseTensor(tensor(rng, 3, 8), COORDS), tensor(rng, 3, 9, COND)
    conditions = [flow.contexts(views), flow.contexts(torch.zeros(1, 1, COND))]
    apart = SparseVelocity(flow, x)(x.feats, 0.5, conditions)
    at_once = SparseVelocity(flow, x, batched=True)(x.feats, 0.5, conditions)
    for one, other in zip(at_once, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


# -- conditions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "within"),
    [
        pytest.param(torch.float16, 5e-3, id="fp16"),  # 11 bits, through a few dozen roundings
        pytest.param(torch.bfloat16, 4e-2, id="bf16"),  # 8 bits
    ],
)
@torch.no_grad()
def test_conditions_in_half_precision(
    rng: np.random.Generator, dtype: torch.dtype, within: float
) -> None:
    layers, tokens = [tensor(rng, 2, 5, 24) for _ in range(4)], tensor(rng, 2, 5, 16)
    for network, torso in (
        (StructureCondition(16, 40, 2, 2, True, 8), STRUCTURE_TORSO),
        (LatentCondition(16, 40), LATENT_TORSO),
    ):
        random_weights(network, seed=5)
        whole = network(layers, tokens)
        half = to_half(network, dtype, torso)(layers, tokens)
        assert half.dtype == torch.float32
        assert 0 < (half - whole).abs().max() <= within * whole.abs().max()


@torch.no_grad()
def test_the_structure_is_told_of_patches_alone_the_latent_of_all_tokens(
    loaded: ReconViaGenPipeline, rng: np.random.Generator
) -> None:
    """Of 5 + 37^2 tokens the first five are class or camera, and registers, in both networks."""
    generator, networks = loaded.generator, loaded.generator.networks
    pictures = [rng.integers(0, 256, (518, 518, 3), dtype=np.uint8) for _ in range(2)]
    conditions = generator.look(pictures)
    tokens = generator.base.look(pictures)
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    seen = networks.vggt(pixels)
    assert tokens.shape[1] == seen.layers[0].shape[1] == 5 + 37 * 37
    patches = [layer[:, 5:] for layer in seen.layers]
    structure = networks.structure_condition(patches, tokens[:, 5:])
    torch.testing.assert_close(conditions.structure, structure)
    torch.testing.assert_close(conditions.latent, networks.latent_condition(seen.layers, tokens))
    torch.testing.assert_close(conditions.poses, seen.poses)


# -- sampling ------------------------------------------------------------------------------------


def test_latent_is_sampled_as_written_out(
    loaded: ReconViaGenPipeline, rng: np.random.Generator
) -> None:
    """w v(views) + (1 - w) v(zeros) in the interval, the predicted sample's spread brought back."""
    settings = SamplerSettings(5, 4.0, (0.6, 1.0), 3.0, 0.5)
    base = replace(loaded.generator.base, latent_mean=[0.0] * 8, latent_std=[1.0] * 8)
    generator, flow = replace(loaded.generator, base=base), base.networks.latent_flow
    views = tensor(rng, 3, 7, COND)
    conditions = Conditions(torch.zeros(0), views, torch.zeros(3, 9))
    out = generator.latent(conditions, COORDS, torch.Generator().manual_seed(3), settings).feats

    def velocity(x: Tensor, t: float, cond: Tensor) -> Tensor:
        return flow(SparseTensor(x, COORDS), torch.tensor([1000 * t]), cond).feats

    with torch.no_grad():
        x = torch.randn(3, 8, generator=torch.Generator().manual_seed(3))
        times = rescaled_times(5, 3.0)
        assert any(t < 0.6 for t in times[:-1])
        for t, t_next in zip(times, times[1:], strict=False):
            v = velocity(x, t, views)
            if t >= 0.6:
                guided = 4 * v - 3 * velocity(x, t, torch.zeros_like(views))
                away = 1e-5 + (1 - 1e-5) * t
                x0, x0_guided = ((1 - 1e-5) * x - away * u for u in (v, guided))
                x0 = 0.5 * x0_guided * (x0.std() / x0_guided.std()) + 0.5 * x0_guided
                v = ((1 - 1e-5) * x - x0) / away
            x = x - (t - t_next) * v
    # Keys and values made once, one token for many zeros: the same sums in another order.
    torch.testing.assert_close(out, x, atol=1e-4, rtol=1e-4)


# -- what is looked at ---------------------------------------------------------------------------


def photo(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Grey everywhere, opaque inside (left, top, right, bottom)."""
    left, top, right, bottom = box
    rgba = np.full((height, width, 4), 200, np.uint8)
    rgba[..., 3] = 0
    rgba[top:bottom, left:right, 3] = 255
    return rgba


def test_crop_is_a_tenth_larger_than_the_object_and_centred() -> None:
    framed = frame_on_black(photo(300, 200, (100, 50, 201, 101)))  # spans 100 and 50 pixels
    assert framed.pixels.shape == (518, 518, 3) and framed.pixels.dtype == np.uint8
    assert (framed.left_px, framed.top_px, framed.side_px) == (95, 20, 110)
    seen = framed.pixels[..., 0] > 100
    assert seen[259, 259] and not seen[0].any() and not seen[:, 0].any()
    assert seen[259].sum() == pytest.approx(101 / 110 * 518, abs=5)
    assert seen[:, 259].sum() == pytest.approx(51 / 110 * 518, abs=5)


def test_a_crop_beyond_the_edge_is_padded_there() -> None:
    """The object touches the left edge: the square keeps to the photo, and is filled up."""
    framed = frame_on_black(photo(300, 200, (0, 50, 101, 101)))
    assert framed.side_px == 110  # as high as wide; 105 columns of it are there
    assert framed.left_px == -2 and framed.top_px == 20
    rows = framed.pixels[259, :, 0] > 100
    assert not rows[:5].any() and rows[20]


def test_colours_stop_where_alpha_is_soft() -> None:
    rgba = photo(100, 100, (20, 20, 80, 80))
    rgba[20:80, 20:50, 3] = 190  # 74 %: not the object's
    rgba[40, 20:80, 3] = 255
    left, right = frame_on_black(rgba).pixels[400, 150], frame_on_black(rgba).pixels[400, 400]
    assert (left == 0).all() and (right == 200).all()


def test_a_large_photo_is_reduced_and_told_in_its_own_pixels() -> None:
    framed = frame_on_black(photo(2048, 1024, (600, 300, 1001, 501)))
    assert framed.side_px == pytest.approx(440, abs=6)
    assert framed.left_px == pytest.approx(580, abs=4)


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (5, 5, 6, 6)])
def test_nothing_to_see_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(InvalidInput, match=r"photo\.png shows no object") as error:
        frame_on_black(photo(50, 50, box), "photo.png")
    assert error.value.code == "image_transparent"


def test_a_camera_projects_into_the_photo_as_into_the_square(rng: np.random.Generator) -> None:
    """A point lands in the square where the crop puts what lies in the photo at its projection."""
    pose = torch.tensor([[0.1, -0.2, 2.0, 0.1, 0.2, 0.3, 0.9, 0.7, 0.9]])
    frame = Framed(np.zeros((518, 518, 3), np.uint8), left_px=-12.0, top_px=30.0, side_px=259.0)
    whole = Framed(frame.pixels, 0.0, 0.0, 518.0)
    point = np.append(rng.standard_normal(3) * 0.2, 1)

    def project(frame: Framed) -> np.ndarray:
        (facts,) = camera_facts(pose, [frame])
        seen = np.array(facts["intrinsics_px"]) @ np.array(facts["world_to_camera"]) @ point
        return np.asarray(seen[:2] / seen[2])

    expected = project(whole) * 259 / 518 + np.array([-12.0, 30.0])
    np.testing.assert_allclose(project(frame), expected, atol=1e-3)


def test_a_camera_that_sees_nothing_has_no_intrinsics() -> None:
    """The network's field of view ends in a ReLU: it may be zero."""
    frame = Framed(np.zeros((518, 518, 3), np.uint8), 0, 0, 100)
    pose = torch.tensor([[0, 0, 1, 0, 0, 0, 1.0, 0, 0.5], [0, 0, 1, 0, 0, 0, 0.0, 0.5, 0.5]])
    blind, nowhere = camera_facts(pose, [frame, frame])
    assert blind["intrinsics_px"] is None
    assert np.array(blind["world_to_camera"]).shape == (3, 4)
    assert nowhere["world_to_camera"] is None
    assert np.array(nowhere["intrinsics_px"]).shape == (3, 3)
