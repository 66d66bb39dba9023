"""Which of several images paints each part of the surface: one each, with seams where they agree.

Knows nothing of the atlas. Blending two images everywhere doubles whatever they show a little
apart: a mouth gets two outlines. So every face takes one image that sees it squarely, borders
between images run where the images look alike, and only a narrow band along them is mixed. What no
image saw gets the colours around it, spread over the surface as heat spreads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import splu

from models.image_to_mesh.finishing.normals import face_normals
from models.image_to_mesh.finishing.visibility import DepthBuffer, View
from models.image_to_mesh.geometry.surface import Faces, Vertices

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

LEAST_COSINE = 0.15
"""A view that sees a face at a lower cosine than this does not see it."""
HIDDEN_COST = 10.0
RIM_COST = 0.3
RIM_SHARE = 0.015
"""Of the object's size: this near its outline an image shows a surface turning away."""
SEAM_COST = 0.03
"""Of a seam between unlike colours, per length, against area seen at a slant."""
SEAM_BASE = 0.03
"""Of a seam between equal colours: keeps regions large."""
ROUNDS = 80
COLD = 0.02
"""Last temperature, as cost over an average face; the first is the average cost of its seams."""
FEATHER_SHARE = 0.012
"""Of the object's size: half the width of the band in which neighbours are mixed."""
SPREAD_BLUR_SHARE = 0.02
"""Of the object's size: colours are averaged this far before they spread, or noise would streak."""


@dataclass(frozen=True)
class ViewChoice:
    """view_of_face: (F,) int32, -1 where no view sees it.
    weights: (V, K) float32, share of each view in a vertex's colour; less than 1 in all where it
    borders on what nobody saw. unseen: (V, 3) float32, colour of what nobody saw."""

    view_of_face: npt.NDArray[np.int32]
    weights: Array
    unseen: Array


def choose_views(vertices: Vertices, faces: Faces, views: Sequence[View]) -> ViewChoice:
    size = float(np.ptp(vertices, axis=0).max())
    first, second = _neighbours(faces)
    seen, cost = _data_cost(vertices, faces, views, size)
    colours = _vertex_colours(vertices, views, FEATHER_SHARE * size)
    area = np.linalg.norm(face_normals(vertices, faces), axis=1) / 2 / size**2
    shared = _shared_edges(faces, first, second)
    length = np.linalg.norm(vertices[shared[:, 0]] - vertices[shared[:, 1]], axis=1) / size
    label = _label(cost, area, colours[:, shared].mean(axis=2), length, first, second)
    label[~np.take_along_axis(seen, label[:, None], 1)[:, 0]] = -1
    weights = _feather(vertices, faces, label, len(views), FEATHER_SHARE * size)
    soft = _vertex_colours(vertices, views, SPREAD_BLUR_SHARE * size)
    return ViewChoice(label, weights, _spread(vertices, faces, weights, soft))


def _neighbours(faces: Faces) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Pairs of faces that share an edge: two of (E,). The surface is closed: each edge has two."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    owner = np.tile(np.arange(len(faces)), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, owner = edges[order], owner[order]
    same = (edges[1:] == edges[:-1]).all(axis=1)
    return owner[:-1][same], owner[1:][same]


