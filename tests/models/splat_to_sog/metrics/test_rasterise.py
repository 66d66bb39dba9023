"""The rasteriser: pictures worked out by hand, the reference against its compiled path."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog import threads
from models.splat_to_sog.metrics import rasterise_numba, tiles_numba
from models.splat_to_sog.metrics.packed import pack
from models.splat_to_sog.metrics.project import project
from models.splat_to_sog.metrics.rasterise import (
    ALPHA_MAX,
    ALPHA_MIN,
    Projected,
    Rasterise,
    rasterise,
)
from tests.models.splat_to_sog.metrics.conftest import MakeCamera, MakeScene

PATHS = pytest.mark.parametrize("draw", [rasterise, rasterise_numba.rasterise])

# An exponential, a product and a sum in float32, in another order: about 1e-6 a Gaussian.
ROUNDING = 1e-5
# A Gaussian whose alpha is 1/255 within rounding is drawn by one path and not by the other, and a
# pixel is finished one Gaussian earlier: rare, and at most 1/255 of a colour.
FLIP = 1.5 * ALPHA_MIN


def flat(n: int, **columns: object) -> Projected:
    """n Gaussians of one pixel's standard deviation in the middle of a 32 px picture."""
    values = {
        "means2d": [16.0, 16.0],
        "conics": [1.0, 0.0, 1.0],
        "colours": [1.0, 1.0, 1.0],
        "opacities": 0.5,
        "radii": [4.0, 4.0],
    } | columns
    arrays = {}
    for name, value in values.items():
        value = np.asarray(value, np.float32)
        wanted = (n,) if name == "opacities" else (n, 3 if name in ("conics", "colours") else 2)
        arrays[name] = np.broadcast_to(value, wanted).copy()
    return Projected(**arrays, rows=np.arange(n, dtype=np.int32))


def gaussian(opacity: float, mean: tuple[float, float], size: int = 32) -> np.ndarray:
    """Alpha of a round Gaussian of variance 1, by the formula: [size, size]."""
    y, x = np.mgrid[:size, :size] + 0.5
    alpha = opacity * np.exp(-((x - mean[0]) ** 2 + (y - mean[1]) ** 2) / 2)
    return np.where(alpha >= ALPHA_MIN, np.minimum(alpha, ALPHA_MAX), 0)


@PATHS
def test_one_gaussian(draw: Rasterise) -> None:
    mean, colour = (14.3, 17.9), (1.0, 0.5, 2.0)
    image = draw(flat(1, means2d=mean, colours=colour, opacities=0.7), 32, 32, (0.0, 0.0, 0.0))
    assert image.shape == (32, 32, 3) and image.dtype == np.float32
    expected = gaussian(0.7, mean)[..., None] * colour
    np.testing.assert_allclose(image, expected, atol=2e-6)
    assert (image == 0).any() and image.max() > 1


@PATHS
def test_two_overlap_over_a_background(draw: Rasterise) -> None:
    """The first hides the second; what both let through shows the background."""
    means, background = [(15.0, 16.0), (17.0, 16.0)], (0.2, 0.4, 0.6)
    colours = np.eye(3)[:2]
    image = draw(flat(2, means2d=means, colours=colours, opacities=[0.8, 0.9]), 32, 32, background)
    front, back = gaussian(0.8, means[0])[..., None], gaussian(0.9, means[1])[..., None]
    expected = front * colours[0] + (1 - front) * back * colours[1]
    expected = expected + (1 - front) * (1 - back) * np.array(background)
    np.testing.assert_allclose(image, expected, atol=3e-6)


@PATHS
def test_nothing_is_entirely_opaque(draw: Rasterise) -> None:
    middle = draw(flat(1, means2d=(16.5, 16.5), opacities=1.0), 32, 32, (0.0, 0.0, 0.0))[16, 16]
    np.testing.assert_allclose(middle, ALPHA_MAX, atol=1e-6)


@PATHS
def test_a_pixel_is_finished(draw: Rasterise) -> None:
    """After 0.99 twice 1e-4 is left (in float32 a little less): the third is not drawn there."""
    colours = [(0, 0, 0), (0, 0, 0), (0, 0, 0), (1, 1, 1)]
    image = draw(flat(4, means2d=(16.5, 16.5), opacities=1.0, colours=colours), 32, 32, (0, 0, 0))
    assert image[16, 16].max() == 0
    assert image[16, 18].max() > 1e-3


@PATHS
def test_nothing_to_draw(draw: Rasterise) -> None:
    image = draw(flat(0), 40, 24, (0.1, 0.2, 0.3))
    np.testing.assert_allclose(image, np.broadcast_to((0.1, 0.2, 0.3), (24, 40, 3)), rtol=1e-6)


