"""How far each attribute of a coded scene is from the original's, splat by splat.

Does not draw. Both scenes must hold the same splats in the same order. One ellipsoid has 24 sets of
scales and rotation (its axes in any order, either way round): a coder may choose among them, so
shapes are compared, not numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from models.context import JsonValue
from models.splat_to_sog.metrics.cameras import extent
from models.splat_to_sog.metrics.project import MAX_LOGIT, covariances
from models.splat_to_sog.rotations import rotation_matrices
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import SH_C0, Splats

Float64 = NDArray[np.float64]

CHUNK_ROWS = 1 << 16
FLAT = 1e-7
"""Scales below this share of the scene's radius count as this: nothing shows the difference."""
SNR_MAX_DB = 120.0
ORDERS = tuple(permutations(range(3)))


def attribute_errors(original: Splats, decoded: Splats) -> dict[str, JsonValue]:
    """Errors by attribute, plain numbers. Raises ValueError for scenes of different length.

    position    rms and max in scene units, and as shares of the scene's radius
    covariance  mean and 99th percentile of |coded - original| / |original|, Frobenius norms
    rotation    mean and 99th percentile in degrees: the angle between the best matching frames,
                each axis weighted by how far from round the ellipsoid is about it
    log_scale   rms and max of the natural logs, both sorted
    opacity     rms and max of alpha, in steps of 1/255
    colour      rms and max of the constant colour, in steps of 1/255
    harmonics   signal to noise in dB; absent without harmonics. Bands that were cut count as 0
    """
    if len(original) != len(decoded):
        raise ValueError(f"{len(original)} splats against {len(decoded)}")
    _, radius = extent(original)
    sums = {name: _Sums() for name in ("position", "log_scale", "opacity", "colour")}
    shape = np.empty(len(original), np.float32)
    angle = np.empty(len(original), np.float32)
    signal = noise = 0.0
    for rows in chunks(len(original), CHUNK_ROWS):
        sums["position"].add(
            np.linalg.norm(_difference(original.means, decoded.means, rows), axis=1)
        )
        scales = [_log_scales(scene.scales[rows], radius) for scene in (original, decoded)]
        sums["log_scale"].add(np.sort(scales[0], axis=1) - np.sort(scales[1], axis=1))
        sums["opacity"].add(255 * (_alpha(original, rows) - _alpha(decoded, rows)))
        sums["colour"].add(255 * SH_C0 * _difference(original.sh0, decoded.sh0, rows))
        shape[rows] = covariance_errors(
            covariances(original.quats[rows], scales[0]),
            covariances(decoded.quats[rows], scales[1]),
        )
        angle[rows] = rotation_errors(original.quats[rows], decoded.quats[rows], scales[0])
        power, lost = _harmonics(original, decoded, rows)
        signal, noise = signal + power, noise + lost
    errors: dict[str, JsonValue] = {name: found.report() for name, found in sums.items()}
    errors["position"] |= {
        "radius": significant(radius),
        "rms_of_radius": significant(sums["position"].rms / radius),
        "max_of_radius": significant(sums["position"].largest / radius),
    }
    errors["covariance"] = _mean_and_tail(shape)
    errors["rotation"] = {f"{key}_deg": value for key, value in _mean_and_tail(angle).items()}
    if original.degree:
        errors["harmonics"] = {"snr_db": round(_snr_db(signal, noise), 2)}
    return errors


def covariance_errors(a: Float64, b: Float64) -> Float64:  # [M, 3, 3] each -> [M]
    """|b - a| / |a|, Frobenius norms; a point against a point is equal."""
    size = np.linalg.norm(a, axis=(1, 2))
    error = np.linalg.norm(b - a, axis=(1, 2))
    return np.where(error > 0, error / np.maximum(size, 1e-300), 0)


