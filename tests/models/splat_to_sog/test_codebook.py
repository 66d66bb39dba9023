"""1-D codebooks: exact against the plain search, exact for few values, sane for odd ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from models.splat_to_sog.codebook import (
    BINS,
    TABLE,
    Codebook,
    _by_table,
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


@pytest.mark.parametrize("levels", [2, 3, 40, 256])
@pytest.mark.parametrize("kind", ["even", "clustered", "far from zero", "tiny", "vast"])
def test_the_table_equals_the_plain_search(rng, levels: int, kind: str) -> None:
    """On many values: at the middles, beside them, at the levels, outside, anywhere."""
    chosen = {
        "even": lambda: np.linspace(-3, 3, levels),
        "clustered": lambda: np.cumsum(np.exp(rng.normal(size=levels) * 4)),
        "far from zero": lambda: 1000 + rng.random(levels),
        "tiny": lambda: rng.random(levels) * 1e-28,
        "vast": lambda: rng.normal(size=levels) * 1e28,
    }[kind]()
    book = Codebook(np.unique(chosen.astype(np.float32)))
    exact = book.levels.astype(np.float64)
    middles = (exact[1:] + exact[:-1]) / 2
    low, high = float(exact[0]), float(exact[-1])
    spread = high - low
    values = np.concatenate(
        [
            rng.uniform(low - spread / 9, high + spread / 9, 2 * TABLE),
            rng.choice(exact, TABLE) * (1 + rng.normal(size=TABLE) * 1e-7),
            np.repeat(middles, 9),
            rng.choice(middles, 500) + rng.normal(size=500) * spread * 1e-7,
            [low - 1e3 * spread, high + 1e3 * spread, low, high],
        ]
    )
    for kept in (values.astype(np.float32), np.nextafter(values.astype(np.float32), np.float32(9))):
        expected = np.searchsorted(middles, kept, side="left")
        np.testing.assert_array_equal(_by_table(middles, low, high, kept), expected)
        np.testing.assert_array_equal(book.encode(kept.reshape(1, -1)), expected[None])


def test_large_arrays_are_encoded_as_small_ones(rng) -> None:
    """The table is for many values only; infinities and a range beyond float32 need no other."""
    values = rng.standard_t(2, (30_000, 3)).astype(np.float32)
    values[:4] = -np.inf
    values[4] = 3.3e38, -3.3e38, np.inf
    for part in (values, values[:4], values[5:]):
        book = build_codebook(part)
        by_parts = [book.encode(part[i : i + 1000]) for i in range(0, len(part), 1000)]
        np.testing.assert_array_equal(book.encode(part), np.concatenate(by_parts))


def test_values_of_no_worth_have_levels_all_the_same(rng) -> None:
    """Every splat invisible: nothing is worth anything, yet all is stored."""
    values = rng.normal(size=(4000, 3)).astype(np.float32)
    book = build_codebook(values, worth=np.zeros(4000, np.float32))
    assert np.isfinite(book.levels).all()
    assert np.abs(book.decode(book.encode(values)) - values).max() < 0.2


def test_nothing_but_infinities_with_a_worth() -> None:
    values = np.full((3, 3), -np.inf, np.float32)
    book = build_codebook(values, worth=np.ones(3, np.float32))
    assert (book.decode(book.encode(values)) == -20).all()


def test_what_is_worth_more_is_stored_better(rng) -> None:
    """Values above zero are worth a thousand times those below."""
    values = rng.normal(size=50_000).astype(np.float32)
    worth = np.where(values > 0, 1000, 1).astype(np.float32)
    book = build_codebook(values, worth=worth)
    squared = (values - book.decode(book.encode(values))) ** 2
    assert squared[values > 0].mean() < 0.3 * squared[values <= 0].mean()
    plain = build_codebook(values)
    plainly = (values - plain.decode(plain.encode(values))) ** 2
    assert squared @ worth < 0.8 * (plainly @ worth)


@pytest.mark.parametrize("step", [0.01, 0.1, 0.5, 3.0, 100.0])
def test_coarse_levels_are_about_a_step_apart(rng, step: float) -> None:
    values = rng.normal(size=20_000).astype(np.float32)
    book = build_codebook(values)
    chosen = book.levels[book.coarse(step)]
    assert chosen[0] == book.levels[0]
    # One level a slot, each at most half a step from the slot's middle.
    slots = np.rint((chosen - chosen[0]) / step)
    assert (np.diff(slots) >= 1).all()
    np.testing.assert_array_equal(
        book.encode_coarse(values, step), book.coarse(step)[Codebook(chosen).encode(values)]
    )
    if step == 0.5:
        assert len(chosen) < 20
    assert len(book.coarse(1e-9)) == len(book.levels)
