"""Work in threads: results in order, a limit that holds, an end at the first exception."""

from __future__ import annotations

import threading

import pytest

from models.splat_to_sog import threads
from models.splat_to_sog.threads import in_threads, usable_cores


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_results_come_in_the_order_of_the_parts(monkeypatch, cores: int) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    assert in_threads(lambda part: part * part, range(50)) == [n * n for n in range(50)]
    assert in_threads(str, []) == []


def test_no_more_threads_than_asked_for(monkeypatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 16)
    together = threading.Barrier(3)

    def meet(part: int) -> int:
        together.wait(timeout=20)
        return threading.get_ident()

    assert len(set(in_threads(meet, range(3), most=3))) == 3  # all three wait at the same time
    assert len(set(in_threads(lambda part: threading.get_ident(), range(200), most=3))) <= 3
    assert set(in_threads(lambda part: threading.get_ident(), range(9), most=1)) == {
        threading.get_ident()
    }


def test_an_exception_leaves_the_rest_undone(monkeypatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    begun = []

    def work(part: int) -> None:
        begun.append(part)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        in_threads(work, range(100_000))
    assert len(begun) < 100_000


def test_there_is_a_core() -> None:
    assert usable_cores() >= 1
