"""DINOv2: other image sizes, other names, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.nn.dinov2 import DinoV2, DinoV2Config, official_names
from tests.models.image_to_mesh.trellis.tiny import transformers_names

CONFIG = DinoV2Config(56, 14, 32, 2, 2, 2, 4)


@pytest.fixture
def network(rng: np.random.Generator) -> DinoV2:
    torch.manual_seed(int(rng.integers(2**31)))
    network = DinoV2(CONFIG).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "token" in name or "embed" in name or "gamma" in name:
            parameter.normal_()
    return network


def test_names_of_the_transformers_library_are_the_same_network(network: DinoV2) -> None:
    renamed = official_names(transformers_names(network))
    assert {name: tensor.shape for name, tensor in renamed.items()} == {
        name: tensor.shape for name, tensor in network.state_dict().items()
    }
    for name, tensor in network.state_dict().items():
        assert torch.equal(renamed[name], tensor), name


def test_official_names_pass(network: DinoV2) -> None:
    assert list(official_names(network.state_dict())) == list(network.state_dict())


def test_positions_of_another_size_are_the_trained_grid_resized(network: DinoV2) -> None:
    """A constant grid stays constant, a linear one rises along the right axis; no class token."""
    grid = torch.arange(4.0).repeat_interleave(4)  # rows of the trained 4 x 4
    network.pos_embed[0, 1:] = grid[:, None]
    positions = network._positions(8, 6)[0]
    assert positions.shape == (1 + 48, 32)
    assert torch.equal(positions[0], network.pos_embed[0, 0])
    rows = positions[1:, 0].unflatten(0, (8, 6))
    torch.testing.assert_close(rows, rows[:, :1].expand(-1, 6))
    assert (rows[1:, 0] > rows[:-1, 0]).all()


def test_positions_of_a_smaller_image_are_low_passed(network: DinoV2) -> None:
    """Halved, the filter reaches twice as far: an impulse in column 0 is felt in the right half."""
    network.pos_embed[0, 1:] = 0
    network.pos_embed[0, 1] = 1
    halved = network._positions(2, 2)[0, 1:, 0].unflatten(0, (2, 2))
    assert halved[0, 0] > 0.1
    assert halved[0, 1].abs() > 1e-3


def test_tokens_of_a_wide_image(network: DinoV2) -> None:
    tokens = network(torch.randn(1, 3, 28, 70))
    assert tokens.prenorm.shape == (1, 1 + 4 + 10, 32)
    assert tokens.patches.shape == (1, 10, 32)


def test_image_that_is_no_multiple_of_the_patch_is_refused(network: DinoV2) -> None:
    with pytest.raises(ValueError, match="30x28 pixels: sides must be multiples of 14"):
        network(torch.zeros(1, 3, 30, 28))
