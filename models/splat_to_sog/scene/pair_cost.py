"""What merging two Gaussians changes in a picture: the merged Gaussian and its error.

Does not know which pairs are worth it, nor anything of neighbours or rounds.

The pair is looked at along a few fixed directions. Projected, a splat is a 2-D Gaussian of peak
alpha and covariance S; two of them composite to 1 - (1 - i)(1 - j), whose integral over the
picture is i + j minus the overlap, whoever is in front. The merged splat has the pair's mean and
covariance (weights: visible integrated alpha), the weighted mean of its colours, and the peak
that keeps that integral. Its error has two parts, both relative to the pair's own energy: the
squared difference in alpha between the pair and the merged splat, in closed form (products of
Gaussians are Gaussians), and the squared difference between the two colours. What the pair weighs
in the picture multiplies them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.scene.moments import MAX_ALPHA, MAX_LOG_SCALE, UPPER, Moments

Float32 = NDArray[np.float32]
Indices = NDArray[np.intp]
Plane = tuple[Float32, Float32, Float32]  # xx, xy, yy

COLOUR_WEIGHT = 30.0
"""Squared display colour, against squared relative alpha. Measured: 10 to 100 differ little."""

WEIGHT_POWER = 0.5
"""Of the visible integrated alpha. At 1 the sum of squared errors of independent merges would be
least; but merges of one region err alike, so small detail must not be spent for large splats."""


TINY = np.float32(1e-30)
FARTHEST = np.float32(np.exp(MAX_LOG_SCALE))
"""Splats farther apart are merged as if they were this far: what holds of their sizes, here too."""


AXES = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3
"""Three directions at right angles, none of them along an axis of the file."""

CONTRAST = 0.1
"""Mean squared difference between a splat's display colour and what is behind it."""


class Views:
    """The scene from the directions of `AXES`; each picture's axes are the two others."""

    def __init__(self) -> None:
        self.frames = np.stack([np.roll(AXES, shift, axis=0) for shift in range(len(AXES))])
        """[D, 3, 3] rows: right, down, forward."""
        self.means = np.concatenate([frame[:2] for frame in self.frames]).T.astype(np.float32)
        """[3, 2 D]: points @ means are picture coordinates, direction after direction."""
        self.covs = np.concatenate([self.cov_matrix(d) for d in range(len(self))], axis=1)
        """[6, 3 D]: the same for covariances."""

    def __len__(self) -> int:
        return len(self.frames)

    def cov_matrix(self, view: int) -> Float32:  # [6, 3]
        """Covariances [N, 6] @ this = xx, xy, yy in the picture."""
        right, down = self.frames[view][:2]
        columns = [
            [p[a] * q[b] + (p[b] * q[a] if a != b else 0.0) for a, b in UPPER]
            for p, q in ((right, right), (right, down), (down, down))
        ]
        return np.array(columns, np.float32).T


@dataclass(frozen=True)
class Scene:
    """Moments with what the pictures say of them."""

    moments: Moments
    areas: Float32  # [N] mean over the directions of a splat's area / 2 pi, as rendered
    blur: Float32  # [N] variance the renderer adds, scene units squared
    away: Float32  # [N] 1 at the scene's centre; area shrinks by this in a picture from there
    seen: Float32  # [N] visible share, 0..1


@dataclass(frozen=True)
class Merged:
    """What E pairs become, and at what price."""

    means: Float32  # [E, 3]
    covs: Float32  # [E, 6]
    alphas: Float32  # [E]
    shares: Float32  # [E] weight of the first splat, 0..1
    costs: Float32  # [E] what decides which pairs are merged first
    changes: Float32  # [E] squared change of the pictures: display units^2 x scene units^2


def picture_areas(covs: Float32, blur: Float32, views: Views) -> Float32:  # [N, 6], [N] -> [N]
    """Mean over the directions of the root of the determinant: area / 2 pi."""
    planes = covs @ views.covs
    roots = [_root(_plane(planes, view, blur)) for view in range(len(views))]
    return np.asarray(sum(roots) / np.float32(len(views)), np.float32)