def rotation_errors(
    a: NDArray[np.float32],  # [M, 4] w, x, y, z
    b: NDArray[np.float32],  # [M, 4]
    log_scales: Float64,  # [M, 3] of a
) -> Float64:  # [M] degrees
    """Angle between the best matching of the 24 frames, weighted by anisotropy.

    A turn about an axis counts by tanh of the difference of the two other log-scales: in full where
    one is much the longer, not at all where they are equal.
    """
    turn = _nearest_turn(rotation_matrices(a).transpose(0, 2, 1) @ rotation_matrices(b))
    # Rotation vector of a matrix at most 63 degrees from none: no other case is left here.
    cosine = np.clip((np.trace(turn, axis1=1, axis2=2) - 1) / 2, -1, 1)
    theta = np.arccos(cosine)
    skew = np.stack(
        [
            turn[:, 2, 1] - turn[:, 1, 2],
            turn[:, 0, 2] - turn[:, 2, 0],
            turn[:, 1, 0] - turn[:, 0, 1],
        ],
        axis=1,
    )
    length = np.linalg.norm(skew, axis=1)  # 2 sin theta, exact where arccos is not
    theta = np.where(length < 0.1, length / 2, theta)
    vector = skew * (theta / np.where(length > 0, length, 1))[:, None]
    weight = np.tanh(np.abs(np.roll(log_scales, -1, axis=1) - np.roll(log_scales, -2, axis=1)))
    degrees: Float64 = np.degrees(np.linalg.norm(vector * weight, axis=1))
    return degrees


def _nearest_turn(turn: Float64) -> Float64:  # [M, 3, 3] -> [M, 3, 3]
    """The rotation closest to none among those that differ by the order of the second frame's axes
    and by their signs: the one of greatest trace. It is never a reflection (tried by a test)."""
    size = np.abs(turn)
    totals = np.stack([size[:, range(3), order].sum(axis=1) for order in ORDERS])
    best = np.array(ORDERS)[totals.argmax(axis=0)]  # [M, 3]
    turn = np.take_along_axis(turn, best[:, None, :], axis=2)
    diagonal = np.diagonal(turn, axis1=1, axis2=2)
    return turn * np.where(diagonal < 0, -1.0, 1.0)[:, None, :]


@dataclass
class _Sums:
    """Root mean square and maximum of errors that come in parts."""

    squares: float = 0.0
    count: int = 0
    largest: float = 0.0

    def add(self, errors: Float64) -> None:
        self.squares += float(np.square(errors).sum())
        self.count += errors.size
        self.largest = max(self.largest, float(np.abs(errors).max(initial=0)))

    @property
    def rms(self) -> float:
        return math.sqrt(self.squares / max(self.count, 1))

    def report(self) -> dict[str, JsonValue]:
        return {"rms": significant(self.rms), "max": significant(self.largest)}


def _difference(a: NDArray[np.float32], b: NDArray[np.float32], rows: slice) -> Float64:
    difference: Float64 = b[rows].astype(np.float64) - a[rows]
    return difference


def _log_scales(scales: NDArray[np.float32], radius: float) -> Float64:
    return np.maximum(scales.astype(np.float64), math.log(FLAT * radius))


def _alpha(splats: Splats, rows: slice) -> Float64:
    logits = np.clip(splats.opacities[rows].astype(np.float64), -MAX_LOGIT, MAX_LOGIT)
    return 1 / (1 + np.exp(-logits))


def _harmonics(original: Splats, decoded: Splats, rows: slice) -> tuple[float, float]:
    """(sum of squares of the original's coefficients, of what the coded ones lack of them)."""
    a, b = original.shN[rows].astype(np.float64), decoded.shN[rows]
    shared = min(a.shape[2], b.shape[2])
    lost = np.square(a[:, :, :shared] - b[:, :, :shared]).sum() + np.square(a[:, :, shared:]).sum()
    return float(np.square(a).sum()), float(lost)


def _snr_db(signal: float, noise: float) -> float:
    if noise <= signal * 10 ** (-SNR_MAX_DB / 10):
        return SNR_MAX_DB
    return 10 * math.log10(max(signal, 1e-300) / noise)


def _mean_and_tail(errors: NDArray[np.float32]) -> dict[str, float]:
    if not errors.size:
        return {"mean": 0.0, "p99": 0.0}
    return {
        "mean": significant(float(errors.mean(dtype=np.float64))),
        "p99": significant(float(np.percentile(errors, 99))),
    }


def significant(value: float, digits: int = 4) -> float:
    """Rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")
