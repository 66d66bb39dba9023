"""From a picture to its alpha: what the network is shown, what is made of its answer, loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.context import Cancelled, Unavailable
from models.image_to_mesh.preprocess.birefnet.network import BiRefNet, BiRefNetConfig
from models.image_to_mesh.preprocess.birefnet.remover import (
    BackgroundRemover,
    load_remover,
    stages,
)
from models.nn.residency import Residency
from models.nn.weights import WeightsUnfit
from tests.models.image_to_mesh.preprocess.seeded import seeded

TINY = BiRefNetConfig(8, (1, 1, 1, 1), (1, 1, 2, 2), 4, inner=8, branch=8, detail=4)


class Fake(nn.Module):
    """Remembers what it was shown; its answer is a channel of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.shown = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.shown = x
        return x[:, :1] * self.weight


def remover(network: nn.Module, side_px: int = 32) -> BackgroundRemover:
    return BackgroundRemover(network, Residency("cpu"), side_px)


def test_the_network_is_shown_a_normalised_square() -> None:
    network = Fake()
    rgb = np.broadcast_to(np.array([255, 0, 128], np.uint8), (20, 50, 3))
    remover(network)(np.ascontiguousarray(rgb))
    assert network.shown.shape == (1, 3, 32, 32)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (128 / 255 - 0.406) / 0.225])
    torch.testing.assert_close(network.shown[0].mean((1, 2)), expected)
    assert network.shown[0].std((1, 2)).max() < 1e-5


def test_alpha_has_the_pictures_size_and_place() -> None:
    """Red on the right, three times as wide as high: alpha there, and nowhere else."""
    rgb = np.zeros((40, 120, 3), np.uint8)
    rgb[:, 80:, 0] = 255
    alpha = remover(Fake())(rgb)
    assert (alpha.shape, alpha.dtype) == ((40, 120), np.float32)
    # A logit of 2.25 on red and of -2.12 on black.
    assert np.allclose(alpha[:, 88:], 1 / (1 + np.exp(-2.2489)), atol=1e-3)
    assert np.allclose(alpha[:, :72], 1 / (1 + np.exp(2.1179)), atol=1e-3)
    assert alpha.min() >= 0 and alpha.max() <= 1


def test_mask_that_is_no_number_is_refused() -> None:
    network = Fake()
    network.weight.data.fill_(float("nan"))
    with pytest.raises(Unavailable, match="not finite on cpu") as caught:
        remover(network)(np.zeros((8, 8, 3), np.uint8))
    assert caught.value.code == "mask_not_finite"


def test_device_without_the_memory_is_told() -> None:
    class Full(Fake):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(Unavailable, match="free memory of cpu") as caught:
        remover(Full())(np.zeros((8, 8, 3), np.uint8))
    assert caught.value.code == "out_of_memory"


def test_a_check_that_raises_ends_the_pass_before_the_next_stage(rng: np.random.Generator) -> None:
    """And leaves nothing behind: the same remover answers the next picture as ever."""
    network = seeded(BiRefNet(TINY))
    rgb = rng.integers(0, 256, (64, 64, 3), np.uint8)
    asked: list[int] = []
    done: list[nn.Module] = []
    whole = remover(network, 64)(rgb, lambda: asked.append(len(done)))
    assert len(asked) > 40  # two passes through the backbone, and the decoder
    watching = [
        part.register_forward_hook(lambda part, *_: done.append(part)) for part in stages(network)
    ]

    def check() -> None:
        asked.append(len(done))
        if len(done) == 3:
            raise Cancelled("The job was cancelled.")

    asked.clear()
    with pytest.raises(Cancelled):
        remover(network, 64)(rgb, check)
    assert asked == [0, 1, 2, 3] and len(done) == 3
    for handle in watching:
        handle.remove()
    assert np.array_equal(remover(network, 64)(rgb), whole)
    assert len(asked) == 4


def test_stages_hold_all_that_takes_time() -> None:
    """Convolutions and products of some size lie in parts before which the check runs."""
    network = BiRefNet(TINY)
    within = {module for stage in stages(network) for module in stage.modules()}
    outside = {
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module not in within
    }
    # Patches, mergings, single channels, and the loss's own, which are not run.
    small = ("bb.patch_embed", "downsample", "gdt_convs", "conv_ms_spvn", "conv_out1")
    assert {name for name in outside if not any(word in name for word in small)} == set()


def test_a_release_is_loaded_unchanged(tmp_path: Path, rng: np.random.Generator) -> None:
    """As published: half-precision floats, positions and counters as integers."""
    network = seeded(BiRefNet(TINY))
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_remover(tmp_path, "cpu", TINY)
    kinds = {parameter.dtype for parameter in loaded.network.parameters()}
    assert kinds == {torch.float32}
    rgb = rng.integers(0, 256, (64, 64, 3), np.uint8)
    expected = remover(network.half().float(), side_px=64)(rgb)
    loaded.side_px = 64
    assert np.array_equal(loaded(rgb), expected)
    assert expected.std() > 0.01


def test_another_network_is_refused(tmp_path: Path) -> None:
    save_file({"bb.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsUnfit, match="does not hold this network"):
        load_remover(tmp_path, "cpu", TINY)
