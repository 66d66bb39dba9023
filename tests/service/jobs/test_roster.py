"""What workers tell of themselves: a heartbeat, and once what their device has."""

from __future__ import annotations

from pathlib import Path

from service.guard.machine import memory_of
from service.jobs import database
from service.jobs.roster import Roster


def test_memory_is_told_once_and_forgotten_with_the_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    database.prepare(url)
    engine = database.create_engine(url)
    roster = Roster(engine)
    roster.register("w:cuda:0", 24 << 30)
    roster.heartbeat("w:cuda:0", "cuda:0", 1, "idle")
    roster.heartbeat("v:cpu", "cpu", 2, "idle")  # of an earlier release, or a CPU: it told nothing
    found = {worker.id: worker.memory_bytes for worker in roster.workers()}
    assert found == {"w:cuda:0": 24 << 30, "v:cpu": 0}
    roster.register("w:cuda:0", 8 << 30)  # restarted on another card
    assert {worker.memory_bytes for worker in roster.workers()} == {8 << 30, 0}
    roster.forget("w:cuda:0")
    roster.heartbeat("w:cuda:0", "cuda:0", 1, "idle")
    assert {worker.memory_bytes for worker in roster.workers()} == {0}
    engine.dispose()


def test_a_cpu_asks_no_driver(monkeypatch) -> None:
    monkeypatch.setattr("service.guard.machine.this_machine", None)
    assert memory_of("cpu") == 0
