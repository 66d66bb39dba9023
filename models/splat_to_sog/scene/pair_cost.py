"""What merging two Gaussians changes in a picture: the merged Gaussian and its squared error.

Does not know which pairs are worth it, nor anything of neighbours or rounds.

The pair (i, j) is looked at along a few fixed directions. Projected, a splat is a 2-D Gaussian of
peak alpha and covariance S; two of them composite to 1 - (1 - i)(1 - j), whose integral over the
picture is i + j minus the overlap, whoever is in front. The merged splat has the pair's mean and
covariance (weights: integrated alpha), the weighted mean of its colours, and the peak that keeps
that integral. The error is the integral of the squared difference between the pair and the merged
splat, in closed form: products of Gaussians are Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.scene.moments import MAX_ALPHA, UPPER, Moments

Float32 = NDArray[np.float32]
Indices = NDArray[np.intp]

CONTRAST = 0.1
"""Mean squared difference between a splat's colour and what is behind it (display units)."""

SHRINK = 1.0
"""Share of the distance between two means that widens the merged splat."""

CHUNK_EDGES = 1 << 15


def view_frames() -> NDArray[np.float64]:  # [D, 2, 3]
    """Picture axes of the directions: the six diagonals of an icosahedron.

    Averages over them are exact for polynomials of degree 5 on the sphere.
    """
    golden = (1 + 5**0.5) / 2
    directions = np.array(
        [
            [0, 1, golden],
            [0, -1, golden],
            [1, golden, 0],
            [-1, golden, 0],
            [golden, 0, 1],
            [golden, 0, -1],
        ]
    )
    frames = []
    for direction in directions / np.linalg.norm(directions, axis=1, keepdims=True):
        right = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
        right /= np.linalg.norm(right)
        frames.append([right, np.cross(direction, right)])
    return np.array(frames)


def _projections(frames: NDArray[np.float64]) -> tuple[Float32, Float32]:
    """(means [3] -> [2 D], covariances [6] -> [3 D]) as matrices to multiply from the right."""
    means, covs = [], []
    for right, down in frames:
        means += [right, down]
        for p, q in ((right, right), (right, down), (down, down)):
            covs.append([p[a] * q[b] + (p[b] * q[a] if a != b else 0) for a, b in UPPER])
    return np.array(means, np.float32).T, np.array(covs, np.float32).T


@dataclass(frozen=True)
class Merged:
    """What E pairs become, and the error of each."""

    means: Float32  # [E, 3]
    covs: Float32  # [E, 6]
    alphas: Float32  # [E]
    shares: Float32  # [E] weight of the first splat's colour, 0..1
    errors: Float32  # [E] squared display units x scene units squared


