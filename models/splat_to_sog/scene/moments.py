"""Splats as moments (mean, covariance, peak, colour), the form in which Gaussians are merged.

Does not know which splats are merged: decimation chooses the pairs. A covariance is kept as its
six distinct numbers xx, xy, xz, yy, yz, zz; scales and rotations are made again only at the end,
and only for splats that were merged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.rotations import quaternions, rotation_matrices
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import Splats

Float32 = NDArray[np.float32]
Indices = NDArray[np.intp]

UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Rows and columns of the six numbers."""

MAX_ALPHA = 0.999
"""Peak of a merged splat: its logit stays finite, and renderers clip at 0.99 anyway."""

MAX_LOG_SCALE = 18.0
"""Larger splats are merged as if they were this large: products of areas stay in float32."""

CHUNK_ROWS = 1 << 16


def alphas(logits: Float32) -> Float32:
    """Opacity logits [N] -> peak alpha 0..1 [N]; logits may be infinite."""
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def covariances(scales: Float32, quats: Float32) -> Float32:
    """Log-scales [N, 3] (-inf: flat) and rotations [N, 4] -> [N, 6], scene units squared."""
    result = np.empty((len(scales), 6), np.float32)
    for rows in chunks(len(scales), CHUNK_ROWS):
        axes = rotation_matrices(quats[rows])
        axes *= np.exp(np.minimum(scales[rows].astype(np.float64), MAX_LOG_SCALE))[:, None, :]
        for column, (a, b) in enumerate(UPPER):
            result[rows, column] = (axes[:, a] * axes[:, b]).sum(axis=1)
    return result


@dataclass
class Moments:
    """The scene of N Gaussians while it is decimated; rows may be merged copies of several."""

    means: Float32  # [N, 3]
    covs: Float32  # [N, 6]
    alphas: Float32  # [N] peak, 0..1
    colours: Float32  # [N, 3 + 3K] sh0, then shN
    changes: Float32  # [N] squared change of the pictures by merging so far (see pair_cost)
    sources: Indices  # [N] row of the input, or -1 for a merged splat

    def __len__(self) -> int:
        return len(self.means)

    def take(self, rows: Indices | NDArray[np.bool_]) -> Moments:
        return Moments(*(array[rows] for array in vars(self).values()))


def moments_of(splats: Splats, order: Indices) -> Moments:
    """The splats of these rows, in this order."""
    n, _, k = splats.shN.shape
    colours = np.empty((len(order), 3 + 3 * k), np.float32)
    colours[:, :3] = splats.sh0[order]
    for rows in chunks(len(order)):
        colours[rows, 3:] = splats.shN[order[rows]].reshape(len(order[rows]), 3 * k)
    return Moments(
        splats.means[order],
        covariances(splats.scales[order], splats.quats[order]),
        alphas(splats.opacities[order]),
        colours,
        np.zeros(len(order), np.float32),
        np.asarray(order),
    )


def splats_of(moments: Moments, original: Splats) -> Splats:
    """Back to splats; rows that were never merged are the original's, bit for bit."""
    n, k = len(moments), original.shN.shape[2]
    kept = moments.sources >= 0
    rows = moments.sources[kept]
    merged = np.flatnonzero(~kept)
    scales, quats = np.empty((n, 3), np.float32), np.empty((n, 4), np.float32)
    scales[kept], quats[kept] = original.scales[rows], original.quats[rows]
    for part in chunks(len(merged), CHUNK_ROWS):
        which = merged[part]
        scales[which], quats[which] = _axes(moments.covs[which], flat=original.model == "2dgs")
    opacities = np.empty(n, np.float32)
    opacities[kept] = original.opacities[rows]
    peak = np.clip(moments.alphas[merged].astype(np.float64), 1e-6, MAX_ALPHA)
    opacities[merged] = np.log(peak / (1 - peak))
    return Splats(
        means=moments.means.copy(),  # merging goes on in place
        scales=scales,
        quats=quats,
        opacities=opacities,
        sh0=moments.colours[:, :3].copy(),
        shN=moments.colours[:, 3:].copy().reshape(n, 3, k),
        model=original.model,
    )


def _axes(covs: Float32, flat: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(log-scales [N, 3] descending, rotations [N, 4]) of covariances [N, 6].

    flat: the third axis has no extent, as 2-D Gaussian splats are stored.
    """
    matrices = np.empty((len(covs), 3, 3))
    for column, (a, b) in enumerate(UPPER):
        matrices[:, a, b] = matrices[:, b, a] = covs[:, column]
    values, vectors = np.linalg.eigh(matrices)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1].copy()
    vectors[:, :, 2] *= np.sign(np.linalg.det(vectors))[:, None]  # a rotation, not a mirror
    floor = np.maximum(values[:, :1] * 1e-10, 1e-30)  # float32 input knows no flatter ellipsoid
    scales = np.log(np.maximum(values, floor)) / 2
    if flat:
        scales[:, 2] = -np.inf
    return scales, quaternions(vectors)
