"""Close the holes of a mesh: loops of border edges up to a size get a smooth patch.

Knows nothing of which holes are meant: the size alone decides, so the mouth of a cup stays open.
What borders no hole keeps its vertices, their numbers and its faces; a patch is appended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import splu

from models.image_to_mesh.finishing.edges import Faces, Indices, unpaired
from models.image_to_mesh.finishing.patch import patch

LARGEST = 0.2
"""Length around a hole that is still closed, as a share of the mesh's diagonal."""

Floats = npt.NDArray[np.floating]


class Filled(NamedTuple):
    """vertices (V', 3) and attributes (V', A): those given, then the patches' own; faces (F', 3).

    closed and left: how many holes were, and how many were not because they are too large or
    their border does not lead around.
    """

    vertices: Floats
    faces: Faces
    attributes: Floats
    closed: int
    left: int


def fill_holes(
    vertices: Floats, faces: Faces, attributes: Floats | None = None, *, largest: float = LARGEST
) -> Filled:
    """vertices (V, 3), faces (F, 3) int32, attributes (V, A) such as colours; dtypes are kept.

    New vertices continue the surface around smoothly (least change of curvature), and their
    attributes blend those of the border. No edge gets a third face. Float pieces should be gone
    before: the border of a flake is a hole like any other.
    """
    if attributes is None:
        attributes = np.empty((len(vertices), 0), np.float32)
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    border = unpaired(faces).border
    if len(border) == 0:
        return Filled(vertices, faces, attributes, 0, 0)
    on_border = np.zeros(len(vertices), bool)
    on_border[border.reshape(-1)] = True
    near = faces[on_border[faces].any(axis=1)]
    used = np.zeros(len(vertices), bool)
    used[faces.reshape(-1)] = True
    limit = largest * float(np.linalg.norm(np.ptp(vertices[used], axis=0)))
    loops, stray = _loops(border)
    fit = [loop for loop in loops if _around(vertices[loop]) <= limit]
    left = len(loops) - len(fit) + stray
    if not fit:
        return Filled(vertices, faces, attributes, 0, left)
    fresh, patches = _patches(vertices, near[on_border[near].sum(axis=1) >= 2], on_border, fit)
    positions = np.concatenate((vertices, fresh)).astype(np.float64)
    blended = np.concatenate((attributes, np.zeros((len(fresh), attributes.shape[1])))).astype(
        np.float64
    )
    if len(fresh):
        _fair(positions, blended, len(vertices), np.concatenate((near, patches)), on_border)
    return Filled(
        np.concatenate((vertices, positions[len(vertices) :].astype(vertices.dtype))),
        np.concatenate((faces, patches)),
        np.concatenate((attributes, blended[len(vertices) :].astype(attributes.dtype))),
        len(fit),
        left,
    )


def _around(points: Floats) -> float:
    return float(np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1).sum())


def _loops(border: Indices) -> tuple[list[Indices], int]:
    """Closed ways along the border, each vertex once a way, in the sense a patch runs; and how many
    ways end nowhere. A vertex where several holes meet parts them."""
    onward: defaultdict[int, list[int]] = defaultdict(list)
    for start, end in border.tolist():
        onward[end].append(start)
    loops: list[Indices] = []
    stray = 0
    for first in list(onward):
        way, place = [first], {first: 0}
        while onward[way[-1]]:
            step = onward[way[-1]].pop()
            begin = place.get(step)
            if begin is None:
                place[step] = len(way)
                way.append(step)
                continue
            if len(way) - begin >= 3:
                loops.append(np.array(way[begin:]))
            for vertex in way[begin + 1 :]:
                del place[vertex]
            del way[begin + 1 :]
        stray += len(way) > 1
    return loops, stray


def _patches(
    vertices: Floats, near: Faces, on_border: npt.NDArray[np.bool_], loops: Sequence[Indices]
) -> tuple[npt.NDArray[np.float64], Faces]:
    """New vertices (N, 3), and faces over the old and the new, numbered behind them."""
    joined: defaultdict[int, set[int]] = defaultdict(set)
    for a, b in _sides(near):
        if on_border[a] and on_border[b]:
            joined[a].add(b)
            joined[b].add(a)
    fresh: list[npt.NDArray[np.float64]] = []
    patches = []
    next_vertex = len(vertices)
    for loop in loops:
        number = {int(vertex): i for i, vertex in enumerate(loop)}
        taken_edge = np.zeros((len(loop), len(loop)), bool)
        for vertex, i in number.items():
            for other in joined[vertex]:
                if other in number:
                    taken_edge[i, number[other]] = True
        made = patch(vertices[loop].astype(np.float64), taken_edge)
        own = len(made.points) - len(loop)
        names = np.concatenate((loop, np.arange(next_vertex, next_vertex + own)))
        patches.append(names[made.triangles])
        fresh.append(made.points[len(loop) :])
        next_vertex += own
        for a, b in _sides(made.triangles):
            if a < len(loop) and b < len(loop):  # a hole beside this one may not use it again
                joined[int(loop[a])].add(int(loop[b]))
                joined[int(loop[b])].add(int(loop[a]))
    return np.concatenate(fresh), np.concatenate(patches).astype(np.int32)


def _sides(faces: Faces) -> Iterator[tuple[int, int]]:
    for a, b, c in faces.tolist():
        yield from ((a, b), (b, c), (c, a))


def _fair(
    positions: npt.NDArray[np.float64],  # (V', 3) written from row `first` on
    attributes: npt.NDArray[np.float64],  # (V', A) likewise
    first: int,
    faces: Faces,  # the patches and all faces that touch the border
    on_border: npt.NDArray[np.bool_],  # (first,)
) -> None:
    """Place the new vertices: |L x|^2 least over them and the border; attributes with L a = 0.

    L is the umbrella operator: a vertex less the mean of its neighbours. On the border it sees the
    faces around, so the patch leaves at their slope (Kobbelt et al., Interactive multi-resolution
    modeling, 1998). The attributes have no maximum inside: colours stay between the border's.
    """
    names, local = np.unique(faces, return_inverse=True)
    local = local.reshape(faces.shape)
    ends = np.concatenate((local[:, :2], local[:, 1:], local[:, ::2]))
    ends = np.concatenate((ends, ends[:, ::-1]))
    near = sparse.csr_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (len(names),) * 2)
    near.data[:] = 1
    degree = np.asarray(near.sum(axis=1)).ravel()
    umbrella = (sparse.identity(len(names)) - sparse.diags(1 / degree) @ near).tocsr()
    fresh = names >= first
    bordering = np.zeros(len(names), bool)
    bordering[~fresh] = on_border[names[~fresh]]
    rows = umbrella[fresh | bordering]
    inner, outer = rows[:, fresh], rows[:, ~fresh]
    right = inner.T @ (outer @ positions[names[~fresh]])
    positions[first:] = -splu((inner.T @ inner).tocsc()).solve(right)
    if attributes.shape[1]:
        rows = umbrella[fresh]
        right = rows[:, ~fresh] @ attributes[names[~fresh]]
        attributes[first:] = -splu(rows[:, fresh].tocsc()).solve(right)
