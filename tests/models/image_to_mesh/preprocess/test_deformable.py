"""Deformable convolution against its definition, tap by tap in fp64, on fresh random input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.image_to_mesh.preprocess.birefnet import deformable
from models.image_to_mesh.preprocess.birefnet.deformable import deform_conv2d

Draw = Callable[..., Tensor]
HEIGHT, WIDTH, CHANNELS, OUT = 7, 9, 5, 4


@pytest.fixture
def draw(rng: np.random.Generator) -> Draw:
    def make(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape)).to(dtype)

    return make


def by_definition(x: Tensor, offset: Tensor, modulation: Tensor, weight: Tensor) -> Tensor:
    """Equation 2 of arXiv 1811.11168, with nested loops."""
    batch, channels, height, width = x.shape
    side = weight.shape[2]
    padded = F.pad(x, (1, 1, 1, 1))  # what lies outside is zero, and fades in over one pixel

    def at(b: int, y: float, x_at: float) -> Tensor:
        total = torch.zeros(channels, dtype=x.dtype)
        for row in (int(np.floor(y)), int(np.floor(y)) + 1):
            for column in (int(np.floor(x_at)), int(np.floor(x_at)) + 1):
                if -1 <= row <= height and -1 <= column <= width:
                    share = (1 - abs(y - row)) * (1 - abs(x_at - column))
                    total += share * padded[b, :, row + 1, column + 1]
        return total

    out = torch.zeros(batch, len(weight), height, width, dtype=x.dtype)
    for b, i, j, tap in np.ndindex(batch, height, width, side * side):
        y = i + tap // side - side // 2 + float(offset[b, 2 * tap, i, j])
        x_at = j + tap % side - side // 2 + float(offset[b, 2 * tap + 1, i, j])
        sample = modulation[b, tap, i, j] * at(b, y, x_at)
        out[b, :, i, j] += weight[:, :, tap // side, tap % side] @ sample
    return out


@pytest.mark.parametrize("side", [1, 3])
def test_equals_its_definition(side: int, draw: Draw) -> None:
    taps = side * side
    x, weight = draw(2, CHANNELS, HEIGHT, WIDTH), draw(OUT, CHANNELS, side, side)
    offset, factor = 4 * draw(2, 2 * taps, HEIGHT, WIDTH), draw(2, taps, HEIGHT, WIDTH)
    expected = by_definition(x, offset, factor, weight)
    torch.testing.assert_close(deform_conv2d(x, offset, factor, weight), expected)
    single = deform_conv2d(x.float(), offset.float(), factor.float(), weight.float())
    # fp32: 45 products of values about 1, at places that are known to 1e-6 of a pixel.
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("side", [1, 3, 7])
def test_without_offsets_it_is_a_convolution(side: int, draw: Draw) -> None:
    taps = side * side
    x, weight = draw(1, CHANNELS, HEIGHT, WIDTH), draw(OUT, CHANNELS, side, side)
    still = torch.zeros(1, 2 * taps, HEIGHT, WIDTH, dtype=x.dtype)
    out = deform_conv2d(x, still, torch.ones_like(still[:, :taps]), weight)
    torch.testing.assert_close(out, F.conv2d(x, weight, padding=side // 2))


def test_rows_at_once_do_not_matter(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = draw(2, CHANNELS, HEIGHT, WIDTH), draw(OUT, CHANNELS, 3, 3)
    offset, factor = draw(2, 18, HEIGHT, WIDTH), draw(2, 9, HEIGHT, WIDTH)
    whole = deform_conv2d(x, offset, factor, weight)
    three_rows = 3 * 9 * CHANNELS * WIDTH * x.element_size()
    monkeypatch.setattr(deformable, "GATHER_BYTES", three_rows)
    torch.testing.assert_close(deform_conv2d(x, offset, factor, weight), whole)


def test_places_in_half_precision_keep_their_fractions() -> None:
    """fp16 has no eighths beyond 256, nor odd numbers beyond 2048: places are computed in fp32."""
    stripes = (torch.arange(400) % 2).half().expand(1, 1, 6, 400).contiguous()
    offset = torch.zeros(1, 2, 6, 400, dtype=torch.float16)
    offset[0, 1] = 0.125
    one = torch.ones(1, 1, 1, 1, dtype=torch.float16)
    moved = deform_conv2d(stripes, offset, one.expand(1, 1, 6, 400), one)
    expected = torch.tensor([0.125, 0.875]).repeat(200)[:-1].expand(6, 399)
    assert torch.equal(moved[0, 0, :, :-1].float(), expected)


def test_offsets_that_are_no_numbers_look_outside(draw: Draw) -> None:
    x, weight = draw(1, CHANNELS, HEIGHT, WIDTH), draw(OUT, CHANNELS, 1, 1)
    offset = torch.zeros(1, 2, HEIGHT, WIDTH, dtype=x.dtype)
    offset[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -1e30])
    out = deform_conv2d(x, offset, torch.ones_like(offset[:, :1]), weight)
    assert (out[0, :, 0, :3] == 0).all()
    torch.testing.assert_close(out[0, :, 1:], F.conv2d(x, weight)[0, :, 1:])