class PairCost:
    """Merges and prices pairs; `blur` is the variance that the renderer adds to every splat."""

    def __init__(self, contrast: float = CONTRAST, shrink: float = SHRINK, frames=None) -> None:
        self.frames = view_frames() if frames is None else frames
        self.to_plane, self.to_covs = _projections(self.frames)
        self.contrast = contrast
        self.shrink = shrink

    def areas(self, covs: Float32, blur: Float32) -> Float32:  # [N, 6], [N] -> [N]
        """Mean over the directions of the root of the determinant, as rendered."""
        planes = covs @ self.to_covs
        total = np.zeros(len(covs), np.float32)
        for d in range(len(self.frames)):
            total += _root(*_plane(planes, d, blur))
        return total / np.float32(len(self.frames))

    def merge(
        self, scene: Moments, areas: Float32, vis, blur: Float32, i: Indices, j: Indices
    ) -> Merged:
        """areas, blur: [N]; i, j: [E] rows of the scene."""
        a, b = scene.alphas[i], scene.alphas[j]
        mass_a, mass_b = a * areas[i] * vis[i], b * areas[j] * vis[j]
        share = mass_a / np.maximum(mass_a + mass_b, 1e-30)
        share = np.where(mass_a + mass_b > 0, share, np.float32(0.5))
        rest = 1 - share
        delta = scene.means[j] - scene.means[i]
        means = scene.means[i] + rest[:, None] * delta
        cov_a, cov_b = scene.covs[i], scene.covs[j]
        covs = share[:, None] * cov_a + rest[:, None] * cov_b
        spread = self.shrink * share * rest
        for column, (p, q) in enumerate(UPPER):
            covs[:, column] += spread * delta[:, p] * delta[:, q]
        width = np.maximum(blur[i], blur[j])
        return self._price(
            scene, i, j, delta, share, (a, b), (cov_a, cov_b), means, covs, width, vis
        )

    def _price(
        self, scene, i, j, delta, share, peaks, pair_covs, means, covs, width, vis
    ) -> Merged:
        a, b = peaks
        plane_delta = delta @ self.to_plane
        plane_a, plane_b = (cov @ self.to_covs for cov in pair_covs)
        plane_m = covs @ self.to_covs
        area_a = area_b = area_m = overlap = np.float32(0)
        cross_a = cross_b = np.float32(0)
        for d in range(len(self.frames)):
            s, t, m = (_plane(p, d, width) for p in (plane_a, plane_b, plane_m))
            root_s, root_t, root_m = _root(*s), _root(*t), _root(*m)
            x, y = plane_delta[:, 2 * d], plane_delta[:, 2 * d + 1]
            area_a, area_b, area_m = area_a + root_s, area_b + root_t, area_m + root_m
            overlap = overlap + _product(s, t, root_s * root_t, x, y)
            rest = 1 - share
            cross_a = cross_a + _product(s, m, root_s * root_m, rest * x, rest * y)
            cross_b = cross_b + _product(t, m, root_t * root_m, share * x, share * y)
        # in units of 2 pi D: integral of one = area, of a product = `_product`, of a square = area / 2
        peak = np.minimum(
            (a * area_a + b * area_b - a * b * overlap) / np.maximum(area_m, 1e-30), MAX_ALPHA
        )
        shape = (
            (a * a * area_a + b * b * area_b + peak * peak * area_m) / 2
            + a * b * overlap
            - peak * (a * cross_a + b * cross_b)
        )
        difference = self._colour_difference(scene, i, j)
        tint = (
            a * a * area_a * rest * rest + b * b * area_b * share * share
        ) / 2 - a * b * overlap * share * rest
        factor = np.float32(2 * np.pi / len(self.frames))
        errors = factor * (self.contrast * np.maximum(shape, 0) + difference * np.maximum(tint, 0))
        errors = errors * np.maximum(vis[i], vis[j])
        return Merged(means, covs, peak, share, errors)

    def _colour_difference(self, scene: Moments, i: Indices, j: Indices) -> Float32:
        """[E] mean over directions and channels of the squared difference in display colour."""
        gap = scene.colours[i]
        gap -= scene.colours[j]
        return np.einsum("ec,ec->e", gap, gap) / np.float32(3 * 4 * np.pi)


def _plane(planes: Float32, d: int, blur: Float32) -> tuple[Float32, Float32, Float32]:
    return planes[:, 3 * d] + blur, planes[:, 3 * d + 1], planes[:, 3 * d + 2] + blur


def _root(xx: Float32, xy: Float32, yy: Float32) -> Float32:
    return np.sqrt(np.maximum(xx * yy - xy * xy, 0))


def _product(s, t, roots: Float32, x: Float32, y: Float32) -> Float32:
    """Integral of the product of two Gaussians of peak 1 that lie (x, y) apart, over 2 pi."""
    xx, xy, yy = s[0] + t[0], s[1] + t[1], s[2] + t[2]
    det = np.maximum(xx * yy - xy * xy, 1e-30)
    square = (yy * x * x - 2 * xy * x * y + xx * y * y) / det
    return roots / np.sqrt(det) * np.exp(-0.5 * square)
