"""Cores: as many as a container gives, and work on every index once."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from models import cores
from models.cores import in_ranges, quota, usable_cores


def test_there_is_a_core() -> None:
    assert usable_cores() >= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", sys.maxsize),
        ("200000 100000", 2),
        ("250000 100000", 3),  # two cores and a half keep three threads busy
        ("10000 100000", 1),
        ("not a number", sys.maxsize),
        (None, sys.maxsize),
    ],
)
def test_time_that_a_container_is_given(text: str | None, expected: int, tmp_path: Path) -> None:
    limit = tmp_path / "cpu.max"
    if text is not None:
        limit.write_text(text + "\n")
    assert quota(limit) == expected


def test_the_smaller_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    for given, expected in ((4, 4), (64, 16)):
        monkeypatch.setattr(cores, "quota", lambda given=given: given)
        assert usable_cores() == expected


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
@pytest.mark.parametrize("usable", [1, 3])
def test_every_index_once(count: int, usable: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: usable)
    done, lock = [], threading.Lock()

    def work(begin: int, end: int) -> None:
        with lock:
            done.extend(range(begin, end))

    in_ranges(work, count)
    assert sorted(done) == list(range(count))


def test_a_failure_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)

    def fail(begin: int, end: int) -> None:
        raise ValueError(f"{begin} to {end}")

    with pytest.raises(ValueError, match="0 to"):
        in_ranges(fail, 100)


@pytest.mark.parametrize("usable", [1, 3])
def test_a_check_that_raises_leaves_the_rest_undone(
    usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two dozen parts, of which those go on that had begun."""
    monkeypatch.setattr(cores, "usable_cores", lambda: usable)
    begun: list[int] = []
    over = threading.Event()

    def work(begin: int, end: int) -> None:
        begun.append(begin)
        if usable > 1:
            over.wait(20)

    def check() -> None:
        if usable > 1 or len(begun) == 2:
            threading.Timer(0.2, over.set).start()  # what runs ends after the call has given up
            raise KeyError("stop")

    with pytest.raises(KeyError):
        in_ranges(work, 240, check)
    assert len(begun) == 2 if usable == 1 else len(begun) < 8 * usable