def _shared_edges(
    faces: Faces, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> npt.NDArray[np.int32]:  # -> (E, 2) vertices
    corners = faces[first]
    common = (corners[:, :, None] == faces[second][:, None, :]).any(axis=2)
    order = np.argsort(~common, axis=1, kind="stable")[:, :2]
    return np.asarray(np.take_along_axis(corners, order, axis=1), np.int32)


def _data_cost(
    vertices: Vertices, faces: Faces, views: Sequence[View], size: float
) -> tuple[npt.NDArray[np.bool_], Doubles]:
    """Which views see each face, and what it costs to take its colour from them: both (F, K)."""
    normals = face_normals(vertices, faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    centres = vertices[faces].mean(axis=1)
    seen = np.empty((len(faces), len(views)), bool)
    cost = np.empty(seen.shape)
    for k, view in enumerate(views):
        facing = np.einsum("fi,fi->f", normals, view.camera.towards(centres))
        seen[:, k] = (facing > LEAST_COSINE) & DepthBuffer(vertices, faces, view).sees(centres)
        rim = RIM_SHARE * size * view.pixels_per_unit
        beyond, within = (_sample(field, view.pixels(centres)) for field in _distances(view))
        near = np.clip(1 - within / rim, 0, 1)
        seen[:, k] &= beyond < rim
        cost[:, k] = np.where(
            seen[:, k], 1 / np.maximum(facing, LEAST_COSINE) - 1 + RIM_COST * near, HIDDEN_COST
        )
    return seen, cost


def _distances(view: View) -> tuple[Array, Array]:
    """Pixels to the outline, of what lies beyond it and of what lies within: both (H, W)."""
    solid = (view.rgba[..., 3] >= 0.5).astype(np.uint8)
    beyond, within = (
        cv2.distanceTransform(side, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for side in (1 - solid, solid)
    )
    return beyond, within


def _vertex_colours(
    vertices: Vertices, views: Sequence[View], blur: float
) -> Array:  # -> (K, V, 3)
    """What each image shows where it shows a vertex, hidden or not, averaged over a length."""
    return np.stack(
        [
            _sample(
                cv2.GaussianBlur(
                    view.beyond_outline, (0, 0), max(0.5, 0.5 * blur * view.pixels_per_unit)
                ),
                view.pixels(vertices),
            )
            for view in views
        ]
    )


def _sample(values: Array, at: Doubles) -> Array:  # (H, W[, 3]), (P, 2) -> (P[, 3]), nearest
    height, width = values.shape[:2]
    column, row = np.clip(np.rint(at).astype(int), 0, (width - 1, height - 1)).T
    return np.asarray(values[row, column])


def _label(
    cost: Doubles,  # (F, K)
    area: Doubles,  # (F,)
    colours: Array,  # (K, E, 3) what each view shows on each edge
    length: Doubles,  # (E,)
    first: npt.NDArray[np.intp],
    second: npt.NDArray[np.intp],
) -> npt.NDArray[np.int32]:  # -> (F,)
    """Least data cost plus seam cost, by annealed mean-field updates: from soft shares to one view.

    A seam between views a and b costs its length times how unlike a and b are along it.
    """
    data = cost * area[:, None]
    count = data.shape[1]
    shape = (len(data), len(data))
    seams = {}
    for a, b in combinations(range(count), 2):
        unlike = np.linalg.norm(colours[a] - colours[b], axis=1)
        weight = SEAM_COST * length * (SEAM_BASE + unlike)
        one_way = sparse.csr_matrix((weight, (first, second)), shape)
        seams[a, b] = one_way + one_way.T
    # Views that do not see a face are out from the start: what they show there is of elsewhere.
    share = np.exp(-(data - data.min(axis=1, keepdims=True)) / np.median(area))
    share /= share.sum(axis=1, keepdims=True)
    hot = max(float(sum(seam.sum() for seam in seams.values())) / len(data), float(np.median(area)))
    for temperature in np.geomspace(hot, COLD * np.median(area), ROUNDS):
        total = data.copy()
        for (a, b), seam in seams.items():
            total[:, a] += seam @ share[:, b]
            total[:, b] += seam @ share[:, a]
        total -= total.min(axis=1, keepdims=True)
        update = np.exp(-total / temperature)
        share = 0.5 * share + 0.5 * update / update.sum(axis=1, keepdims=True)
    return np.asarray(np.argmax(share, axis=1), np.int32)


def _adjacency(vertices: Vertices, faces: Faces) -> sparse.csr_matrix:
    """1 / edge length between neighbouring vertices."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    weight = 1 / np.maximum(length, 1e-3 * float(length.max()))
    # A closed surface has each edge twice, once in each direction.
    return sparse.csr_matrix((weight, (edges[:, 0], edges[:, 1])), (len(vertices),) * 2)


def _feather(
    vertices: Vertices, faces: Faces, label: npt.NDArray[np.int32], count: int, width: float
) -> Array:
    """Shares of the faces around each vertex, smoothed over the feather's width."""
    share = np.zeros((len(vertices), count + 1))
    for corner in range(3):
        np.add.at(share, (faces[:, corner], label), 1.0)  # -1, unseen, is the last column
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-9)
    near = _adjacency(vertices, faces)
    degree = np.asarray(near.sum(axis=1)).ravel()
    mean_edge = float(np.mean(1 / near.data))
    for _ in range(max(1, round((width / mean_edge) ** 2))):
        share = 0.5 * share + 0.5 * (near @ share) / np.maximum(degree, 1e-9)[:, None]
    return np.asarray(share[:, :count], np.float32)


def _spread(vertices: Vertices, faces: Faces, weights: Array, colours: Array) -> Array:
    """Colours (V, 3): where views see, theirs; elsewhere the harmonic continuation."""
    total = weights.sum(axis=1)
    own = np.einsum("vk,kvc->vc", weights, colours) / np.maximum(total, 1e-6)[:, None]
    known = total > 0.5
    if known.all() or not known.any():
        return np.asarray(own, np.float32)
    near = _adjacency(vertices, faces)
    degree = np.asarray(near.sum(axis=1)).ravel()
    open_ = np.flatnonzero(~known)
    # A part that nobody saw anything of has no neighbours to take colours from: it gets the mean.
    pull = 1e-6 * float(degree.mean())
    matrix = sparse.diags(degree[open_] + pull) - near[open_][:, open_]
    right = near[open_][:, known] @ own[known] + pull * own[known].mean(axis=0)
    own[open_] = splu(matrix.tocsc()).solve(right)
    return np.asarray(np.clip(own, 0, 1), np.float32)
