"""1-D codebooks: exact against the plain search, exact for few values, sane for odd ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from models.splat_to_sog.codebook import (
    BINS,
    Codebook,
    build_codebook,
    histogram,
    optimal_partition,
    optimal_partition_reference,
)


def error_of(points, weights, starts) -> float:
    total = 0.0
    for a, b in itertools.pairwise([*starts, len(points)]):
        mean = np.average(points[a:b], weights=weights[a:b])
        total += float((weights[a:b] * (points[a:b] - mean) ** 2).sum())
    return total


@pytest.mark.parametrize(
    ("m", "size"), [(1, 1), (2, 2), (5, 3), (40, 7), (64, 64), (65, 1), (200, 31), (257, 256)]
)
def test_fast_partition_equals_the_reference(rng, m: int, size: int) -> None:
    points, weights = np.sort(rng.normal(size=m)), rng.random(m) + 0.01
    fast = optimal_partition(points, weights, size)
    np.testing.assert_array_equal(fast, optimal_partition_reference(points, weights, size))


def test_reference_partition_is_the_best_of_all(rng) -> None:
    points, weights = np.sort(rng.normal(size=10)), rng.random(10) + 0.01
    best = min(
        error_of(points, weights, (0, *cuts)) for cuts in itertools.combinations(range(1, 10), 3)
    )
    found = error_of(points, weights, optimal_partition_reference(points, weights, 4))
    assert found == pytest.approx(best, rel=1e-9)  # sums in another order


def test_partition_of_far_apart_values_keeps_its_precision(rng) -> None:
    """Points near 1e6: without centring, squares would cancel to nothing."""
    points, weights = 1e6 + np.sort(rng.random(50)), np.ones(50)
    fast = optimal_partition(points, weights, 9)
    near = optimal_partition_reference(points - 1e6, weights, 9)
    assert error_of(points, weights, fast) == pytest.approx(
        error_of(points, weights, near), rel=1e-5
    )


@pytest.mark.parametrize("distinct", [1, 2, 255, 256])
def test_few_values_are_kept_exactly(rng, distinct: int) -> None:
    levels = rng.normal(size=distinct).astype(np.float32)
    values = rng.choice(levels, (1000, 3))
    book = build_codebook(values)
    np.testing.assert_array_equal(book.decode(book.encode(values)), values)
    assert len(book.padded()) == 256


def test_every_value_gets_its_nearest_level(rng) -> None:
    values = rng.normal(size=5000).astype(np.float32)
    book = build_codebook(values)
    distance = np.abs(values[:, None].astype(np.float64) - book.levels)
    chosen = distance[np.arange(5000), book.encode(values)]
    np.testing.assert_array_equal(chosen, distance.min(axis=1))
    assert (np.diff(book.levels) > 0).all()


def test_far_better_than_even_steps_and_the_tails_are_seen(rng) -> None:
    values = (rng.standard_t(3, 100_000)).astype(np.float32)
    book = build_codebook(values)
    error = values - book.decode(book.encode(values))
    step = (values.max() - values.min()) / 255
    assert np.sqrt(np.mean(error**2)) < 0.25 * step / np.sqrt(12)
    tail = np.abs(values) > np.quantile(np.abs(values), 0.9999)
    assert np.abs(error[tail]).max() < step


def test_rare_values_count_by_the_root_of_their_number(rng) -> None:
    """Against levels for the plain squared error: better in the tail, a little worse over all."""
    values = rng.standard_t(3, 100_000).astype(np.float32)
    points, counts = histogram(values)
    starts = optimal_partition(points, counts, 256)
    plain = Codebook(
        (np.add.reduceat(points * counts, starts) / np.add.reduceat(counts, starts)).astype("f4")
    )
    tail = np.abs(values) > np.quantile(np.abs(values), 0.999)

    def rms(book: Codebook, rows: np.ndarray) -> float:
        return float(np.sqrt(np.mean((values - book.decode(book.encode(values)))[rows] ** 2)))

    everything = np.ones(len(values), bool)
    weighted = build_codebook(values)
    assert rms(weighted, tail) < 0.6 * rms(plain, tail)
    assert rms(plain, everything) < rms(weighted, everything)


def test_infinities_get_levels_of_their_own(rng) -> None:
    values = rng.normal(size=3000).astype(np.float32)
    values[:5], values[5:7] = -np.inf, np.inf
    book = build_codebook(values)
    indices = book.encode(values)
    assert (indices[:5] == 0).all() and (indices[5:7] == 255).all()
    assert ((indices[7:] > 0) & (indices[7:] < 255)).all()
    assert book.levels[0] < values[7:].min() - 19 and book.levels[-1] > values[7:].max() + 19
    assert np.isfinite(book.padded()).all()


def test_nothing_but_infinities() -> None:
    book = build_codebook(np.full(3, -np.inf, np.float32))
    assert book.decode(book.encode(np.float32([-np.inf]))) == [-20]


def test_histogram_keeps_every_value_and_the_mean(rng) -> None:
    values = rng.normal(size=20_000).astype(np.float32)
    points, counts = histogram(values)
    assert len(points) <= BINS
    assert counts.sum() == 20_000
    assert (points * counts).sum() == pytest.approx(values.astype(np.float64).sum(), rel=1e-9)
    assert points[0] == values.min()  # the first rank and value fall into a bin of their own
