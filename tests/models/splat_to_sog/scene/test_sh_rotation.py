"""Rotated harmonics look, from a rotated direction, as they did; matrices form a group."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.rotations import rotation_matrices
from models.splat_to_sog.scene.sh_rotation import band_matrices, rotate_harmonics
from models.splat_to_sog.splats import COEFFICIENTS


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_colour_from_a_rotated_direction_is_the_original(
    degree, rng, basis, directions, quaternion
) -> None:
    rotation = rotation_matrices(quaternion[None])[0]
    count = COEFFICIENTS[degree]
    harmonics = rng.normal(size=(7, 3, count)).astype(np.float32)
    turned = np.empty_like(harmonics)
    rotate_harmonics(harmonics, band_matrices(rotation, degree), turned)
    before = harmonics @ basis(directions)[:, :count].T
    after = turned @ basis(directions @ rotation.T)[:, :count].T
    # float32 coefficients of about 1: rounding of 24 of them stays below 1e-5
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_matrices_are_orthogonal_and_compose(rng) -> None:
    first, second = rotation_matrices(rng.normal(size=(2, 4)))
    both = band_matrices(second @ first, 4)
    for a, b, ab in zip(band_matrices(first, 4), band_matrices(second, 4), both, strict=True):
        np.testing.assert_allclose(b @ a, ab, atol=1e-12)
        np.testing.assert_allclose(a @ a.T, np.eye(len(a)), atol=1e-12)


def test_agrees_with_projection_at_sample_directions(basis, directions, quaternion) -> None:
    """The plain way: the matrix that maps the basis at d onto the basis at R^-1 d."""
    rotation = rotation_matrices(quaternion[None])[0]
    start = 0
    for matrix in band_matrices(rotation, 4):
        band = slice(start, start + len(matrix))
        at, back = basis(directions)[:, band], basis(directions @ rotation)[:, band]
        plain = np.linalg.lstsq(at, back, rcond=None)[0]
        np.testing.assert_allclose(matrix, plain, atol=1e-10)
        start = band.stop


def test_identity_is_exact() -> None:
    for matrix in band_matrices(np.eye(3), 4):
        np.testing.assert_array_equal(matrix, np.eye(len(matrix)))


def test_degree_zero_has_no_matrices() -> None:
    assert band_matrices(np.eye(3), 0) == []
