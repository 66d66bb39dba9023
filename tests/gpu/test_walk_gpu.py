"""The walk on a GPU: the same order as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.order.walk import FARTHEST, walk


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("n", "span", "channels"), [(1, 256, 3), (700, 256, 3), (5000, 256, 16), (9000, 2048, 14)]
)
def test_the_walk_is_the_same(rng, n: int, span: int, channels: int) -> None:
    pytest.importorskip("cupy")
    from models.splat_to_sog.order.device import walk_on_device

    values = rng.integers(0, FARTHEST // channels, (channels, n), dtype=np.int16)
    values[:, : n // 2] >>= 9  # few distinct values: ties

    def coordinates(rows):
        return values[:, rows]

    order = rng.permutation(n)
    found = walk_on_device(coordinates, order, span, "cuda:0")
    np.testing.assert_array_equal(found, walk(coordinates, order, span))
