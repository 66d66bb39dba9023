"""The projection: against geometry worked out by hand, numerical derivatives, and its fast path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import lebedev_rule

from models.splat_to_sog.metrics import project_numba
from models.splat_to_sog.metrics.harmonics import basis
from models.splat_to_sog.metrics.project import LOW_PASS, project
from models.splat_to_sog.metrics.rasterise import ALPHA_MIN
from models.splat_to_sog.rotations import rotation_matrices
from models.splat_to_sog.splats import COEFFICIENTS, SH_C0, Splats
from tests.models.splat_to_sog.metrics.conftest import MakeCamera, MakeScene

PATHS = pytest.mark.parametrize("path", [project, project_numba.project])


@PATHS
def test_a_round_splat_ahead(path, one_splat: MakeScene, camera: MakeCamera) -> None:
    """A splat of standard deviation s at depth z is a disc of s f / z pixels, plus the low-pass."""
    got = path(one_splat(mean=(1, -0.5, 4), log_scale=np.log(0.2)), camera(64, 48, 60.0))
    assert len(got) == 1
    np.testing.assert_allclose(got.means2d[0], [32 + 60 / 4, 24 - 30 / 4], rtol=1e-6)
    jacobian = 60 / 4 * np.array([[1, 0, -1 / 4], [0, 1, 0.5 / 4]])
    covariance = 0.04 * jacobian @ jacobian.T + LOW_PASS * np.eye(2)
    a, b, c = got.conics[0]
    np.testing.assert_allclose([[a, b], [b, c]], np.linalg.inv(covariance), rtol=1e-5)
    opacity = 1 / (1 + np.exp(-1.0))
    assert got.opacities[0] == pytest.approx(opacity, rel=1e-6)
    np.testing.assert_allclose(got.colours[0], [0.8, 0.4, 0.1], atol=1e-6)
    # The box ends where alpha falls to 1/255: nothing visible lies outside, nothing less would do.
    for axis in range(2):
        edge = got.radii[0, axis] ** 2 / covariance[axis, axis]
        assert opacity * np.exp(-edge / 2) == pytest.approx(ALPHA_MIN, rel=1e-4)


@PATHS
def test_what_is_not_visible(path, one_splat: MakeScene, camera: MakeCamera) -> None:
    view = camera()
    assert len(path(one_splat(mean=(0, 0, 4)), view)) == 1
    assert len(path(one_splat(mean=(0, 0, -4)), view)) == 0  # behind the camera
    assert len(path(one_splat(mean=(0, 0, 0.09)), view)) == 0  # nearer than `near`
    assert len(path(one_splat(mean=(9, 0, 4)), view)) == 0  # beside the picture
    assert len(path(one_splat(logit=-5.6), view)) == 0  # alpha 0.0037 < 1/255
    assert len(path(one_splat(logit=-np.inf), view)) == 0
    assert len(path(one_splat(mean=(np.nan, 0, 4)), view)) == 0
    # just beside the picture, yet large enough to reach into it
    assert len(path(one_splat(mean=(2.3, 0, 4), log_scale=-6), view)) == 0
    assert len(path(one_splat(mean=(2.3, 0, 4), log_scale=-1), view)) == 1


@PATHS
def test_extreme_values_stay_finite(path, one_splat: MakeScene, camera: MakeCamera) -> None:
    for scene in (
        one_splat(logit=np.inf),
        one_splat(log_scale=-np.inf),
        one_splat(log_scale=(-1, -np.inf, -1)),
        one_splat(log_scale=60),
        one_splat(mean=(0, 0, 0.11), log_scale=10),
        one_splat(quat=(0, 0, 0, 0)),
        one_splat(mean=(1e20, -1e20, 1e21)),
    ):
        got = path(scene, camera())
        assert len(got) == 1
        for name in ("means2d", "conics", "colours", "opacities", "radii"):
            assert np.isfinite(getattr(got, name)).all(), name
    assert path(one_splat(logit=np.inf), camera()).opacities[0] == 1
    point = path(one_splat(log_scale=-np.inf), camera())
    np.testing.assert_allclose(point.conics[0], [1 / LOW_PASS, 0, 1 / LOW_PASS], rtol=1e-6)


def test_covariance_follows_the_perspective(in_view: MakeScene, camera: MakeCamera) -> None:
    """Points drawn from a small Gaussian and projected one by one scatter as the ellipse says."""
    splats, view = in_view(20, log_scale=-5.0), camera()
    got = project(splats, view)
    axes = rotation_matrices(splats.quats) * np.exp(splats.scales)[:, None].astype(np.float64)
    for i, row in enumerate(got.rows):
        step = 1e-3
        corners = splats.means[row].astype(np.float64) + step * np.vstack(
            [axes[row].T, -axes[row].T]
        )
        pixels = view.focal_px * corners[:, :2] / corners[:, 2:]
        slopes = (pixels[:3] - pixels[3:]) / (2 * step)  # one standard deviation along each axis
        covariance = slopes.T @ slopes + LOW_PASS * np.eye(2)
        a, b, c = got.conics[i]
        np.testing.assert_allclose(
            np.linalg.inv([[a, b], [b, c]]), covariance, rtol=1e-3, atol=1e-3
        )


@PATHS
def test_antialiased_scenes_keep_their_light(
    path, one_splat: MakeScene, camera: MakeCamera
) -> None:
    """The low-pass widens a small splat; an antialiased one fades as much in return."""
    area = {}
    for model in ("default", "antialiased"):
        got = path(one_splat(log_scale=np.log(0.02), logit=3, model=model), camera())
        a, b, c = got.conics[0].astype(np.float64)
        area[model] = got.opacities[0] / np.sqrt(a * c - b * b)
    sharp = 0.02 * 60 / 4
    unfiltered = sharp**2 / (1 + np.exp(-3))
    assert area["antialiased"] == pytest.approx(unfiltered, rel=1e-5)
    assert area["default"] > 2 * unfiltered


@PATHS
def test_flat_splats_of_2dgs(path, one_splat: MakeScene, camera: MakeCamera) -> None:
    """A disc seen from its edge is a line: as thin as the low-pass allows."""
    disc = one_splat(
        log_scale=(-1, -1, -np.inf), quat=(np.sqrt(0.5), 0, np.sqrt(0.5), 0), model="2dgs"
    )
    a, _, c = path(disc, camera()).conics[0]
    assert 1 / a == pytest.approx(LOW_PASS, rel=1e-5)
    assert 1 / c == pytest.approx((np.exp(-1) * 60 / 4) ** 2 + LOW_PASS, rel=1e-5)


@PATHS
def test_sorted_front_to_back_whatever_the_order(
    path, in_view: MakeScene, camera: MakeCamera, rng
) -> None:
    splats = in_view(300, degree=1)
    shuffled = rng.permutation(300)
    first, second = path(splats, camera()), path(splats.take(shuffled), camera())
    depths = splats.means[first.rows, 2]
    assert (np.diff(depths) >= 0).all() and len(first) > 100
    np.testing.assert_array_equal(first.rows, shuffled[second.rows])
    for name in ("means2d", "conics", "colours", "opacities", "radii"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@PATHS
def test_equal_depths_keep_the_input_order(path, one_splat: MakeScene, camera: MakeCamera) -> None:
    splats = one_splat().take(np.zeros(40, np.intp))
    np.testing.assert_array_equal(path(splats, camera()).rows, np.arange(40))


@pytest.mark.parametrize("model", ["default", "antialiased", "2dgs"])
@pytest.mark.parametrize("degree", range(5))
def test_compiled_path_agrees(degree: int, model, in_view: MakeScene, camera: MakeCamera) -> None:
    """Both compute in float64 and store float32: they differ by rounding, a few 1e-7 of a value."""
    splats = in_view(500, degree, model)
    plain, fast = project(splats, camera()), project_numba.project(splats, camera())
    np.testing.assert_array_equal(plain.rows, fast.rows)
    for name in ("means2d", "conics", "colours", "opacities", "radii"):
        np.testing.assert_allclose(
            getattr(fast, name), getattr(plain, name), rtol=2e-6, atol=2e-6, err_msg=name
        )


def test_compiled_path_takes_any_array(in_view: MakeScene, camera: MakeCamera) -> None:
    """Columns of a wider table, read-only: what a reader may hand over."""
    splats = in_view(50, 1)
    table = np.zeros((50, 30), np.float32)
    table[:, :3], table[:, 3:6] = splats.means, splats.scales
    table.flags.writeable = False
    strided = replace(splats, means=table[:, :3], scales=table[:, 3:6])
    expected, got = (project_numba.project(s, camera()) for s in (splats, strided))
    np.testing.assert_array_equal(got.conics, expected.conics)


def test_chunks_make_no_difference(in_view: MakeScene, camera: MakeCamera, monkeypatch) -> None:
    splats = in_view(200)
    whole = project(splats, camera()), project_numba.project(splats, camera())
    monkeypatch.setattr("models.splat_to_sog.metrics.project.CHUNK_ROWS", 17)
    monkeypatch.setattr("models.splat_to_sog.metrics.project_numba.CHUNK_ROWS", 17)
    parts = project(splats, camera()), project_numba.project(splats, camera())
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.conics, b.conics)


def test_harmonics_are_orthonormal() -> None:
    """Over the sphere, by a quadrature that is exact for the products (degree 8)."""
    directions, weights = lebedev_rule(11)
    values = np.stack([np.full(len(weights), SH_C0), *basis(*directions)])
    np.testing.assert_allclose((values * weights) @ values.T, np.eye(25), atol=1e-12)


def test_colour_depends_on_the_direction(one_splat: MakeScene, camera: MakeCamera) -> None:
    """One coefficient of degree 1 along z: brighter from one side, darker from the other."""
    coefficients = np.zeros((1, 3, COEFFICIENTS[1]), np.float32)
    coefficients[0, 0, 1] = 0.5
    splats: Splats = replace(one_splat(), shN=coefficients)
    behind = replace(
        camera(),
        position=np.array([0, 0, 8], np.float32),
        rotation=np.diag([-1, 1, -1]).astype("f4"),
    )
    assert project(splats, camera()).colours[0, 0] == pytest.approx(0.8 + 0.4886025 * 0.5, abs=1e-6)
    assert project(splats, behind).colours[0, 0] == pytest.approx(0.8 - 0.4886025 * 0.5, abs=1e-6)
