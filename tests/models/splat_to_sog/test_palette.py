"""The SH palette: exact where it can be, nearest labels, seeded, close to plain k-means."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog import palette as palette_module
from models.splat_to_sog.palette import (
    build_palette,
    centroids,
    default_size,
    k_means,
    nearest,
    nearest_reference,
    relabel,
    unique_rows,
)


def rows_like_harmonics(rng, n: int, d: int = 24) -> np.ndarray:
    """Clustered, with noise: neither distinct lumps nor shapeless."""
    centres = rng.normal(size=(200, d))
    return (centres[rng.integers(0, 200, n)] + 0.5 * rng.normal(size=(n, d))).astype(np.float32)


def mse(rows, entries, labels) -> float:
    return float(((rows - entries[labels]) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize(
    ("n", "size"),
    [(1, 1), (5, 5), (1023, 1023), (1024, 1024), (2047, 1024), (2048, 2048), (60_000, 32_768)]
    + [(65_536, 65_536), (10_000_000, 65_536)],
)
def test_default_size(n: int, size: int) -> None:
    assert default_size(n) == size


def test_nearest_equals_the_reference(rng) -> None:
    rows, entries = rng.normal(size=(500, 9)), rng.normal(size=(77, 9))
    rows, entries = rows.astype(np.float32), entries.astype(np.float32)
    labels, distance = nearest(rows, entries)
    expected = nearest_reference(rows, entries)
    # Float32 products may swap two entries that are equally near to about 1e-6.
    exact = ((rows[:, None].astype(np.float64) - entries) ** 2).sum(axis=2)
    at = np.arange(500)
    np.testing.assert_allclose(exact[at, labels], exact[at, expected], rtol=1e-5)
    np.testing.assert_allclose(distance, exact[at, labels], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 60, 250, 300, 1000])
def test_palette_size_labels_and_quality(rng, size: int) -> None:
    rows = rows_like_harmonics(rng, 3000)
    found = build_palette(rows, size, seed=3)
    assert 0.98 * size <= len(found.entries) <= size
    assert sorted(set(found.labels.tolist())) == list(range(len(found.entries)))  # none unused
    best = nearest_reference_in_chunks(rows, found.entries)
    agree = (best == found.labels).mean()
    assert agree > (0.999 if size <= palette_module.FLAT_SIZE else 0.95)
    assert mse(rows, found.entries, found.labels) <= 1.01 * mse(rows, found.entries, best)


def nearest_reference_in_chunks(rows, entries) -> np.ndarray:
    return np.concatenate([nearest_reference(part, entries) for part in np.array_split(rows, 30)])


def test_two_levels_come_close_to_one(rng) -> None:
    rows = rows_like_harmonics(rng, 6000)
    two = build_palette(rows, 600)
    one, labels = k_means(rows, np.ones(len(rows)), 600, np.random.default_rng(0))
    # Measured: within 1 % either way; 5 % would be 0.2 dB.
    assert mse(rows, two.entries, two.labels) < 1.05 * mse(rows, one, labels)


def test_repeated_rows_make_the_palette_exact(rng) -> None:
    distinct = rng.normal(size=(300, 45)).astype(np.float32)
    rows = distinct[rng.integers(0, 300, 5000)]
    found = build_palette(rows, 300)
    np.testing.assert_array_equal(found.entries[found.labels], rows)


def test_same_seed_same_palette_whatever_the_threads(rng, monkeypatch) -> None:
    rows = rows_like_harmonics(rng, 4000)
    first = build_palette(rows, 500, seed=5)
    real = palette_module.ThreadPoolExecutor
    monkeypatch.setattr(palette_module, "ThreadPoolExecutor", lambda workers: real(7))
    second = build_palette(rows, 500, seed=5)
    np.testing.assert_array_equal(first.entries, second.entries)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert not np.array_equal(first.entries, build_palette(rows, 500, seed=6).entries)


def test_lumps_are_found_although_seeds_miss_them(rng) -> None:
    """40 far lumps, one of them with nearly all rows: random seeds start inside it, and only
    moving entries onto badly served rows finds the others."""
    centres = np.arange(40, dtype=np.float32)[:, None] * np.float32(100) * np.ones(3, np.float32)
    labels = np.concatenate([np.zeros(4000, np.intp), np.repeat(np.arange(1, 40), 3)])
    rows = (centres[labels] + rng.normal(size=(len(labels), 3)) * 0.01).astype(np.float32)
    entries = np.repeat(rows[:1], 60, axis=0)  # worst start: all in one place
    start, distances = nearest(rows, entries)
    palette_module._repair_empty(entries, start, rows, distances)
    assert len(np.unique(entries, axis=0)) == 60
    # The plain search with repair serves every lump to within its noise.
    found = build_palette(rows, 120, seed=1)
    assert mse(rows, found.entries, found.labels) < 1


def test_centroids_weigh_rows_and_leave_unused_entries(rng) -> None:
    rows = np.float32([[0], [4], [9]])
    entries = np.float32([[1], [77], [8]])
    found = centroids(rows, np.array([3.0, 1.0, 5.0]), np.array([0, 0, 2]), entries)
    assert found.tolist() == [[1], [77], [9]]


def test_unique_rows_against_numpy(rng) -> None:
    rows = rng.integers(-1, 2, (2000, 5)).astype(np.float32) * np.float32(-1)  # with -0
    distinct, inverse, counts = unique_rows(rows)
    expected, expected_counts = np.unique(rows, axis=0, return_counts=True)
    np.testing.assert_array_equal(distinct[inverse], rows)
    assert len(distinct) == len(expected)
    assert sorted(counts) == sorted(expected_counts)
    first = [int(np.flatnonzero(inverse == i)[0]) for i in range(len(distinct))]
    assert first == sorted(first)  # in order of first appearance


def test_relabel_finds_nearer_entries_after_they_moved(rng) -> None:
    rows = rows_like_harmonics(rng, 3000)
    found = build_palette(rows, 400)
    moved = found.entries + rng.normal(size=found.entries.shape).astype(np.float32) * 0.3
    labels = relabel(rows, moved)
    assert mse(rows, moved, labels) < mse(rows, moved, found.labels)


def test_stops_when_told(rng) -> None:
    class Stop(Exception):
        pass

    def stop(fraction: float) -> None:
        raise Stop

    with pytest.raises(Stop):
        build_palette(rows_like_harmonics(rng, 2000), 500, on_step=stop)
