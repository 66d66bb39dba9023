"""Arrays in memory while the budget lasts, in files beyond it; their values are kept."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np

from models.splat_to_sog.scratch import Scratch, chunks, free_memory_bytes


def test_arrays_past_the_budget_are_files_that_leave_nothing_behind(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    scratch = Scratch(tmp_path, budget_bytes=1000)
    small, large = scratch.empty((10, 10)), scratch.empty((100, 3))
    values = rng.normal(size=(100, 3)).astype(np.float32)
    large[:] = values
    assert type(small) is np.ndarray and isinstance(large, np.memmap)
    assert np.array_equal(large, values)
    assert (scratch.used_bytes, scratch.spilled_bytes) == (400, 1200)
    assert not list(tmp_path.iterdir())


def test_a_dropped_array_gives_its_budget_back(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, budget_bytes=1000)
    array = scratch.empty((200,))
    assert isinstance(scratch.empty((200,)), np.memmap)
    del array
    gc.collect()
    assert type(scratch.empty((200,))) is np.ndarray


def test_empty_scenes_and_the_default_budget(tmp_path: Path) -> None:
    assert Scratch(tmp_path, 0).empty((0, 3)).shape == (0, 3)
    assert 0 < Scratch(tmp_path).budget_bytes <= free_memory_bytes()


def test_chunks_cover_every_row_once() -> None:
    assert [(c.start, c.stop) for c in chunks(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(chunks(0)) == []
