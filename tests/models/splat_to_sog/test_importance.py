"""importance: its closed forms where they are exact, and against pictures of one splat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.splat_to_sog.importance import (
    ATTRIBUTES,
    BRIGHTEST,
    ORBIT,
    SHARE,
    axis_shares,
    frame,
    importance,
)
from models.splat_to_sog.layout import linear_position, log_position
from models.splat_to_sog.metrics.cameras import orbit
from models.splat_to_sog.metrics.renderer import renderer
from models.splat_to_sog.splats import SH_C0, Splats


def one_size(rng: np.random.Generator, n: int = 400, sigma: float = 0.02) -> Splats:
    """Round splats of one size and colour on a sphere of radius 1."""
    means = rng.normal(size=(n, 3))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return Splats(
        means=means.astype(np.float32),
        scales=np.full((n, 3), np.log(sigma), np.float32),
        quats=np.tile(np.float32([1, 0, 0, 0]), (n, 1)),
        opacities=np.full(n, 2.0, np.float32),
        sh0=np.full((n, 3), 0.5, np.float32),
        shN=np.zeros((n, 3, 0), np.float32),
    )


def with_scales(splats: Splats, *sigmas: float) -> Splats:
    return replace(splats, scales=np.broadcast_to(np.log(sigmas), (len(splats), 3)).astype("f4"))


def worth(splats: Splats, name: str) -> np.ndarray:
    return importance(splats, hidden=False).worth[name].astype(np.float64)


@pytest.mark.parametrize("name", ["colour", "opacity"])
def test_twice_the_area_is_worth_twice(rng, name: str) -> None:
    small = one_size(rng)
    large = replace(small, scales=small.scales + np.float32(np.log(2) / 2))
    # A pixel's blur adds 0.5 % of the variance.
    np.testing.assert_allclose(worth(large, name) / worth(small, name), 2, rtol=0.01)


def test_the_area_of_an_ellipsoid_is_that_of_its_mean_shadow(rng) -> None:
    """Against the shadow pi sqrt(b2 c2 x2 + a2 c2 y2 + a2 b2 z2) averaged over directions."""
    a, b, c = 0.06, 0.03, 0.015
    way = rng.normal(size=(200_000, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    shadow = np.sqrt((way**2) @ [(b * c) ** 2, (a * c) ** 2, (a * b) ** 2]).mean()
    splats = one_size(rng)
    found = worth(with_scales(splats, a, b, c), "colour") / worth(
        with_scales(splats, 0.03, 0.03, 0.03), "colour"
    )
    # Thomsen's formula is within 1.1 %, the sample and the blur within 0.5 %.
    np.testing.assert_allclose(found, shadow / 0.03**2, rtol=0.02)


def test_worth_falls_with_the_squared_distance_of_the_cameras(rng) -> None:
    splats = one_size(rng)
    splats.means[:2] = [(0, 0, 0), (0, 30, 0)]
    centre, radius = frame(splats.means)
    found = worth(splats, "colour")[:2]
    distance2 = (ORBIT * radius) ** 2 + ((splats.means[:2] - centre) ** 2).sum(axis=1)
    # Blurred by a pixel at 30 radii, which is 0.5 % of the near splat's variance: 1.05 of area.
    expected = (1 + 5.13e-7 * distance2 / 0.02**2) / distance2
    np.testing.assert_allclose(found[0] / found[1], expected[0] / expected[1], rtol=1e-3)
    assert found[0] > 100 * found[1]


def test_what_is_drawn_faintly_is_worth_its_square(rng) -> None:
    splats = one_size(rng, 4)
    splats.means[:] = splats.means[0]
    splats.opacities[:] = np.log([0.4 / 0.6, 0.8 / 0.2, 0.004 / 0.996, 1.0])
    splats.opacities[3] = -np.inf
    colour, opacity = worth(splats, "colour"), worth(splats, "opacity")
    assert colour[1] / colour[0] == pytest.approx(4, rel=1e-3)
    assert opacity[1] / opacity[0] == pytest.approx(1, rel=1e-3)  # the first steps count as much
    assert colour[3] == 0 and 0 < opacity[3] < 0.02 * opacity[0]


def test_shapes_of_black_splats_are_worth_little_and_colours_as_much(rng) -> None:
    bright = one_size(rng)
    dark = replace(bright, sh0=np.full_like(bright.sh0, -0.5 / SH_C0))
    np.testing.assert_array_equal(worth(bright, "colour"), worth(dark, "colour"))
    for name in ("position", "scale", "opacity"):
        ratio = worth(dark, name) / worth(bright, name)
        assert ((ratio > 0) & (ratio < 0.05)).all()


def test_a_round_splat_may_turn_and_a_needle_may_not(rng) -> None:
    splats = one_size(rng)
    assert (worth(splats, "rotation") == 0).all()
    plate = worth(with_scales(splats, 0.04, 0.04, 0.01), "rotation")
    needle = worth(with_scales(splats, 0.08, 0.01, 0.01), "rotation")
    assert (plate > 0).all() and (needle > plate).all()


def test_thin_axes_have_no_share_of_the_scales(rng) -> None:
    splats = with_scales(one_size(rng), 0.03, 0.03, 1e-9)
    np.testing.assert_allclose(
        axis_shares(splats.means, splats.scales), [[1.5, 1.5, 0]] * len(splats), atol=1e-6
    )


def disturbed(splats: Splats, name: str, size: float, rng: np.random.Generator) -> Splats:
    """Splat 0 with an error of deviation `size` in each number, in the units of its worth."""
    error = rng.normal(size=ATTRIBUTES[name]) * size
    if name == "position":
        means = splats.means.copy()
        means[0] = linear_position(log_position(means[0]) + error)
        return replace(splats, means=means)
    if name == "opacity":
        alpha = 1 / (1 + np.exp(-splats.opacities.astype(np.float64)))
        alpha[0] += error[0]
        with np.errstate(divide="ignore"):
            return replace(splats, opacities=np.log(alpha / (1 - alpha)).astype(np.float32))
    if name == "rotation":
        quats = splats.quats.copy()
        quats[0] = [1, *(error / 2)]  # of no rotation
        return replace(splats, quats=quats)
    field = {"scale": "scales", "colour": "sh0"}[name]
    values = getattr(splats, field).copy()
    values[0] += error.astype(np.float32)
    return replace(splats, **{field: values})


SIZES = {"position": 0.004, "scale": 0.05, "rotation": 0.05, "colour": 0.05, "opacity": 0.02}


def predicted_over_rendered(splats: Splats, name: str, rng: np.random.Generator) -> float:
    """Of an error of splat 0, seen from where the estimate takes cameras to be."""
    centre, radius = frame(splats.means)
    cameras = [
        replace(
            camera,
            position=(centre - camera.rotation[2] * ORBIT * radius).astype(np.float32),
            focal_px=128.0,  # a picture as wide as its distance
        )
        for camera in orbit(splats, 8, 128)
    ]

    def pictures(scene: Splats) -> np.ndarray:
        drawn = renderer(scene, "cpu")
        return np.stack([drawn.render(camera) for camera in cameras])

    plain = pictures(splats)
    seen = np.mean(
        [
            np.mean((pictures(disturbed(splats, name, SIZES[name], rng)) - plain) ** 2)
            for _ in range(12)
        ]
    )
    each = float(importance(splats, hidden=False).worth[name][0])
    return each * ATTRIBUTES[name] * SIZES[name] ** 2 / float(seen)


def lone(rng: np.random.Generator, *sigmas: float) -> Splats:
    """One splat near the middle of others that are invisible."""
    splats = with_scales(one_size(rng, 64), *sigmas)
    splats.means[0], splats.sh0[0] = (0.1, -0.05, 0.02), (0.9, 0.2, -0.3)
    splats.opacities[1:] = -np.inf
    return splats


@pytest.mark.parametrize("name", ["position", "scale", "colour", "opacity"])
def test_the_error_of_a_lone_round_splat_is_as_predicted(rng, name: str) -> None:
    """For one round splat the integrals are exact but for SHARE, which is fitted to scenes in
    which splats overlap (of positions: an error along the view is not seen, nor its half)."""
    exact = 3 * SHARE["position"] if name == "position" else SHARE[name]
    # A dozen draws of one to three normal numbers, and pixels: measured 0.92..1.09 of it.
    found = predicted_over_rendered(lone(rng, 0.05, 0.05, 0.05), name, rng)
    assert 0.6 < found / exact < 1.6


@pytest.mark.parametrize("name", list(SIZES))
def test_the_error_of_a_lone_ellipsoid_is_predicted_within_a_factor(rng, name: str) -> None:
    """Means over axes and directions do not know which axis a camera sees: a factor of 4."""
    found = predicted_over_rendered(lone(rng, 0.08, 0.04, 0.02), name, rng)
    assert 1 / 4 < found / SHARE[name] < 4 * (3 if name == "position" else 1)


EXTREMES = {
    "means": (3.4e38, -3.4e38, 1e30, 4e12, 1e-30),
    "scales": (-np.inf, 80.0, -100.0, 3.4e38),
    "quats": (1e30, 1e-30, 0.0),
    "opacities": (np.inf, -np.inf, 1e30),
    "sh0": (1e5, -1e5, 3.4e38),
}


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize(
    ("field", "value"), [(field, v) for field, values in EXTREMES.items() for v in values]
)
def test_extreme_values_have_a_finite_worth(
    rng, field: str, value: float, every: bool, hidden: bool
) -> None:
    """Legal numbers near the ends of float32, in some splats or in all; warnings are errors."""
    splats = one_size(rng, 50)
    getattr(splats, field)[slice(None) if every else slice(7)] = value
    if field == "means":
        splats.scales[:5] = 15  # as wide as the estimate takes any splat to be
    for name, found in importance(splats, hidden).worth.items():
        assert (np.isfinite(found) & (found >= 0)).all(), name


def test_all_extremes_at_once_have_a_finite_worth(rng) -> None:
    splats = one_size(rng, 500)
    for field, values in EXTREMES.items():
        array = getattr(splats, field)
        array[rng.random(array.shape) < 0.3] = rng.choice(np.float32(values))
    for name, found in importance(splats).worth.items():
        assert (np.isfinite(found) & (found >= 0)).all(), name


def test_a_colour_no_display_shows_is_taken_for_the_brightest(rng) -> None:
    brightest = one_size(rng)
    brightest.sh0[:] = (BRIGHTEST - 0.5) / SH_C0
    brighter = replace(brightest, sh0=np.full_like(brightest.sh0, 1e5))
    np.testing.assert_allclose(worth(brighter, "scale"), worth(brightest, "scale"), rtol=1e-5)
