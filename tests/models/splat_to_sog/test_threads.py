"""Work in threads: results in order, a limit that holds, an end at the first exception."""

from __future__ import annotations

import threading

import pytest
from threadpoolctl import threadpool_info

from models.splat_to_sog import threads
from models.splat_to_sog.threads import Beside, in_threads, threads_are_ours


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


def ignore(fraction: float) -> None:
    pass


def test_beside_gives_what_the_work_returns_or_raises() -> None:
    caller = threading.get_ident()
    with Beside(lambda on_step: threading.get_ident()) as beside:
        assert beside.result(ignore) != caller

    def fail(on_step) -> None:
        raise KeyError("of the work")

    with Beside(fail) as beside, pytest.raises(KeyError, match="of the work"):
        beside.result(ignore)


def test_progress_of_beside_is_heard_by_who_waits() -> None:
    told, heard = threading.Event(), []

    def work(on_step) -> str:
        on_step(0.5)
        told.wait(timeout=20)
        return "done"

    def hear(fraction: float) -> None:
        heard.append((fraction, threading.get_ident()))
        if fraction == 0.5:
            told.set()

    with Beside(work) as beside:
        assert beside.result(hear) == "done"
    assert heard[-1] == (0.5, threading.get_ident())


def test_who_leaves_before_the_end_stops_the_work() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(on_step) -> None:
        begun.set()
        try:
            while True:
                on_step(0.1)
        finally:
            ended.set()

    with pytest.raises(ZeroDivisionError), Beside(work):
        assert begun.wait(timeout=20)
        raise ZeroDivisionError
    assert ended.is_set()


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_blas_takes_one_thread_until_the_last_who_spreads_work_leaves() -> None:
    before = blas_threads()
    first, second = threads_are_ours(), threads_are_ours()
    first.__enter__()
    second.__enter__()
    assert set(blas_threads()) <= {1}
    first.__exit__(None, None, None)
    assert set(blas_threads()) <= {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before
