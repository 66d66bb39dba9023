"""BiRefNet on a GPU in half precision, against the same on the CPU in full."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.image_to_mesh.preprocess.birefnet.deformable import deform_conv2d
from models.image_to_mesh.preprocess.birefnet.network import BiRefNet, BiRefNetConfig
from tests.models.image_to_mesh.preprocess.seeded import seeded

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float16, 5e-3)], ids=str
)
def test_deformable_convolution(
    dtype: torch.dtype, tolerance: float, cuda: str, rng: np.random.Generator
) -> None:
    """Of rows beyond the first chunk, too: 300 columns of 49 taps and 64 channels."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape)).to(dtype)

    x, weight = draw(1, 64, 80, 300), draw(32, 64, 7, 7) / 56
    offset, factor = 3 * draw(1, 98, 80, 300), draw(1, 49, 80, 300)
    expected = deform_conv2d(x.double(), offset.double(), factor.double(), weight.double())
    out = deform_conv2d(*(each.to(cuda) for each in (x, offset, factor, weight)))
    # Values are about 1. A column near 300 is known to 1.5e-5 of a pixel: 5e-5, seen on a CPU.
    assert (out.cpu().double() - expected).abs().max() < tolerance


@torch.no_grad()
def test_mask(cuda: str, rng: np.random.Generator) -> None:
    network = seeded(BiRefNet(BiRefNetConfig(16, (2, 2, 2, 2), (1, 2, 4, 8), 12)))
    image = torch.from_numpy(rng.standard_normal((1, 3, 256, 256))).float()
    expected = network(image).sigmoid()
    halved = network.to(cuda).half()(image.to(cuda).half()).float().cpu().sigmoid()
    # Random weights look at noise between pixels, which magnifies: few pixels differ, by more.
    assert (halved - expected).abs().mean() < 0.02