@PATHS
@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (17, 15), (50, 33)])
def test_sizes_that_do_not_fill_a_tile(draw: Rasterise, width: int, height: int) -> None:
    """A picture is the corner of a larger one."""
    gaussians = flat(3, means2d=[(1, 1), (16, 12), (30, 30)], radii=[5, 5])
    large = draw(gaussians, 64, 64, (0.0, 0.0, 0.0))
    np.testing.assert_array_equal(draw(gaussians, width, height, (0, 0, 0)), large[:height, :width])


@PATHS
def test_a_gaussian_larger_than_the_picture(draw: Rasterise) -> None:
    huge = flat(1, conics=[1e-12, 0, 1e-12], radii=[3e6, 3e9], opacities=0.6, means2d=[500, -900])
    np.testing.assert_allclose(draw(huge, 40, 40, (0.0, 0.0, 0.0)), 0.6, atol=1e-5)


@PATHS
def test_thin_and_slanted(draw: Rasterise) -> None:
    """A line at 45 degrees: rows and tiles it does not cross must not lose any of its pixels."""
    covariance = np.array([[400.3, 400.0], [400.0, 400.3]])
    (a, b), (_, c) = np.linalg.inv(covariance)
    reach = np.sqrt(2 * np.log(255 * 0.9) * 400.3)
    line = flat(1, conics=[a, b, c], means2d=[40.2, 39.7], radii=[reach, reach], opacities=0.9)
    y, x = np.mgrid[:80, :80] + 0.5
    dx, dy = x - np.float32(40.2), y - np.float32(39.7)
    power = -(line.conics[0, 0] * dx**2 + line.conics[0, 2] * dy**2) / 2
    power -= line.conics[0, 1] * dx * dy
    alpha = 0.9 * np.exp(power)
    expected = np.where(alpha < ALPHA_MIN, 0, alpha)
    error = np.abs(draw(line, 80, 80, (0.0, 0.0, 0.0))[..., 0] - expected)
    sure = np.abs(alpha - ALPHA_MIN) > 1e-4
    # float32 sums of terms near 1000 that cancel: 1e-4 in the exponent
    assert error[sure].max() < 5e-4
    assert (expected > 0).sum() > 100


@pytest.mark.parametrize(("degree", "log_scale"), [(0, -2.5), (3, -3.5), (1, -0.5), (0, -6.0)])
def test_compiled_path_agrees(
    degree: int, log_scale: float, in_view: MakeScene, camera: MakeCamera
) -> None:
    view = camera(150, 90, 120.0)
    projected = project(in_view(3000, degree, log_scale=log_scale), view)
    plain = rasterise(projected, 150, 90, (0.3, 0.2, 0.1))
    fast = rasterise_numba.rasterise(projected, 150, 90, (0.3, 0.2, 0.1))
    error = np.abs(plain - fast) / max(1, projected.colours.max())
    assert np.mean(error > ROUNDING) < 1e-3
    assert error.max() < FLIP
    assert len(projected) > 1000 and plain.std() > 0.01


def test_cores_make_no_difference(in_view: MakeScene, camera: MakeCamera, monkeypatch) -> None:
    projected = project(in_view(1500), camera(100, 100, 80.0))
    pictures = []
    for count in (1, 2, 7):
        monkeypatch.setattr(threads, "usable_cores", lambda count=count: count)
        monkeypatch.setattr(tiles_numba, "usable_cores", lambda count=count: count)
        pictures.append(rasterise_numba.rasterise(projected, 100, 100))
    for other in range(1, 3):
        np.testing.assert_array_equal(pictures[0], pictures[other])


def test_strips_make_no_difference(in_view: MakeScene, camera: MakeCamera, monkeypatch) -> None:
    projected = project(in_view(1500), camera(100, 100, 80.0))
    whole = rasterise_numba.rasterise(projected, 100, 100)
    monkeypatch.setattr(tiles_numba, "MAX_KEYS", 500)
    strips = list(tiles_numba.strips(pack(projected), 100, 100))
    assert 3 < len(strips) and strips[0].first == 0 and strips[-1].last == 49
    np.testing.assert_array_equal(rasterise_numba.rasterise(projected, 100, 100), whole)


def test_exponential_of_the_vector_loop() -> None:
    """exp by a short series and four squarings: 3e-6 over the range that is drawn."""
    powers = np.linspace(-5.5, 0, 2001).astype(np.float32)
    means = np.column_stack([16.5 - np.sqrt(-2 * powers), np.full(2001, 16.5)])
    for power, mean in zip(powers[::50], means[::50], strict=True):
        image = rasterise_numba.rasterise(flat(1, means2d=mean, opacities=0.99), 32, 32)
        distance = np.float32(16.5) - np.float32(mean[0])
        assert image[16, 16, 0] == pytest.approx(0.99 * np.exp(-(distance**2) / 2), rel=3e-6), power
