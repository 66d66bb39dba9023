"""The CUDA rasteriser draws what the numpy reference draws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.context import Unavailable
from models.splat_to_sog.device import on_device
from models.splat_to_sog.metrics.cameras import orbit
from models.splat_to_sog.metrics.project import project
from models.splat_to_sog.metrics.rasterise import Camera, Projected, rasterise
from models.splat_to_sog.metrics.rasterise_cuda import DeviceScene
from models.splat_to_sog.metrics.rasterise_cuda import rasterise as rasterise_cuda
from models.splat_to_sog.splats import COEFFICIENTS, Splats

pytestmark = pytest.mark.gpu

# A float32 alpha just off ALPHA_MIN may be drawn by one side and skipped by the other: 1 / 255 of a
# pixel's light, times colours up to 2. Everywhere else only rounding differs.
WORST = 0.01
MEAN = 2e-5


@pytest.fixture(autouse=True)
def card() -> None:
    try:
        with on_device("cuda:0"):
            pass
    except Unavailable as error:
        pytest.skip(error.message)


def cloud(rng: np.random.Generator, n: int, degree: int = 3, model: str = "default") -> Splats:
    """A ball of Gaussians from specks to blobs, from faint to solid."""
    return Splats(
        means=rng.normal(0, 1, (n, 3)).astype(np.float32),
        scales=rng.normal(-3, 1, (n, 3)).astype(np.float32),
        quats=rng.normal(0, 1, (n, 4)).astype(np.float32),
        opacities=rng.normal(0, 3, n).astype(np.float32),
        sh0=rng.normal(0, 1, (n, 3)).astype(np.float32),
        shN=rng.normal(0, 0.2, (n, 3, COEFFICIENTS[degree])).astype(np.float32),
        model=model,  # type: ignore[arg-type]
    )


def assert_alike(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.shape == wanted.shape and got.dtype == np.float32
    difference = np.abs(got - wanted)
    assert wanted.max() > 0.1, "nothing was drawn"
    assert difference.max() < WORST
    assert difference.mean() < MEAN


@pytest.mark.parametrize("size", [(64, 64), (97, 41), (16, 200)])
def test_projected_gaussians(rng: np.random.Generator, size: tuple[int, int]) -> None:
    width, height = size
    (view,) = orbit(splats := cloud(rng, 3000), 1, 64)
    view = dataclasses.replace(view, width=width, height=height)
    projected = project(splats, view)
    background = (0.2, 0.5, 0.9)
    got = rasterise_cuda(projected, width, height, background)
    assert_alike(got, rasterise(projected, width, height, background))


@pytest.mark.parametrize("degree", range(5))
def test_scene(rng: np.random.Generator, degree: int) -> None:
    splats = cloud(rng, 4000, degree)
    scene = DeviceScene(splats)
    for view in orbit(splats, 3, 80):
        wanted = rasterise(project(splats, view), 80, 80, (0.0, 0.0, 0.0))
        assert_alike(scene.render(view), wanted)


def test_antialiased_opacity(rng: np.random.Generator) -> None:
    splats = cloud(rng, 4000, 0, "antialiased")
    (view,) = orbit(splats, 1, 48)
    wanted = rasterise(project(splats, view), 48, 48, (0.0, 0.0, 0.0))
    assert_alike(DeviceScene(splats).render(view), wanted)
    plain = DeviceScene(dataclasses.replace(splats, model="default")).render(view)
    assert np.abs(plain - wanted).max() > WORST


def test_same_rows_are_seen_in_the_same_order(rng: np.random.Generator) -> None:
    splats = cloud(rng, 5000, 0)
    (view,) = orbit(splats, 1, 64)
    got = DeviceScene(splats).project(view)
    wanted = project(splats, view)
    assert abs(len(got) - len(wanted)) <= 2  # on the edge of the picture rounding decides
    if len(got) == len(wanted):
        np.testing.assert_allclose(got.means2d.get(), wanted.means2d, atol=0.01)


def test_one_gaussian_over_another(rng: np.random.Generator) -> None:
    """Equal depth: the earlier row lies in front."""
    same = np.zeros((2, 3), np.float32)
    splats = Splats(
        means=same,
        scales=same,
        quats=np.tile(np.float32([1, 0, 0, 0]), (2, 1)),
        opacities=np.float32([20, 20]),
        sh0=np.float32([[2, -2, -2], [-2, 2, -2]]),
        shN=np.zeros((2, 3, 0), np.float32),
    )
    view = Camera(np.float32([0, 0, -5]), np.eye(3, dtype=np.float32), 20.0, 16, 16, 0.01)
    red, green, _ = DeviceScene(splats).render(view)[8, 8]
    assert red > 0.9 and green < 0.05


def test_nothing_visible(rng: np.random.Generator) -> None:
    background = (0.25, 0.5, 0.75)
    empty = Projected(
        *(np.empty(shape, np.float32) for shape in ((0, 2), (0, 3), (0, 3), 0, (0, 2))),
        rows=np.empty(0, np.int32),
    )
    picture = rasterise_cuda(empty, 20, 10, background)
    assert picture.shape == (10, 20, 3)
    assert (picture == np.float32(background)).all()
    away = Camera(np.float32([0, 0, 50]), np.eye(3, dtype=np.float32), 20.0, 20, 10, 0.01)
    assert (DeviceScene(cloud(rng, 100)).render(away, background) == np.float32(background)).all()


def test_bytes_repeat(rng: np.random.Generator) -> None:
    splats = cloud(rng, 20000)
    (view,) = orbit(splats, 1, 128)
    first = DeviceScene(splats).render(view)
    assert first.tobytes() == DeviceScene(splats).render(view).tobytes()


def test_flat_and_huge_gaussians_leave_no_nan(rng: np.random.Generator) -> None:
    splats = cloud(rng, 2000)
    splats.scales[:500, 2] = -np.inf
    splats.scales[500:520] = 18.0
    splats.opacities[:50] = np.inf
    splats.opacities[50:100] = -np.inf
    splats.quats[100:150] = 0
    (view,) = orbit(splats, 1, 64)
    assert np.isfinite(DeviceScene(splats).render(view)).all()


def test_a_card_that_is_not_there() -> None:
    with pytest.raises(Unavailable, match="cuda:99"), on_device("cuda:99"):
        pass
