"""Reduce a mesh to a face budget; what was watertight stays watertight.

Knows nothing of texture: it runs before texture coordinates exist, and colours are looked up on the
full mesh later. Quadric error metrics (Garland and Heckbert, 1997) come first: at equal faces their
error is less than half of that of collapsing short edges. They promise no manifold: a closed mesh
is checked after, mended where a neck was pinched, and else left to manifold3d, which does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import fast_simplification
import manifold3d
import numpy as np

from models.image_to_mesh.finishing.edges import is_closed, unpaired
from models.image_to_mesh.finishing.holes import fill_holes
from models.image_to_mesh.geometry.surface import Faces, Vertices

AGGRESSIVENESS = (4.0, 7.0)
"""How fast the quadrics' threshold grows from round to round. Slow growth takes the cheapest edges
first, but on some meshes its hundred rounds end above the budget; the fast one goes on from there.
"""
MENDS = 3
MAX_ROUNDS = 6
ENOUGH = 0.75
"""Of the budget: a result this close below it is not improved on."""
LEAST_VOLUME = 0.8
"""Of the full mesh's: less means that thin parts collapsed."""
CLEAN = 1e-6
"""Of the size: faces thinner than this have lost their area, and go."""

_ONE_AT_A_TIME = threading.Lock()
"""The library keeps the mesh it works on in global variables."""


def simplify(
    vertices: Vertices, faces: Faces, budget: int, check: Callable[[], None] = lambda: None
) -> tuple[Vertices, Faces]:
    """Collapse edges until at most `budget` faces remain.

    check: called between the libraries' passes; it may raise to stop.

    vertices (V, 3), faces (F, 3) int32 -> (V', 3) float64, (F', 3) int32. A closed mesh stays
    closed, and loses faces without area. One that cannot be brought to the budget (thousands of
    thin or loose parts) is returned as small as it gets.
    """
    size = float(np.ptp(vertices, axis=0).max())
    if not is_closed(faces):
        return _quadric(vertices, faces, budget)
    volume = _volume(vertices, faces)
    solid = _closed_quadric(vertices, faces, budget, check)
    if solid is None or _collapsed(solid, volume):
        full = _solid(vertices, faces)
        if full is None:  # a corner is not finite
            return _quadric(vertices, faces, budget)
        solid = _to_budget(full, size, volume, budget, check)
    clean = solid.simplify(CLEAN * size)
    mesh = (solid if clean.is_empty() else clean).to_mesh64()  # a plate thinner than that stays
    return np.asarray(mesh.vert_properties[:, :3], np.float64), np.asarray(mesh.tri_verts, np.int32)


def _closed_quadric(
    vertices: Vertices, faces: Faces, budget: int, check: Callable[[], None]
) -> manifold3d.Manifold | None:
    """By quadrics, and closed again where they pinched; None where that did not help."""
    target = budget
    for _ in range(MENDS):
        check()
        vertices, faces = _mended(*_quadric(vertices, faces, target))
        if not is_closed(faces):
            return None
        if len(faces) <= budget:
            return _solid(vertices, faces)
        target = 2 * budget - len(faces) - 2
        if target < budget / 2:  # more is mended than is left: not the same object
            break
    return None


def _mended(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """A neck that shrank to an edge with four faces: they go, and what they leave is closed."""
    keys = unpaired(faces).irregular
    if len(keys) == 0:
        return vertices, faces
    pinched = {(int(a), int(b)) for a, b in keys}
    ends = np.sort(np.stack((faces, np.roll(faces, -1, axis=1)), axis=2), axis=2)
    touched = np.isin(faces, keys).sum(axis=1) > 1
    for face in np.flatnonzero(touched):
        touched[face] = any((int(a), int(b)) in pinched for a, b in ends[face])
    filled = fill_holes(vertices, faces[~touched], largest=np.inf)
    return filled.vertices.astype(np.float64), filled.faces


def _quadric(vertices: Vertices, faces: Faces, budget: int) -> tuple[Vertices, Faces]:
    vertices = np.require(vertices, np.float64, ["C", "W"])  # it takes no read-only arrays
    faces = np.require(faces, np.int32, ["C", "W"])
    for aggressiveness in AGGRESSIVENESS:
        if len(faces) <= budget:
            break
        with _ONE_AT_A_TIME:
            vertices, faces = fast_simplification.simplify(
                vertices, faces, target_count=budget, agg=aggressiveness
            )
    return np.asarray(vertices, np.float64), np.asarray(faces, np.int32)


def _solid(vertices: Vertices, faces: Faces) -> manifold3d.Manifold | None:
    mesh = manifold3d.Mesh64(
        np.ascontiguousarray(vertices, np.float64), np.ascontiguousarray(faces, np.uint64)
    )
    solid = manifold3d.Manifold(mesh)
    sound = solid.status() == manifold3d.Error.NoError and not solid.is_empty()
    return solid if sound else None


def _volume(vertices: Vertices, faces: Faces) -> float:
    a, b, c = (vertices[faces[:, k]] - vertices[0] for k in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c), dtype=np.float64)) / 6


def _collapsed(candidate: manifold3d.Manifold, volume: float) -> bool:
    return bool(candidate.is_empty() or abs(candidate.volume()) < LEAST_VOLUME * abs(volume))


def _to_budget(
    solid: manifold3d.Manifold,
    size: float,
    volume: float,
    budget: int,
    check: Callable[[], None],
) -> manifold3d.Manifold:
    """Search the tolerance: the face count falls about as 1/tolerance, so guesses rescale by it.

    A result far over the budget is simplified further from where it is, which is cheap; one close
    to it starts again, because a second pass takes away more than the same tolerance in one.
    """
    tolerance = size / 1000 * min(4.0, 20_000 / budget)
    best = solid
    low, high, start = 0.0, np.inf, solid
    for _ in range(MAX_ROUNDS):
        check()
        candidate = start.simplify(tolerance)
        count = candidate.num_tri()
        if _collapsed(candidate, volume):
            high = tolerance  # thin parts folded over: smaller, but no longer the object
        elif count <= budget:
            high, best = tolerance, candidate
            if count > ENOUGH * budget:
                break
        else:
            low, best = tolerance, min(best, candidate, key=lambda mesh: mesh.num_tri())
            if count > 1.5 * budget:
                start = candidate
        guess = tolerance * max(0.25, min(4.0, count / (0.93 * budget)))
        tolerance = guess if low < guess < high else (low + min(high, 4 * low)) / 2
    return best
