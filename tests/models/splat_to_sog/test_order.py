"""The Hilbert curve visits every cell once, always stepping to a neighbour."""

from __future__ import annotations

import numpy as np

from models.splat_to_sog.order import hilbert, hilbert_keys, hilbert_order


def test_the_curve_steps_from_cell_to_neighbouring_cell() -> None:
    bits = 4
    side = np.arange(1 << bits, dtype=np.uint16)
    cells = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    keys = hilbert_keys(cells, bits)
    assert sorted(keys.tolist()) == list(range(len(cells)))
    path = cells[np.argsort(keys)].astype(np.int64)
    assert (np.abs(np.diff(path, axis=0)).sum(axis=1) == 1).all()


def test_full_width_keys_are_distinct_and_nested(rng) -> None:
    """Sorting by 16-bit keys keeps the splats of a coarse cell together."""
    cells = np.unique(rng.integers(0, 1 << 16, (5000, 3), dtype=np.uint16), axis=0)
    keys = hilbert_keys(cells)
    assert len(np.unique(keys)) == len(cells)
    coarse = (cells[hilbert_order(cells)] >> 13).astype(np.int64) @ [64, 8, 1]
    runs = 1 + np.count_nonzero(np.diff(coarse))
    assert runs == len(np.unique(coarse))


def test_equal_positions_keep_their_order() -> None:
    assert hilbert_order(np.full((9, 3), 5, np.uint16)).tolist() == list(range(9))


def test_keys_do_not_depend_on_the_chunk(rng, monkeypatch) -> None:
    steps = rng.integers(0, 1 << 16, (1000, 3), dtype=np.uint16)
    whole = hilbert_keys(steps)
    monkeypatch.setattr(hilbert, "CHUNK_ROWS", 77)
    np.testing.assert_array_equal(hilbert_keys(steps), whole)
