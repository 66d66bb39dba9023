"""Scenes and cameras small enough to reason about, for the tests here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.splat_to_sog.metrics.rasterise import Camera
from models.splat_to_sog.splats import COEFFICIENTS, Model, Splats

MakeScene = Callable[..., Splats]
MakeCamera = Callable[..., Camera]


@pytest.fixture
def camera() -> MakeCamera:
    """camera(width, height, focal_px): at the origin, looking along +z; x right, y down."""

    def make(width: int = 64, height: int = 48, focal_px: float = 60.0) -> Camera:
        return Camera(
            np.zeros(3, np.float32), np.eye(3, dtype=np.float32), focal_px, width, height, 0.1
        )

    return make


@pytest.fixture
def one_splat() -> MakeScene:
    """one_splat(mean, scale, ...): a scene of a single round Gaussian of constant colour."""

    def make(
        mean: tuple[float, float, float] = (0, 0, 4),
        log_scale: float | tuple[float, float, float] = -1.5,
        logit: float = 1.0,
        colour: tuple[float, float, float] = (0.8, 0.4, 0.1),
        quat: tuple[float, float, float, float] = (1, 0, 0, 0),
        model: Model = "default",
    ) -> Splats:
        def row(values: object, width: int) -> np.ndarray:
            return np.broadcast_to(np.array(values, np.float32), (1, width)).copy()

        return Splats(
            means=row(mean, 3),
            scales=row(log_scale, 3),
            quats=row(quat, 4),
            opacities=np.array([logit], np.float32),
            sh0=((row(colour, 3) - 0.5) / 0.28209479177387814).astype(np.float32),
            shN=np.zeros((1, 3, 0), np.float32),
            model=model,
        )

    return make


@pytest.fixture
def in_view(rng: np.random.Generator) -> MakeScene:
    """in_view(n, degree=0): random splats in front of `camera()`, some beyond its borders."""

    def make(n: int, degree: int = 0, model: Model = "default", log_scale: float = -2.5) -> Splats:
        depth = rng.uniform(1, 6, n)
        across = rng.uniform(-0.8, 0.8, (n, 2)) * depth[:, None]
        return Splats(
            means=np.column_stack([across, depth]).astype(np.float32),
            scales=rng.normal(log_scale, 0.8, (n, 3)).astype(np.float32),
            quats=rng.normal(size=(n, 4)).astype(np.float32),
            opacities=rng.normal(0, 3, n).astype(np.float32),
            sh0=rng.normal(0, 1, (n, 3)).astype(np.float32),
            shN=rng.normal(0, 0.2, (n, 3, COEFFICIENTS[degree])).astype(np.float32),
            model=model,
        )

    return make
