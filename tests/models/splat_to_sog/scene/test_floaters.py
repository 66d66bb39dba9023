"""Lonely small splats go, large ones of the background and dense ones stay."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.scene.floaters import neighbour_distances, not_floating


@pytest.fixture
def scene(make_splats, rng):
    """A sheet of 2000 splats, 10 lonely small ones, 10 lonely ones as large as their gaps."""
    splats = make_splats(2020)
    splats.means[:2000] = rng.uniform(-1, 1, (2000, 3)) * (1, 1, 0.01)
    angles = rng.uniform(0, 2 * np.pi, 20)
    splats.means[2000:] = np.stack([20 * np.cos(angles), 20 * np.sin(angles), angles], axis=1)
    splats.scales[:2010] = np.log(0.02)
    splats.scales[2010:] = np.log(10.0)
    return splats


def test_drops_the_lonely_and_keeps_the_large(scene) -> None:
    keep = not_floating(scene, 1.0)
    assert keep[:2000].mean() > 0.995
    assert not keep[2000:2010].any()
    assert keep[2010:].all()


def test_more_strength_drops_more(scene) -> None:
    weak, strong = not_floating(scene, 0.5), not_floating(scene, 3.0)
    assert strong.sum() < weak.sum()
    assert not (strong & ~weak).any()


def test_distances_equal_the_plain_computation(rng) -> None:
    means = rng.normal(size=(200, 3)).astype(np.float32)
    all_pairs = np.linalg.norm(means[:, None].astype(np.float64) - means, axis=2)
    plain = np.sort(all_pairs, axis=1)[:, 1:6].mean(axis=1)
    np.testing.assert_allclose(neighbour_distances(means, 5), plain, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_tiny_and_coincident_scenes_are_kept(make_splats, n) -> None:
    splats = make_splats(n)
    splats.means[:] = 5
    assert not_floating(splats, 1.0).all()
