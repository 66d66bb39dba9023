"""Positions, sizes, rotations and colours move together; conventions are those documented."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.rotations import quaternions, rotation_matrices
from models.splat_to_sog.scene.moments import covariances
from models.splat_to_sog.scene.transform import Transform, euler_matrix, transform


def full(covs: np.ndarray) -> np.ndarray:
    return covs[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)


def test_moves_means_covariances_and_colours(make_splats, basis, directions, quaternion) -> None:
    splats = make_splats(30, 3)
    change = Transform(rotation_matrices(quaternion[None])[0], 2.5, np.array([1.0, -2, 3]))
    moved = transform(splats, change)
    r = change.rotation
    np.testing.assert_allclose(
        moved.means, 2.5 * splats.means @ r.T + (1, -2, 3), atol=1e-5
    )  # float32 of about 30
    before = full(covariances(splats.scales, splats.quats).astype(np.float64))
    after = full(covariances(moved.scales, moved.quats).astype(np.float64))
    expected = 6.25 * r @ before @ r.T
    np.testing.assert_allclose(after, expected, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_allclose(
        moved.shN @ basis(directions @ r.T)[:, :15].T,
        splats.shN @ basis(directions)[:, :15].T,
        atol=1e-5,
    )
    np.testing.assert_array_equal(moved.opacities, splats.opacities)


def test_two_transforms_equal_their_composition(make_splats, rng) -> None:
    splats = make_splats(20, 2)
    first, second = (
        Transform.of(rng.normal(size=3), rng.uniform(-180, 180, 3), scale) for scale in (0.5, 3.0)
    )
    steps = transform(transform(splats, first), second)
    composed = Transform(
        second.rotation @ first.rotation,
        second.scale * first.scale,
        second.scale * second.rotation @ first.translation + second.translation,
    )
    once = transform(splats, composed)
    np.testing.assert_allclose(steps.means, once.means, atol=1e-5)
    np.testing.assert_allclose(steps.scales, once.scales, atol=1e-5)
    np.testing.assert_allclose(steps.shN, once.shN, atol=1e-5)
    same = np.abs((steps.quats * once.quats).sum(1)) / (
        np.linalg.norm(steps.quats, axis=1) * np.linalg.norm(once.quats, axis=1)
    )
    np.testing.assert_allclose(same, 1, atol=1e-5)  # q and -q are one rotation


def test_the_identity_is_the_same_object(make_splats) -> None:
    splats = make_splats(3, 1)
    assert transform(splats, Transform.of()) is splats
    assert transform(splats, Transform.of(rotate=(360, 0, -720))) is splats


def test_the_callers_arrays_stay(make_splats) -> None:
    splats = make_splats(3, 1)
    before = {name: array.copy() for name, array in vars(splats).items() if name != "model"}
    transform(splats, Transform.of((1, 2, 3), (10, 20, 30), 2))
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(splats, name), array)


@pytest.mark.parametrize(
    ("degrees", "of", "becomes"),
    [
        ((90, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((0, 90, 0), (0, 0, 1), (1, 0, 0)),
        ((0, 0, 90), (1, 0, 0), (0, 1, 0)),
        ((90, 0, 90), (0, 1, 0), (0, 0, 1)),  # about x first: then z leaves it
        ((0, 90, 90), (0, 0, 1), (0, 1, 0)),  # about y, then z
    ],
)
def test_angles_are_right_handed_about_fixed_axes(degrees, of, becomes) -> None:
    np.testing.assert_array_equal(euler_matrix(degrees) @ of, becomes)


def test_order_is_scale_rotate_translate(make_splats) -> None:
    splats = make_splats(1)
    splats.means[0] = (1, 0, 0)
    moved = transform(splats, Transform.of((10, 0, 0), (0, 0, 90), 2))
    np.testing.assert_allclose(moved.means[0], (10, 2, 0), atol=1e-6)


def test_flat_and_infinite_values_survive(make_splats) -> None:
    splats = make_splats(2)
    splats.scales[0, 2] = -np.inf
    splats.opacities[1] = np.inf
    moved = transform(splats, Transform.of(rotate=(0, 45, 0), scale=3))
    assert moved.scales[0, 2] == -np.inf
    assert moved.opacities[1] == np.inf


def test_quaternions_invert_rotation_matrices(rng) -> None:
    q = rng.normal(size=(100, 4))
    q[0], q[1], q[2] = (0, 1, 0, 0), (0, 0, 0, 1), (1, 0, 0, 0)  # half turns: w is 0
    matrices = rotation_matrices(q)
    np.testing.assert_allclose(rotation_matrices(quaternions(matrices)), matrices, atol=1e-12)
