"""The generator's stages against the same computed step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.context import InvalidInput
from models.image_to_mesh.trellis.checkpoint import load_generator
from models.image_to_mesh.trellis.generator import Generator
from models.image_to_mesh.trellis.release import SamplerSettings, read_release
from models.nn.residency import Residency
from models.nn.samplers import rescaled_times
from models.nn.sparse_tensor import SparseTensor
from tests.models.image_to_mesh.trellis.tiny import COND

SETTINGS = SamplerSettings(5, 5.0, (0.5, 1.0), 3.0)
COORDS = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4], [0, 5, 5, 5]], dtype=torch.int32)


@pytest.fixture(scope="module")
def generator(models_folder: Path) -> Generator:
    return load_generator(
        read_release(models_folder / "trellis-image-large"),
        models_folder / "dinov2-large-registers",
        Residency("cpu"),
        torch.float32,
    )


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def tokens(rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal((1, 7, COND)).astype(np.float32))


def written_out(
    velocity: Callable[[Tensor, float, Tensor], Tensor], x: Tensor, tokens: Tensor
) -> Tensor:
    """(1 + w) v(image) - w v(zeros) where 0.5 <= t <= 1, v(image) below; Euler steps to t = 0."""
    times = rescaled_times(SETTINGS.steps, SETTINGS.rescale_t)
    assert any(t < 0.5 for t in times[:-1])
    for t, t_next in zip(times, times[1:], strict=False):
        v = velocity(x, t, tokens)
        if t >= 0.5:
            v = 6.0 * v - 5.0 * velocity(x, t, torch.zeros_like(tokens))
        x = x - (t - t_next) * v
    return x


def test_structure_is_sampled_as_written_out(generator: Generator, tokens: Tensor) -> None:
    flow, decoder = generator.networks.structure_flow, generator.networks.structure_decoder
    with torch.no_grad():
        x = written_out(
            lambda x, t, cond: flow(x, torch.tensor([1000 * t]), cond),
            torch.randn(1, 8, 2, 2, 2, generator=seeded()),
            tokens,
        )
        expected = (decoder(x)[:, 0] > 0).nonzero().int()
    coords = generator.structure(tokens, seeded(), SETTINGS)
    assert 0 < len(coords) < 512
    assert torch.equal(coords, expected)


def test_latent_is_sampled_as_written_out(generator: Generator, tokens: Tensor) -> None:
    flow, noise = generator.networks.latent_flow, torch.randn(3, 8, generator=seeded())
    with torch.no_grad():
        x = written_out(
            lambda x, t, cond: flow(SparseTensor(x, COORDS), torch.tensor([1000 * t]), cond).feats,
            noise,
            tokens,
        )
    plain = replace(generator, latent_mean=[0.0] * 8, latent_std=[1.0] * 8)
    # Keys and values made once, one token for many zeros: the same sums in another order.
    torch.testing.assert_close(
        plain.latent(tokens, COORDS, seeded(), SETTINGS).feats, x, atol=1e-4, rtol=1e-4
    )


def test_latent_comes_in_the_decoders_scale(generator: Generator, tokens: Tensor) -> None:
    plain = replace(generator, latent_mean=[0.0] * 8, latent_std=[1.0] * 8)
    scaled = replace(generator, latent_mean=range(8), latent_std=range(1, 9))
    as_sampled = plain.latent(tokens, COORDS, seeded(), SETTINGS).feats
    expected = as_sampled * torch.arange(1.0, 9) + torch.arange(8.0)
    torch.testing.assert_close(scaled.latent(tokens, COORDS, seeded(), SETTINGS).feats, expected)


def test_empty_structure_is_told_with_a_next_step(
    generator: Generator, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bias = generator.networks.structure_decoder.out_layer[2].bias
    monkeypatch.setattr(bias, "data", bias.data - 1000)
    with pytest.raises(InvalidInput, match="No shape was found") as error:
        generator.structure(tokens, seeded(), SETTINGS)
    assert error.value.code == "structure_empty"
    assert error.value.next_step
