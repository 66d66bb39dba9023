"""Codebooks on a GPU: the CPU's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.codebook import build_codebook, optimal_partition

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("points", "size"),
    [(2, 1), (2, 2), (3, 2), (17, 5), (33, 32), (255, 254), (700, 256), (1023, 30), (1024, 256)],
)
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_split_is_the_same_to_the_bit(rng, cuda, points, size, spread) -> None:
    at = np.sort(rng.normal(size=points) * np.exp(spread * rng.normal(size=points)))
    weights = np.exp(spread * rng.normal(size=points))
    np.testing.assert_array_equal(
        optimal_partition(at, weights, size, cuda), optimal_partition(at, weights, size)
    )


def test_ties_fall_the_same_way(cuda) -> None:
    at, weights = np.arange(600.0), np.ones(600)
    np.testing.assert_array_equal(
        optimal_partition(at, weights, 256, cuda), optimal_partition(at, weights, 256)
    )


def test_a_whole_codebook_with_infinities(rng, cuda) -> None:
    values = rng.laplace(size=(60_000, 3)).astype(np.float32)
    values[:50, 1] = -np.inf
    worth = rng.random(60_000).astype(np.float32)
    ours, cpu = (
        build_codebook(values, worth=worth, device=cuda),
        build_codebook(values, worth=worth),
    )
    np.testing.assert_array_equal(ours.levels, cpu.levels)
