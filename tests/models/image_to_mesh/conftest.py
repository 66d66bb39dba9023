"""Drawn pictures, the pipeline called on them, and the Khronos glTF validator.

Without the validator or Node.js its tests skip and say why.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.context import InputFile, LocalContext, PipelineResult
from models.image_to_mesh.options import EmbeddedOptions
from models.image_to_mesh.pipeline import load
from tests.models.image_to_mesh.gltf_validator import gltf_validator


@pytest.fixture(scope="session")
def validate() -> Callable[[Path], dict]:
    """validate(path) -> the validator's issues: counts by severity, and messages."""
    return gltf_validator()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., InputFile]:
    """save(pixels or image, "name.png") -> an uploaded file."""

    def write(
        picture: np.ndarray | Image.Image, name: str = "picture.png", **how: object
    ) -> InputFile:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}-{Path(name).name}"
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(path, {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}[path.suffix], **how)
        return InputFile(path, name)

    return write


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., PipelineResult]:
    """run([files], azimuth=...) -> the pipeline's result."""
    pipeline = load("cpu")
    workdir = tmp_path / "work"
    workdir.mkdir()

    def call(files: list[InputFile], **options: object) -> PipelineResult:
        return pipeline(LocalContext(workdir), files, EmbeddedOptions(**options))

    return call


@pytest.fixture
def drawn() -> Callable[..., np.ndarray]:
    """drawn(inside, side=160): RGBA picture, opaque where inside(x, y); x right, y up, -1..1."""

    def draw(inside: Callable[[np.ndarray, np.ndarray], np.ndarray], side: int = 160) -> np.ndarray:
        ticks = (np.arange(side) + 0.5) / side * 2 - 1
        x, y = np.meshgrid(ticks, -ticks)
        picture = np.zeros((side, side, 4), np.uint8)
        picture[..., 0], picture[..., 1], picture[..., 2] = 60 + 60 * (x + 1), 60 + 60 * (y + 1), 90
        picture[..., 3] = np.where(inside(x, y), 255, 0)
        return picture

    return draw
