"""canonical: another name for the same ellipsoid, with a constant tag."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.canonical import canonical, cube_rotations, matrices
from models.splat_to_sog.quantize import quantize_quats


def covariances(scales: np.ndarray, quats: np.ndarray) -> np.ndarray:
    q = quats.astype(np.float64)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    factor = matrices(q) * np.exp(scales.astype(np.float64))[:, None, :]
    return factor @ factor.transpose(0, 2, 1)


def test_the_24_rotations_of_the_cube() -> None:
    group, axes = cube_rotations()
    turned = np.rint(matrices(group)).astype(int)
    assert len({tuple(matrix.ravel()) for matrix in turned}) == 24
    assert (np.linalg.det(turned) > 0).all()
    np.testing.assert_allclose(matrices(group), turned, atol=1e-12)
    for matrix, axis in zip(turned, axes, strict=True):
        for j in range(3):
            assert abs(matrix[axis[j], j]) == 1


@pytest.mark.parametrize("keep_third", [False, True])
def test_the_covariance_is_the_same(rng, keep_third: bool) -> None:
    scales = rng.normal(size=(5000, 3)).astype(np.float32)
    quats = (rng.normal(size=(5000, 4)) * rng.uniform(0.1, 9)).astype(np.float32)
    found = canonical(scales, quats, keep_third)
    # Quaternions are float32: seven digits of the largest entry.
    expected = covariances(scales, quats)
    size = np.abs(expected).max(axis=(1, 2), keepdims=True)
    assert (np.abs(covariances(*found) - expected) < 2e-6 * size).all()
    np.testing.assert_array_equal(np.sort(found[0], axis=1), np.sort(scales, axis=1))
    if keep_third:
        np.testing.assert_array_equal(found[0][:, 2], scales[:, 2])
    else:
        # The farthest a rotation is from all 24: 62.8 degrees; w above cos(31.4).
        assert found[1][:, 0].min() > 0.853
        assert (quantize_quats(found[1])[:, 3] == 252).all()


def test_zero_quats_mean_no_rotation() -> None:
    scales, quats = canonical(np.float32([[1, 2, 3]]), np.zeros((1, 4), np.float32))
    assert quats.tolist() == [[1, 0, 0, 0]] and scales.tolist() == [[1, 2, 3]]
