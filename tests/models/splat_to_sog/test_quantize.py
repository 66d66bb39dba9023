"""Positions, rotations and opacities are rounded; each error stays within its half step."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog import layout
from models.splat_to_sog.quantize import (
    grid_of,
    quantize_opacities,
    quantize_positions,
    quantize_quats,
    smallest_three,
)


def test_positions_are_within_half_a_step_in_the_log_domain(rng) -> None:
    means = (rng.standard_t(2, (4000, 3)) * [1, 10, 1000]).astype(np.float32)
    found = quantize_positions(means)
    step = (found.maxs - found.mins) / 65535
    decoded = found.mins + step * (found.low + 256.0 * found.high)
    error = decoded - layout.log_position(means)
    # Half a step, and the rounding of float64 on top.
    assert (np.abs(error) <= step * (0.5 + 1e-9)).all()
    # Rounded, not truncated: the mean error is nothing against the half step of truncation.
    assert (np.abs(error.mean(axis=0)) < 0.05 * step).all()


def test_a_flat_axis_has_one_position(rng) -> None:
    means = rng.normal(size=(10, 3)).astype(np.float32)
    means[:, 1] = 7
    found = quantize_positions(means)
    assert (found.steps[:, 1] == 0).all()
    assert found.mins[1] == found.maxs[1] == np.log1p(7)


def test_log_position_and_back(rng) -> None:
    p = np.concatenate([rng.normal(size=1000), [0, 1e-12, -1e30]])
    np.testing.assert_allclose(layout.linear_position(layout.log_position(p)), p, rtol=1e-12)


def test_opacities_are_rounded_and_infinities_exact() -> None:
    alpha = np.linspace(0.001, 0.999, 997)
    logits = np.log(alpha / (1 - alpha)).astype(np.float32)
    np.testing.assert_array_equal(quantize_opacities(logits), np.rint(alpha * 255))
    assert quantize_opacities(np.float32([-np.inf, np.inf, -1e30, 1e30])).tolist() == [0, 255] * 2


def test_every_alpha_survives_a_round_trip() -> None:
    alphas = np.arange(256, dtype=np.uint8)
    logits = layout.alpha_to_logit(alphas).astype(np.float32)
    np.testing.assert_array_equal(quantize_opacities(logits), alphas)


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (q / np.linalg.norm(q, axis=1, keepdims=True) for q in (a.astype(np.float64), b))
    chord = np.minimum(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return 4 * np.arcsin(chord / 2)


def test_quats_are_within_half_a_step(rng) -> None:
    quats = rng.normal(size=(40_000, 4)).astype(np.float32) * rng.uniform(0.1, 9)
    stored, _, tag = smallest_three(quats)
    texels = quantize_quats(quats)
    assert (np.abs(texels[:, :3] - stored) <= 0.5 + 1e-9).all()  # float64 rounding
    np.testing.assert_array_equal(texels[:, 3], tag)
    # Half a step of the three stored bytes, in each of them, and twice that as an angle.
    error = angle(quats, layout.quats_from_texels(texels))
    assert np.sqrt(np.mean(error**2)) < 2 * np.sqrt(3) * (np.sqrt(2) / 255) / 2


def test_coarse_quats_use_fewer_codes_and_stay_within_their_step(rng) -> None:
    small = np.concatenate([np.ones((5000, 1)), rng.uniform(-0.2, 0.2, (5000, 3))], axis=1)
    stored, _, _ = smallest_three(small.astype(np.float32))
    steps = np.full(5000, 6)
    texels = quantize_quats(small.astype(np.float32), steps)
    assert (np.abs(texels[:, :3] - stored) <= 3.5).all()  # half a step, half a code
    assert len(np.unique(texels[:, :3])) <= 256 // 6


@pytest.mark.parametrize("spacing", [1, 2, 3, 7, 100, 256])
def test_coarse_positions_are_the_nearest_allowed(rng, spacing: int) -> None:
    """Against trying every allowed point."""
    means = rng.normal(size=(300, 3)).astype(np.float32)
    grid = grid_of(means)
    found = quantize_positions(means, grid, np.full((300, 3), spacing)).steps
    points = (layout.log_position(means) - grid.mins) / grid.unit
    every = np.arange(65536)
    allowed = every[every % 256 % spacing == 0]
    allowed = allowed[allowed <= 65535]
    after = np.searchsorted(allowed, points).clip(1, len(allowed) - 1)
    best = np.minimum(abs(points - allowed[after]), abs(points - allowed[after - 1]))
    inside = points <= allowed[-1]  # past the last, the end of the grid stands for the next cell
    np.testing.assert_allclose(np.abs(found - points)[inside], best[inside], atol=1e-6)
    assert np.isin(found[inside], allowed).all()


def test_coarse_opacities_keep_the_infinities() -> None:
    logits = np.float32([-np.inf, np.inf, 0.0, 1.0])
    assert quantize_opacities(logits, 16).tolist() == [0, 255, 128, 192]


def test_each_component_can_be_the_one_left_out() -> None:
    quats = np.eye(4, dtype=np.float32)
    texels = quantize_quats(np.concatenate([quats, -quats]))
    assert texels[:, 3].tolist() == [252, 253, 254, 255] * 2
    assert angle(np.concatenate([quats, quats]), layout.quats_from_texels(texels)).max() < 0.012


def test_zero_quats_mean_no_rotation() -> None:
    texels = quantize_quats(np.zeros((1, 4), np.float32))
    np.testing.assert_allclose(layout.quats_from_texels(texels), [[1, 0, 0, 0]], atol=0.005)


def test_a_texel_without_a_tag_means_no_rotation() -> None:
    texels = np.array([[9, 9, 9, 251], [9, 9, 9, 0]], np.uint8)
    np.testing.assert_array_equal(layout.quats_from_texels(texels), [[1, 0, 0, 0]] * 2)
