"""Sizes of textures: room for every splat, sides that WebP and graphics cards take."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.splat_to_sog import layout
from models.splat_to_sog.webp import MAX_SIDE_PX


@given(st.integers(1, layout.MAX_SPLATS), st.sampled_from([0, 4, 256, 512, 1024, 4096]))
def test_every_splat_has_a_texel_and_sides_are_legal(count: int, row: int) -> None:
    width, height = layout.texture_size(count, row)
    assert width * height >= count
    assert width * (height - 4) < count  # no row of padding beyond the multiple of 4
    assert width % 4 == height % 4 == 0
    assert max(width, height) <= MAX_SIDE_PX
    if count <= layout.TALLEST**2:
        assert max(width, height) <= layout.TALLEST


@given(st.integers(1, 1 << 22))
def test_rows_are_whole_blocks(count: int) -> None:
    width, _ = layout.texture_size(count, 256)
    assert width % 256 == 0 or count <= 256 or width == 4 * math.ceil(math.sqrt(count) / 4)


@pytest.mark.parametrize(
    ("count", "row", "size"),
    [
        (152_746, 0, (392, 392)),
        (152_746, 256, (256, 600)),
        (1_000_000, 256, (256, 3908)),
        (1_100_000, 256, (512, 2152)),
        (10_000_000, 1024, (4096, 2444)),
        (200, 256, (16, 16)),
    ],
)
def test_known_sizes(count: int, row: int, size: tuple[int, int]) -> None:
    assert layout.texture_size(count, row) == size
