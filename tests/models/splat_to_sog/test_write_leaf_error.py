"""The error of a leaf's level: nothing for the same picture, more for less of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from models.splat_to_sog.metrics.harmonics import basis
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.writers.leaf_error import leaf_cameras, rendered_errors

MakeSplats = Callable[..., Splats]


def test_an_equal_level_has_no_error_and_less_of_it_has_more(make_splats: MakeSplats) -> None:
    splats = make_splats(300, 1)
    splats.scales[:] += 3  # ellipsoids of 0.4 units in a scene of 20
    half, tenth = splats.take(np.arange(0, 300, 2)), splats.take(np.arange(0, 300, 10))
    first, same, less, least = rendered_errors([splats, splats, half, tenth])
    assert first == same == 0
    assert 0.05 < less < least < 1


def test_lost_coverage_counts_where_colour_is_black(make_splats: MakeSplats) -> None:
    splats = make_splats(20)
    splats.scales[:] += 3
    splats.sh0[:] = -1.8  # below black: the picture over black is empty
    gone = replace(splats, opacities=np.full(20, -20, np.float32))
    assert rendered_errors([splats, gone])[1] == pytest.approx(1, abs=1e-3)


def test_the_error_has_no_unit(make_splats: MakeSplats) -> None:
    """100 times as large: the same pictures. 2 %: other roundings of float32 centres."""
    splats = make_splats(200)
    splats.scales[:] += 3
    large = replace(splats, means=100 * splats.means, scales=splats.scales + np.log(100, dtype="f"))
    rows = np.arange(0, 200, 3)
    error, same = (rendered_errors([s, s.take(rows)])[1] for s in (splats, large))
    assert error == pytest.approx(same, rel=0.02) and error > 0.01


def test_views_are_turned_away_from_the_axes(make_splats: MakeSplats) -> None:
    """Six directions in opposite pairs, and no harmonic vanishes along any of them."""
    cameras = leaf_cameras([make_splats(10)])
    forwards = np.array([camera.rotation[2] for camera in cameras])
    np.testing.assert_allclose(forwards[::2], -forwards[1::2], atol=1e-6)
    np.testing.assert_allclose(forwards[::2] @ forwards[::2].T, np.eye(3), atol=1e-6)
    for camera in cameras:
        assert np.linalg.det(camera.rotation) == pytest.approx(1, abs=1e-6)
    values = np.stack(basis(*forwards.astype(np.float64).T)[:15])
    assert np.abs(values).min() > 0.07


def test_nothing_to_be_seen() -> None:
    one = Splats(
        *(np.zeros((1, k), np.float32) for k in (3, 3)),
        np.ones((1, 4), np.float32),
        np.full(1, -np.inf, np.float32),
        np.ones((1, 3), np.float32),
        np.zeros((1, 3, 0), np.float32),
    )
    seen = replace(one, opacities=np.full(1, np.inf, np.float32))
    assert rendered_errors([one, one, seen]) == [0, 0, 1]
    assert rendered_errors([seen]) == [0]
