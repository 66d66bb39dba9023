"""canonical: another name for the same ellipsoid, with a constant tag."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog import layout
from models.splat_to_sog.canonical import canonical, cube_rotations
from models.splat_to_sog.quantize import quantize_quats
from models.splat_to_sog.rotations import unit_matrices


def covariances(scales: np.ndarray, quats: np.ndarray) -> np.ndarray:
    q = quats.astype(np.float64)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    factor = unit_matrices(q) * np.exp(scales.astype(np.float64))[:, None, :]
    return factor @ factor.transpose(0, 2, 1)


def test_the_24_rotations_of_the_cube() -> None:
    group, axes = cube_rotations()
    turned = np.rint(unit_matrices(group)).astype(int)
    assert len({tuple(matrix.ravel()) for matrix in turned}) == 24
    assert (np.linalg.det(turned) > 0).all()
    np.testing.assert_allclose(unit_matrices(group), turned, atol=1e-12)
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


def test_it_is_the_smallest_of_all(rng) -> None:
    """Against every element of the group tried in turn."""
    quats = rng.normal(size=(20_000, 4)).astype(np.float32)
    quats[:64] = np.sign(rng.normal(size=(64, 4)))  # ties
    quats[64:128, :2] = 0
    group, _ = cube_rotations()
    unit = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    largest = np.abs(unit @ (group * (1, -1, -1, -1)).T).max(axis=1)
    found = canonical(np.zeros((len(quats), 3), np.float32), quats)[1]
    np.testing.assert_allclose(
        found[:, 0], largest, atol=1e-6
    )  # float32: near ties may go either way


def test_zero_quats_mean_no_rotation() -> None:
    scales, quats = canonical(np.float32([[1, 2, 3]]), np.zeros((1, 4), np.float32))
    assert quats.tolist() == [[1, 0, 0, 0]] and scales.tolist() == [[1, 2, 3]]


def test_the_input_stays_as_it_is() -> None:
    quats = np.float32([[1, 2, 3, 4]])
    canonical(np.zeros((1, 3), np.float32), quats, turns=6)
    assert quats.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("keep_third", [False, True])
def test_a_choice_among_turns_stores_better_and_means_the_same(rng, keep_third: bool) -> None:
    scales = rng.normal(size=(5000, 3)).astype(np.float32)
    quats = rng.normal(size=(5000, 4)).astype(np.float32)
    expected = covariances(scales, quats)
    size = np.abs(expected).max(axis=(1, 2), keepdims=True)
    found = {turns: canonical(scales, quats, keep_third, turns) for turns in (1, 2, 6, 24)}
    errors = {}
    for turns, (s, q) in found.items():
        assert (np.abs(covariances(s, q) - expected) < 2e-6 * size).all()
        stored = layout.quats_from_texels(quantize_quats(q))
        cosine = np.abs(np.einsum("ni,ni->n", stored, q / np.linalg.norm(q, axis=1)[:, None]))
        errors[turns] = np.arccos(np.minimum(cosine, 1))
        if keep_third:
            np.testing.assert_array_equal(s[:, 2], scales[:, 2])
        else:
            assert (quantize_quats(q)[:, 3] == 252).all()
    # The same angle, from float64: never larger but for the float32 in which it is compared.
    for fewer, more in ((1, 2), (2, 6), (6, 24)):
        assert (errors[more] <= errors[fewer] * 1.001 + 2e-4).all()
    if not keep_third:
        assert np.mean(errors[6] ** 2) < 0.5 * np.mean(errors[1] ** 2)


def test_turns_beyond_the_group_are_all_of_it(rng) -> None:
    scales = rng.normal(size=(200, 3)).astype(np.float32)
    quats = rng.normal(size=(200, 4)).astype(np.float32)
    for keep_third in (False, True):
        np.testing.assert_array_equal(
            canonical(scales, quats, keep_third, 24)[1],
            canonical(scales, quats, keep_third, 100)[1],
        )


@pytest.mark.parametrize("length", [1e-30, 1.0, 1e30])
def test_any_length_of_a_quaternion_is_the_same_rotation(rng, length: float) -> None:
    scales = rng.normal(size=(500, 3)).astype(np.float32)
    quats = rng.normal(size=(500, 4)).astype(np.float32)
    found = canonical(scales, quats * np.float32(length), turns=6)[1]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    expected = canonical(scales, quats)[0]
    np.testing.assert_array_equal(np.sort(expected), np.sort(scales))
