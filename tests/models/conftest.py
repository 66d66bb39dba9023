"""Fixtures of the parity tests: a file of a reference network, on the device it is compared on.

They import torch when a test asks for them: most tests below this folder run without.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.models.parity import Golden


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


@pytest.fixture
def computing(device: str) -> None:
    """Where a test file enters the backends it names for `device`; here they stay "auto"."""


@pytest.fixture
def golden(
    shared: Callable[[str], Path], request: pytest.FixtureRequest, device: str, computing: None
) -> Golden:
    """The file that `parity.file` names."""
    from tests.models.parity import Golden

    return Golden(shared(f"data/parity/{request.param}.safetensors"), device)
