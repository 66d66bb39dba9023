"""The closed form equals pictures drawn and integrated on a fine grid."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.scene.moments import moments_of
from models.splat_to_sog.scene.pair_cost import (
    COLOUR_WEIGHT,
    CONTRAST,
    WEIGHT_POWER,
    Scene,
    Views,
    merge_pairs,
    picture_areas,
)

BLUR = 0.01


@pytest.fixture
def pair(make_splats, rng):
    splats = make_splats(2, 1)
    splats.means[:] = rng.normal(size=(2, 3)) * 0.4
    splats.scales[:] = rng.uniform(-1.5, -0.5, (2, 3))
    splats.opacities[:] = (-1.0, 0.3)
    return splats


def scene_of(splats) -> Scene:
    moments = moments_of(splats, np.arange(len(splats)))
    ones = np.ones(len(splats), np.float32)
    blur = np.full(len(splats), BLUR, np.float32)
    return Scene(moments, picture_areas(moments.covs, blur, Views()), blur, ones, ones)


def picture(mean: np.ndarray, cov: np.ndarray, frame: np.ndarray, grid: np.ndarray) -> np.ndarray:
    full = cov[[0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(3, 3).astype(np.float64)
    inverse = np.linalg.inv(frame[:2] @ full @ frame[:2].T + BLUR * np.eye(2))
    offset = grid - frame[:2] @ mean
    return np.exp(-0.5 * np.einsum("...i,ij,...j->...", offset, inverse, offset))


def test_closed_form_equals_integrated_pictures(pair) -> None:
    scene, views = scene_of(pair), Views()
    merged = merge_pairs(scene, np.array([0]), np.array([1]), views)
    axis = np.linspace(-6, 6, 601)
    cell = (axis[1] - axis[0]) ** 2
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    kept = change = energy = mass = merged_mass = 0.0
    a, b = scene.moments.alphas
    for frame in views.frames:
        first, second = (
            alpha * picture(scene.moments.means[k], scene.moments.covs[k], frame, grid)
            for k, alpha in ((0, a), (1, b))
        )
        single = merged.alphas[0] * picture(merged.means[0], merged.covs[0], frame, grid)
        kept += (1 - (1 - first) * (1 - second)).sum() * cell / 3
        merged_mass += single.sum() * cell / 3
        change += ((first + second - single) ** 2).sum() * cell / 3
        energy += (first**2 + second**2).sum() * cell / 3
        mass += (first + second).sum() * cell / 3
    gap = scene.moments.colours[0] - scene.moments.colours[1]
    tint = (gap**2).sum() / (12 * np.pi)
    # float32 sums of a dozen terms, and a grid that ends at 6: a thousandth is enough to be right
    np.testing.assert_allclose(merged_mass, kept, rtol=1e-3)
    weight = (mass / (2 * np.pi)) ** WEIGHT_POWER
    expected = (change / energy + COLOUR_WEIGHT * tint) * weight
    np.testing.assert_allclose(merged.costs[0], expected, rtol=2e-3)
    expected = CONTRAST * change + tint * energy
    np.testing.assert_allclose(merged.changes[0], expected, rtol=2e-3)


def test_a_pair_of_equals_in_one_place_merges_into_itself(pair) -> None:
    for name in ("means", "scales", "quats", "sh0", "shN"):
        getattr(pair, name)[1] = getattr(pair, name)[0]
    pair.opacities[:] = 0
    scene = scene_of(pair)
    merged = merge_pairs(scene, np.array([0]), np.array([1]), Views())
    np.testing.assert_allclose(merged.covs[0], scene.moments.covs[0], rtol=1e-6)
    # 1 - (1 - g/2)(1 - g/2) = g - g^2/4; the square's integral is half of g's: 1 - 1/8
    np.testing.assert_allclose(merged.alphas[0], 0.875, rtol=1e-5)


def test_an_invisible_partner_changes_nothing(pair) -> None:
    pair.opacities[1] = -np.inf
    scene = scene_of(pair)
    merged = merge_pairs(scene, np.array([0]), np.array([1]), Views())
    np.testing.assert_allclose(merged.covs[0], scene.moments.covs[0], rtol=1e-6)
    np.testing.assert_allclose(merged.means[0], pair.means[0], rtol=1e-6)
    np.testing.assert_allclose(merged.alphas[0], scene.moments.alphas[0], rtol=1e-5)
    assert merged.shares[0] == 1
