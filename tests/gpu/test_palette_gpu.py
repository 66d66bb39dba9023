"""The palette on a GPU: kernels against the plain reference, the whole against the CPU's."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.palette import build_palette, device, relabel
from models.splat_to_sog.palette.rounding import rounded

pytestmark = pytest.mark.gpu


def rows_like_harmonics(rng, n: int, d: int) -> np.ndarray:
    """Clustered, with norms over two orders of magnitude."""
    centres = rng.normal(size=(500, d)) * np.exp(rng.normal(size=(500, 1)))
    noise = rng.normal(size=(n, d)) * np.exp(0.5 * rng.normal(size=(n, 1)))
    return (centres[rng.integers(0, 500, n)] + 0.5 * noise).astype(np.float32)


def squared(rows, entries, labels) -> np.ndarray:
    return ((rows.astype(np.float64) - entries[labels]) ** 2).sum(axis=1)


def least(rows, entries) -> np.ndarray:
    """Of every row, in double precision."""
    out = []
    for part in np.array_split(rows.astype(np.float64), max(1, len(rows) // 500)):
        products = part @ entries.T.astype(np.float64)
        gaps = (part**2).sum(axis=1)[:, None] - 2 * products + (entries**2.0).sum(axis=1)
        out.append(squared(part, entries, gaps.argmin(axis=1)))
    return np.concatenate(out)


@pytest.mark.parametrize("kernel", ["assign_hopper", "assign"])
@pytest.mark.parametrize(
    ("n", "k", "d"),
    [(1, 1, 45), (511, 15, 45), (513, 16, 24), (5000, 1000, 45), (1000, 129, 9), (20_000, 4096, 45)]
    + [(3000, 700, 3)],
)
def test_labels_cost_no_more_than_the_reference(rng, cuda, kernel, n, k, d) -> None:
    rows, entries = rows_like_harmonics(rng, n, d), rows_like_harmonics(rng, k, d)
    on_device = device.Rows(rows, cuda)
    if kernel == "assign_hopper" and on_device.kernel != kernel:
        pytest.skip("this card is not sm_90")
    on_device.kernel = kernel
    labels, distance = (a.get() for a in on_device.nearest(on_device.xp.asarray(entries)))
    found, best = squared(rows, entries, labels), least(rows, entries)
    # Half-precision products: measured 5e-8 of the squared error in all, 2e-4 of one row's.
    assert found.sum() <= (1 + 1e-5) * best.sum() + 1e-9
    assert (found <= 1.01 * best + 1e-6).all()
    np.testing.assert_allclose(distance, found, rtol=1e-4, atol=1e-5)


def test_rows_and_entries_too_large_for_half_precision(rng, cuda) -> None:
    rows, entries = rows_like_harmonics(rng, 4000, 45), rows_like_harmonics(rng, 512, 45)
    rows[:5] *= 1e4
    entries[:3] = rows[:3] * np.float32(0.9)
    found = squared(rows, entries, relabel(rows, entries, cuda))
    best = least(rows, entries)
    assert (found <= 1.01 * best + 1e-5).all()
    assert found[5:].sum() <= 1.001 * best[5:].sum()


def test_sums_of_rows_against_the_cpu(rng, cuda) -> None:
    from models.splat_to_sog.palette.k_means import centroids

    rows = rows_like_harmonics(rng, 30_000, 45)
    labels = rng.integers(0, 300, len(rows)).astype(np.int32)
    labels[:20_000] = 7  # one entry that most rows use
    labels[labels == 11] = 12  # and one that none does
    weights = rng.random(len(rows)).astype(np.float32)
    entries = rows[:300]
    on_device = device.Rows(rows, cuda)
    moved = on_device.xp.asarray(entries)
    xp = on_device.xp
    counts = on_device.centroids(xp.asarray(weights), xp.asarray(labels), moved)
    np.testing.assert_array_equal(counts.get(), np.bincount(labels, minlength=300))
    # Sums in single precision: 2,500 rows a warp.
    np.testing.assert_allclose(
        moved.get(), centroids(rows, weights, labels, entries), rtol=1e-4, atol=1e-4
    )


def test_a_draw_follows_its_odds_and_repeats_nothing(rng, cuda) -> None:
    rows = rows_like_harmonics(rng, 20_000, 3)
    on_device = device.Rows(rows, cuda)
    odds = np.where(np.arange(20_000) < 10_000, 3.0, 1.0).astype(np.float32)
    odds[:100] = 0
    drawn = on_device.draw(on_device.xp.asarray(odds), 1000, 5).get()
    assert len(set(drawn.tolist())) == 1000
    assert drawn.min() >= 100
    assert 680 < (drawn < 10_000).sum() < 800  # 750 expected, 14 its standard deviation


def test_whole_palette_against_the_cpu(rng, cuda) -> None:
    rows = rows_like_harmonics(rng, 30_000, 45)
    weights = rng.random(len(rows))
    ours = build_palette(rows, 1000, weights=weights, device=cuda)
    cpu = build_palette(rows, 1000, weights=weights)

    def error(palette) -> float:
        return float(np.average(squared(rows, palette.entries, palette.labels), weights=weights))

    assert 0.98 * 1000 <= len(ours.entries) <= 1000
    assert error(ours) < 1.02 * error(cpu)  # all rows, no cells: usually better
    again = build_palette(rows, 1000, weights=weights, device=cuda)
    np.testing.assert_array_equal(ours.entries, again.entries)
    np.testing.assert_array_equal(ours.labels, again.labels)


def test_size_is_chosen_alike_on_both(rng, cuda) -> None:
    rows = rows_like_harmonics(rng, 20_000, 24)
    ours, cpu = build_palette(rows, device=cuda), build_palette(rows)
    assert 0.7 < len(ours.entries) / len(cpu.entries) < 1.4


def test_rows_in_several_chunks(rng, cuda, monkeypatch) -> None:
    rows, entries = rows_like_harmonics(rng, 5000, 45), rows_like_harmonics(rng, 300, 45)
    whole = relabel(rows, entries, cuda)
    monkeypatch.setattr(device, "CHUNK_ROWS", 1024)
    np.testing.assert_allclose(
        squared(rows, entries, relabel(rows, entries, cuda)),
        squared(rows, entries, whole),
        rtol=1e-2,
    )


@pytest.mark.parametrize("value", [0.0, 3.5, -1e30])
def test_rows_all_alike(cuda, value: float) -> None:
    found = build_palette(np.full((5000, 24), value, np.float32), 64, device=cuda)
    np.testing.assert_array_equal(found.entries, np.full((1, 24), value, np.float32))


@pytest.mark.parametrize(("n", "d", "price"), [(1, 9, 1e-3), (3000, 45, 1e-3), (3000, 24, 1e-9)])
def test_entries_are_rounded_as_on_the_cpu_to_the_bit(rng, cuda, n, d, price) -> None:
    entries = rows_like_harmonics(rng, n, d)
    served = np.exp(2 * rng.normal(size=n))
    ours, bits = rounded(entries, served, price, cuda)
    cpu, bits_on_cpu = rounded(entries, served, price)
    np.testing.assert_array_equal(ours, cpu)
    assert bits == bits_on_cpu
