"""A small entry, a hub that serves it, and an environment in which nothing else is found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from models.weights.catalogue import WeightEntry
from models.weights.hub import Hub
from models.weights.pull import Pulled, pull

sys.path.insert(0, str(Path(__file__).parent))

from fake_hub import FakeHub
from small_entry import COMMIT, ENTRY, FILES, REPO


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights, token or endpoint of whoever runs the tests."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("MESHPRESS_MODELS_DIR", str(tmp_path / "models"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def serve_hub() -> Iterator[Callable[..., FakeHub]]:
    """serve_hub(fault=...) -> a running hub with the small entry; stopped after the test."""
    with ExitStack() as stack:

        def begin(**faults: Any) -> FakeHub:
            hub = FakeHub(**{"files": {REPO: dict(FILES)}, "commit": COMMIT} | faults)
            stack.callback(hub.close)
            return hub

        yield begin


@pytest.fixture
def fetch(folder: Path) -> Callable[..., Pulled]:
    """fetch(hub, entry, accepted_licences=...) -> pull with few and quick second tries."""

    def run(
        served: FakeHub,
        entry: WeightEntry = ENTRY,
        token: str = "",
        retries: int = 2,
        **options: Any,
    ) -> Pulled:
        hub = Hub(served.endpoint, token, retries=retries, backoff_seconds=0.01)
        try:
            return pull(entry, folder, hub, **options)
        finally:
            hub.close()

    return run
