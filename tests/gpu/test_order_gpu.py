"""The curve and the walk on a GPU: the same order as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.order import hilbert_keys
from models.splat_to_sog.order.device import hilbert_order_on_device, walk_on_device
from models.splat_to_sog.order.walk import FARTHEST, walk

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("n", "span", "channels"), [(1, 256, 3), (700, 256, 3), (5000, 256, 16), (9000, 2048, 14)]
)
def test_the_walk_is_the_same(rng, cuda, n: int, span: int, channels: int) -> None:
    values = rng.integers(0, FARTHEST // channels, (channels, n), dtype=np.int16)
    values[:, : n // 2] >>= 9  # few distinct values: ties

    def coordinates(rows):
        return values[:, rows]

    order = rng.permutation(n)
    found = walk_on_device(coordinates, order, span, cuda)
    np.testing.assert_array_equal(found, walk(coordinates, order, span))


@pytest.mark.parametrize("n", [1, 255, 100_003])
def test_the_curve_is_the_cpus(rng, cuda, n) -> None:
    steps = rng.integers(0, 1 << 16, (n, 3)).astype(np.uint16)
    steps[n // 2 :] >>= 13  # many in one place: equal keys keep the order of the input
    group = rng.integers(0, 8, n).astype(np.uint8)
    np.testing.assert_array_equal(
        hilbert_order_on_device(steps, group, cuda),
        np.lexsort((hilbert_keys(steps), group)),
    )
