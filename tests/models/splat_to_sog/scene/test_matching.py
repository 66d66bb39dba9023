"""Edges taken many at a time are those the plain greedy algorithm takes."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.scene.matching import cheapest_pairs, cheapest_pairs_reference


@pytest.mark.parametrize("levels", [3, 10**6])  # many equal costs, and none
def test_equals_the_greedy_algorithm(rng, levels) -> None:
    for nodes, edges in ((2, 1), (10, 30), (60, 400)):
        i = rng.integers(0, nodes - 1, edges)
        j = i + 1 + rng.integers(0, nodes - 1 - i)
        costs = rng.integers(0, levels, edges).astype(np.float32)
        for limit in (1, nodes // 3, nodes):
            plain = cheapest_pairs_reference(i, j, costs, nodes, limit)
            np.testing.assert_array_equal(cheapest_pairs(i, j, costs, nodes, limit), plain)


def test_no_edges() -> None:
    none = np.empty(0, np.intp)
    assert len(cheapest_pairs(none, none, np.empty(0), 5, 3)) == 0