def merge_pairs(scene: Scene, i: Indices, j: Indices, views: Views) -> Merged:
    """Rows i [E] and j [E] of the scene, each pair merged and priced."""
    moments = scene.moments
    a, b = moments.alphas[i], moments.alphas[j]
    weight_a = a * scene.areas[i] * scene.seen[i]
    weight_b = b * scene.areas[j] * scene.seen[j]
    total = weight_a + weight_b
    share: Float32 = np.where(total > 0, weight_a / np.maximum(total, TINY), np.float32(0.5))
    rest: Float32 = np.float32(1) - share

    # 1. the merged mean and covariance
    delta = moments.means[j] - moments.means[i]
    means = moments.means[i] + rest[:, None] * delta
    np.clip(delta, -FARTHEST, FARTHEST, out=delta)
    cov_a, cov_b = moments.covs[i], moments.covs[j]
    covs = share[:, None] * cov_a + rest[:, None] * cov_b
    spread = share * rest
    for column, (p, q) in enumerate(UPPER):
        covs[:, column] += spread * delta[:, p] * delta[:, q]

    # 2. in the pictures: areas, and integrals of products, summed over the directions
    width = np.maximum(scene.blur[i], scene.blur[j])
    plane_a, plane_b, plane_m = (cov @ views.covs for cov in (cov_a, cov_b, covs))
    offset = np.asarray(delta @ views.means, np.float32)
    sums = np.zeros((6, len(i)), np.float32)
    for view in range(len(views)):
        s, t, m = (_plane(planes, view, width) for planes in (plane_a, plane_b, plane_m))
        roots = _root(s), _root(t), _root(m)
        x, y = offset[:, 2 * view], offset[:, 2 * view + 1]
        for total_of, root in zip(sums, roots, strict=False):
            total_of += root
        sums[3] += _product(s, t, roots[0] * roots[1], x, y)
        sums[4] += _product(s, m, roots[0] * roots[2], rest * x, rest * y)
        sums[5] += _product(t, m, roots[1] * roots[2], share * x, share * y)
    area_a, area_b, area_m, overlap, cross_a, cross_b = sums

    # 3. the peak that keeps the integral; the integral of a Gaussian's square is half its area
    kept = a * area_a + b * area_b - a * b * overlap
    peak = np.clip(kept / np.maximum(area_m, TINY), 0, np.float32(MAX_ALPHA))
    pair = (a * a * area_a + b * b * area_b) / 2
    change = pair + peak * peak * area_m / 2 + 2 * a * b * overlap
    change -= 2 * peak * (a * cross_a + b * cross_b)
    change = np.maximum(change, 0)
    tint = _colour_difference(moments, i, j)
    seen = np.maximum(scene.seen[i], scene.seen[j])
    weight = ((a * area_a + b * area_b) / np.float32(len(views))) ** np.float32(WEIGHT_POWER)
    away = np.minimum(scene.away[i], scene.away[j])
    weight = weight / away
    costs = (change / np.maximum(pair, TINY) + np.float32(COLOUR_WEIGHT) * tint) * seen * weight
    changes = (
        np.float32(2 * np.pi / len(views))
        * seen
        / away
        * (np.float32(CONTRAST) * change + tint * pair)
    )
    return Merged(means, covs, peak, share, costs, changes)


def _colour_difference(moments: Moments, i: Indices, j: Indices) -> Float32:
    """[E] squared difference in display colour, mean over channels and viewing directions.

    Harmonics are orthonormal on the sphere: the mean of a square is the sum of the squared
    coefficients over 4 pi.
    """
    gap = moments.colours[i]
    gap -= moments.colours[j]
    square = np.einsum("ec,ec->e", gap, gap)
    return np.asarray(square / np.float32(3 * 4 * np.pi), np.float32)


def _plane(planes: Float32, view: int, blur: Float32) -> Plane:
    return planes[:, 3 * view] + blur, planes[:, 3 * view + 1], planes[:, 3 * view + 2] + blur


def _root(plane: Plane) -> Float32:
    xx, xy, yy = plane
    return np.sqrt(np.maximum(xx * yy - xy * xy, 0))


def _product(s: Plane, t: Plane, roots: Float32, x: Float32, y: Float32) -> Float32:
    """Integral of the product of two Gaussians of peak 1 that lie (x, y) apart, over 2 pi."""
    xx, xy, yy = s[0] + t[0], s[1] + t[1], s[2] + t[2]
    det = np.maximum(xx * yy - xy * xy, TINY)
    square = (yy * x * x - 2 * xy * x * y + xx * y * y) / det
    return np.asarray(roots / np.sqrt(det) * np.exp(-0.5 * square), np.float32)
