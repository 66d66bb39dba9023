"""Errors by attribute: planted ones are measured, and an ellipsoid's other names are none."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from models.splat_to_sog.metrics.attributes import attribute_errors, rotation_errors
from models.splat_to_sog.metrics.cameras import extent
from models.splat_to_sog.metrics.project import covariances
from models.splat_to_sog.rotations import rotation_matrices
from models.splat_to_sog.splats import SH_C0, Splats
from tests.models.splat_to_sog.conftest import MakeSplats


def renamed(splats: Splats, rng: np.random.Generator) -> Splats:
    """The same ellipsoids under another of their 24 names each."""
    frames = []
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        frame = np.eye(3)[:, order] * signs
        if np.linalg.det(frame) > 0:
            frames.append((order, frame))
    pick = rng.integers(24, size=len(splats))
    turned = rotation_matrices(splats.quats) @ np.stack([frames[i][1] for i in pick])
    quats = np.roll(Rotation.from_matrix(turned).as_quat(), 1, axis=1).astype(np.float32)
    orders = np.array([frames[i][0] for i in pick])
    return replace(splats, quats=quats, scales=np.take_along_axis(splats.scales, orders, axis=1))


def test_equal_scenes(make_splats: MakeSplats) -> None:
    splats = make_splats(200, 2)
    errors = attribute_errors(splats, splats)
    for name in ("position", "log_scale", "opacity", "colour"):
        assert errors[name]["rms"] == errors[name]["max"] == 0
    assert errors["covariance"] == {"mean": 0, "p99": 0}
    assert errors["rotation"]["p99_deg"] < 1e-6
    assert errors["harmonics"]["snr_db"] == 120


def test_another_name_of_an_ellipsoid_is_no_error(make_splats: MakeSplats, rng) -> None:
    splats = make_splats(500)
    other = renamed(splats, rng)
    assert not np.allclose(splats.quats, other.quats)
    np.testing.assert_allclose(
        covariances(other.quats, other.scales),
        covariances(splats.quats, splats.scales),
        rtol=1e-4,
        atol=1e-5,
    )
    errors = attribute_errors(splats, other)
    assert errors["log_scale"]["max"] == 0
    assert errors["covariance"]["p99"] < 1e-5  # quaternions in float32
    assert errors["rotation"]["p99_deg"] < 1e-3


def test_planted_errors_are_measured(make_splats: MakeSplats, rng) -> None:
    splats = make_splats(400, 1)
    step = np.float32([[0.3, 0, 0.4]])
    decoded = replace(
        splats,
        means=splats.means + step,
        scales=splats.scales + np.float32(0.05),
        sh0=splats.sh0 + np.float32(2 / 255 / SH_C0),
        shN=splats.shN * np.float32(1.1),
        opacities=np.full(400, np.inf, np.float32),
    )
    splats = replace(splats, opacities=np.zeros(400, np.float32))
    errors = attribute_errors(splats, decoded)
    radius = extent(splats)[1]
    assert errors["position"]["rms"] == pytest.approx(0.5, rel=1e-3)
    assert errors["position"]["rms_of_radius"] == pytest.approx(0.5 / radius, rel=1e-3)
    assert errors["log_scale"]["rms"] == pytest.approx(0.05, rel=1e-3)
    assert errors["covariance"]["mean"] == pytest.approx(np.exp(0.1) - 1, rel=1e-3)
    assert errors["rotation"]["p99_deg"] < 1e-3
    assert errors["colour"]["max"] == pytest.approx(2, rel=1e-3)
    assert errors["opacity"]["rms"] == pytest.approx(127.5, rel=1e-3)
    assert errors["harmonics"]["snr_db"] == pytest.approx(20, abs=0.01)
    # without the harmonics all of their signal is lost
    cut = replace(decoded, shN=np.zeros((400, 3, 0), np.float32))
    assert attribute_errors(splats, cut)["harmonics"]["snr_db"] == 0


@pytest.mark.parametrize("degrees", [0.01, 1.0, 20.0])
def test_a_turn_counts_by_how_much_it_shows(degrees: float, rng) -> None:
    """About the long axis of a needle nothing shows; across it, all of the angle does."""
    quats = rng.normal(size=(100, 4)).astype(np.float32)
    needle = np.tile([0.0, -9.0, -9.0], (100, 1))
    for axis, expected in ((0, 0.0), (1, degrees), (2, degrees)):
        turn = Rotation.from_rotvec(np.radians(degrees) * np.eye(3)[axis])
        matrices = rotation_matrices(quats) @ turn.as_matrix()
        turned = np.roll(Rotation.from_matrix(matrices).as_quat(), 1, axis=1).astype(np.float32)
        np.testing.assert_allclose(
            rotation_errors(quats, turned, needle), expected, rtol=1e-3, atol=2e-5
        )
        round_ = rotation_errors(quats, turned, np.zeros((100, 3)))
        assert round_.max() == 0


def test_the_best_of_all_frames_is_found(rng) -> None:
    """Rotations that have nothing in common: the least angle over the 24 frames, tried in turn."""
    a, b = rng.normal(size=(2, 2000, 4)).astype(np.float32)
    turn = rotation_matrices(a).transpose(0, 2, 1) @ rotation_matrices(b)
    traces = [
        np.trace(turn @ (np.eye(3)[:, order] * signs), axis1=1, axis2=2)
        for order, signs in product(permutations(range(3)), product((1, -1), repeat=3))
        if np.linalg.det(np.eye(3)[:, order] * signs) > 0
    ]
    least = np.degrees(np.arccos((np.max(traces, axis=0) - 1) / 2))
    unlike = np.tile([0.0, -20.0, -40.0], (2000, 1))  # every axis counts in full
    np.testing.assert_allclose(rotation_errors(a, b, unlike), least, rtol=1e-3)


def test_flat_and_invisible_are_legal(make_splats: MakeSplats) -> None:
    splats = make_splats(50)
    splats.scales[:10] = -np.inf
    splats.scales[10:20, 1] = -np.inf
    splats.opacities[::2] = np.inf
    coded = replace(
        splats,
        scales=np.maximum(splats.scales, -40),
        opacities=np.clip(splats.opacities, -20, 20),
    )
    errors = attribute_errors(splats, coded)
    assert errors["log_scale"]["max"] == 0
    assert errors["opacity"]["max"] < 1e-6
    assert errors["covariance"]["p99"] < 1e-6


def test_other_counts_are_refused(make_splats: MakeSplats) -> None:
    with pytest.raises(ValueError, match="30 splats against 20"):
        attribute_errors(make_splats(30), make_splats(20))
