"""visibility: what lies behind others is seen less, what is alone is seen whole."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.splats import Splats
from models.splat_to_sog.visibility import FLOOR, REACH, visibility


def scene(means: np.ndarray, sigma: float = 0.007) -> Splats:
    n = len(means)
    return Splats(
        means=np.asarray(means, np.float32),
        scales=np.full((n, 3), np.log(sigma), np.float32),
        quats=np.tile(np.float32([1, 0, 0, 0]), (n, 1)),
        opacities=np.full(n, 3.0, np.float32),
        sh0=np.zeros((n, 3), np.float32),
        shN=np.zeros((n, 3, 0), np.float32),
    )


def seen(splats: Splats, alpha: np.ndarray | float = 0.95) -> np.ndarray:
    n = len(splats)
    areas = np.exp(2 * splats.scales.astype(np.float64)).mean(axis=1).astype(np.float32)
    return visibility(splats, np.broadcast_to(np.float32(alpha), (n,)), areas)


def wall(z: float) -> np.ndarray:
    """22,500 splats on a square of side 1, at most two points each: every column has some."""
    side = np.linspace(-0.5, 0.5, 150)
    x, y = np.meshgrid(side, side)
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=1)


def test_between_two_walls_less_is_seen_than_before_them() -> None:
    """REACH of the diagonal is 0.04: both walls are in it, from the splat between them."""
    middle = [(0.1 * i, 0.1 * j, 0.0) for i in range(-3, 4) for j in range(-3, 4)]
    before = [(x, y, 0.06) for x, y, _ in middle]
    found = seen(scene(np.concatenate([middle, before, wall(0.015), wall(-0.015)])))
    between, free = found[:49], found[49:98]
    assert between.max() < free.min()
    assert between.mean() < 0.3 * free.mean()


def test_one_wall_hides_from_one_end_only() -> None:
    found = seen(scene(np.concatenate([[(0, 0, 0.0)], wall(0.02)])))
    assert 0.3 < found[0] < 0.75  # seen whole from one end


def test_a_wall_beyond_reach_hides_nothing() -> None:
    """A room is seen from inside: its far walls do not count."""
    gap = 3 * REACH * np.sqrt(2)
    lonely = seen(scene(np.concatenate([[(0, 0, 0.0)], wall(gap), wall(-gap)])))[0]
    near = seen(scene(np.concatenate([[(0, 0, 0.0)], wall(gap / 6), wall(-gap / 6)])))[0]
    assert lonely == pytest.approx(1 + FLOOR)
    assert near < 0.5


def test_what_is_transparent_hides_nothing_and_what_is_faint_little() -> None:
    splats = scene(np.concatenate([[(0, 0, 0.0)], wall(0.015), wall(-0.015)]))
    found = [seen(splats, alpha)[0] for alpha in (0.0, 0.01, 0.1, 0.9)]
    assert found[0] == pytest.approx(1 + FLOOR)
    assert found == sorted(found, reverse=True) and len(set(found)) == 4


def test_within_its_bounds_and_the_same_again(rng) -> None:
    splats = scene(rng.normal(size=(3000, 3)), 0.1)
    found = seen(splats)
    assert (found >= FLOOR).all() and (found <= np.float32(1 + FLOOR)).all()
    assert found.min() < 0.6 < 0.9 < found.max()
    np.testing.assert_array_equal(seen(splats), found)


def test_the_length_of_a_quaternion_says_nothing(rng) -> None:
    """Nor does 1e30, whose square is beyond float32; zero is no rotation."""
    splats = scene(rng.normal(size=(500, 3)))
    splats.scales[:] = np.log([0.3, 0.02, 0.02])
    splats.quats[:] = rng.normal(size=(500, 4))
    found = seen(splats)
    for length in (1e30, 1e-30):
        longer = scene(splats.means)
        longer.scales[:], longer.quats[:] = splats.scales, splats.quats * np.float32(length)
        np.testing.assert_allclose(seen(longer), found, atol=1e-6)
    splats.quats[:] = 0
    unturned = scene(splats.means)
    unturned.scales[:] = splats.scales
    np.testing.assert_array_equal(seen(splats), seen(unturned))


def test_outliers_at_the_ends_of_float32_leave_the_rest_as_it_was(rng) -> None:
    means = np.concatenate([rng.normal(size=(3000, 3)), np.zeros((2, 3))]).astype(np.float32)
    splats = scene(means, 0.1)
    splats.means[-2:] = (3.4e38, -3.4e38, 1e30), (-3.4e38, 3.4e38, 0)
    found = seen(splats)
    assert np.isfinite(found).all()
    # The middle 98 % set the grid: two of 3,000 move it by little.
    plain = seen(scene(means[:-2], 0.1))
    assert np.abs(found[:-2] - plain).mean() < 0.05


def test_a_scene_of_one_place_is_seen_whole() -> None:
    for place in (0.0, 1e30, 3.4e38):
        assert np.isfinite(seen(scene(np.full((4, 3), place)))).all()
