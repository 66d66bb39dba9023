"""The GPU that the tests of kernels run on; they skip, with the reason, where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.context import InputFile, Unavailable
from models.splat_to_sog.device import import_cupy


@pytest.fixture(scope="module")
def cuda() -> str:
    try:
        import_cupy("cuda:0")
    except Unavailable as missing:
        pytest.skip(missing.message)
    return "cuda:0"


@pytest.fixture
def disc(tmp_path: Path) -> InputFile:
    """A picture of a grey disc, its background transparent."""
    ticks = np.linspace(-1, 1, 160)
    rgba = np.full((160, 160, 4), 128, np.uint8)
    rgba[..., 3] = 255 * (ticks[:, None] ** 2 + ticks**2 < 0.5)
    Image.fromarray(rgba).save(tmp_path / "disc.png")
    return InputFile(tmp_path / "disc.png", "disc.png")
