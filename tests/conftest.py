"""Fixtures every test may use: shared data, small shipped samples, a seeded generator."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("MESHPRESS_SHARED", ROOT.parent / "shared"))
SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("data/splats/biker.spz")`: a path in the shared data beside the checkout.

    Skips where a clone has none; REQUIRE_SHARED=1 turns the skip into a failure, so that CI
    cannot pass by skipping.
    """

    def locate(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            reason = f"shared data absent: {relative}"
            if os.environ.get("REQUIRE_SHARED") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return locate


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With REQUIRE_TOOLS=1 a skip for want of a tool is a failure; only a GPU may be missing."""
    report = yield
    if (
        report.skipped
        and os.environ.get("REQUIRE_TOOLS") == "1"
        and not hasattr(report, "wasxfail")
    ):
        if item.get_closest_marker("gpu") is None:
            report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def samples() -> Path:
    return SAMPLES


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's name: fresh input per test, the same on every run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
