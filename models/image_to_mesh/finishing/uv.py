"""Unwrap a mesh: cut it into charts, lay them flat, pack them into the unit square (xatlas).

Knows nothing of textures beyond their side. Charts are found in clusters of nearby faces, because
that time grows faster than the faces do and clusters use all cores; all charts are packed together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.geometry.surface import Faces

FACES_A_CLUSTER = 2_500
"""Fewer make more seams along the clusters' borders, more take longer (benchmarks/finishing.py)."""
PADDING_TEXELS = 4
"""Between charts when packed; at 2048 the atlas then shrinks by up to a fifth to fit."""


@dataclass(frozen=True)
class Unwrapped:
    """source: (N,) int64, the vertex that each texture vertex comes from
    uv:     (N, 2) float32 in 0..1, v down as in glTF
    faces:  (F, 3) int32 over the texture vertices, in the order of the faces given
    charts: how many; filled: share of the square that they cover
    """

    source: npt.NDArray[np.int64]
    uv: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    charts: int
    filled: float


def unwrap_charts(
    vertices: npt.NDArray[np.floating], faces: Faces, texture_size: int
) -> Unwrapped:  # (V, 3), (F, 3)
    import xatlas

    atlas = xatlas.Atlas()
    # xatlas takes lengths and areas below fixed limits for none, and large ones never end. A power
    # of two changes no digit.
    unit = 2.0 ** -np.round(np.log2(max(float(np.ptp(vertices, axis=0).max()), 1e-30)))
    clusters = _clusters(vertices[faces].mean(axis=1), FACES_A_CLUSTER)
    used = []
    for cluster in clusters:
        own, local = np.unique(faces[cluster], return_inverse=True)
        used.append(own)
        atlas.add_mesh(
            np.ascontiguousarray(vertices[own] * unit, np.float32),
            np.ascontiguousarray(local.reshape(-1, 3), np.uint32),
        )
    pack = xatlas.PackOptions()
    pack.resolution, pack.padding, pack.bilinear = texture_size, PADDING_TEXELS, True
    atlas.generate(pack_options=pack)

    source, uv = [], []
    corners = np.empty(faces.shape, np.int32)
    count = 0
    for index, (cluster, own) in enumerate(zip(clusters, used, strict=True)):
        mapping, triangles, coordinates = atlas[index]
        source.append(own[mapping.astype(np.int64)])
        uv.append(coordinates)
        corners[cluster] = triangles.astype(np.int64) + count
        count += len(mapping)
    # xatlas packs into a rectangle; one scale for both axes keeps texels square.
    sides = np.array([atlas.width, atlas.height], np.float32)
    square = np.concatenate(uv) * (sides / sides.max())
    return Unwrapped(
        np.concatenate(source).astype(np.int64),
        np.ascontiguousarray(np.clip(square, 0, 1), np.float32),
        corners,
        int(atlas.chart_count),
        float(atlas.utilization * sides.prod() / sides.max() ** 2),
    )


def _clusters(
    centres: npt.NDArray[np.floating], most: int
) -> list[npt.NDArray[np.int64]]:  # (F, 3) -> indices of faces
    """Halved along the longer axis until each has at most `most`."""
    done: list[npt.NDArray[np.int64]] = []
    todo = [np.arange(len(centres))]
    while todo:
        part = todo.pop()
        if len(part) <= most:
            done.append(part)
            continue
        axis = int(np.ptp(centres[part], axis=0).argmax())
        order = part[np.argsort(centres[part, axis], kind="stable")]
        todo += [order[: len(order) // 2], order[len(order) // 2 :]]
    return done
