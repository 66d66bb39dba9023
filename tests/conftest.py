"""Fixtures every test may use: shared data, small shipped samples, a seeded generator."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("MESHPRESS_SHARED", ROOT.parent / "shared"))
SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("splats/biker.spz")`: a path in the shared data beside the checkout.

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


@pytest.fixture(scope="session")
def samples() -> Path:
    return SAMPLES


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's name: fresh input per test, the same on every run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
