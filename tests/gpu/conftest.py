"""The GPU that the tests of kernels run on; they skip, with the reason, where there is none."""

from __future__ import annotations

import pytest

from models.context import Unavailable
from models.splat_to_sog.device import import_cupy


@pytest.fixture(scope="module")
def cuda() -> str:
    try:
        import_cupy("cuda:0")
    except Unavailable as missing:
        pytest.skip(missing.message)
    return "cuda:0"
