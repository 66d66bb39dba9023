"""`formats`: the independent writers of small files; `assert_equal`: two scenes, value by value."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from models.splat_to_sog.splats import ATTRIBUTES, Splats

FUZZ = Path(__file__).parents[3] / "fuzz"


def load(name: str) -> ModuleType:
    """A module of tests/fuzz, which is a folder of programs and not a package."""
    known = sys.modules.get(name)
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(name, FUZZ / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def formats() -> ModuleType:
    return load("formats")


@pytest.fixture(scope="session")
def assert_equal() -> Callable[..., None]:
    def check(a: Splats, b: Splats, rtol: float = 0, atol: float = 0) -> None:
        assert (len(a), a.degree, a.model) == (len(b), b.degree, b.model)
        for name in ATTRIBUTES:
            x, y = getattr(a, name), getattr(b, name)
            np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=name)

    return check


@pytest.fixture(scope="session")
def targets() -> ModuleType:
    load("formats")
    return load("targets")
