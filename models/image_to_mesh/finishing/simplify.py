"""Reduce a closed mesh to a face budget; what was watertight stays watertight.

Knows nothing of texture: it runs before texture coordinates exist.
"""

from __future__ import annotations

import manifold3d
import numpy as np

from models.context import PipelineError
from models.image_to_mesh.geometry.surface import Faces, Vertices

MAX_ROUNDS = 6
ENOUGH = 0.75
"""Of the budget: a result this close below it is not improved on."""
LEAST_VOLUME = 0.8
"""Of the full mesh's: less means that thin parts collapsed."""


class OpenSurfaceError(PipelineError):
    """The geometry stage left a surface with holes: a defect of ours, never the user's."""

    code = "surface_open"


def simplify(vertices: Vertices, faces: Faces, budget: int) -> tuple[Vertices, Faces]:
    """Collapse edges until at most `budget` faces remain, with the smallest tolerance that does.

    vertices (V, 3) float64, faces (F, 3) int32 closed and outward. A mesh that cannot be brought to
    the budget (thousands of thin or loose parts) is returned as small as it gets.
    """
    solid = manifold3d.Manifold(
        manifold3d.Mesh64(np.ascontiguousarray(vertices), np.ascontiguousarray(faces, np.uint64))
    )
    if solid.status() != manifold3d.Error.NoError or solid.is_empty():
        raise OpenSurfaceError(
            f"The reconstructed surface is not closed ({solid.status().name}).",
            next_step="Report this image; another resolution may avoid it.",
        )
    size = float(np.ptp(vertices, axis=0).max())
    best = solid.simplify(1e-5 * size) if len(faces) <= budget else None
    if best is None or best.num_tri() > budget:
        best = _to_budget(solid, size, budget)
    mesh = best.to_mesh64()
    return np.asarray(mesh.vert_properties[:, :3], np.float64), np.asarray(mesh.tri_verts, np.int32)


def _to_budget(solid: manifold3d.Manifold, size: float, budget: int) -> manifold3d.Manifold:
    """Search the tolerance: the face count falls about as 1/tolerance, so guesses rescale by it.

    A result far over the budget is simplified further from where it is, which is cheap; one close
    to it starts again, because a second pass takes away more than the same tolerance in one.
    """
    tolerance = size / 1000 * min(4.0, 20_000 / budget)
    best = solid
    low, high, start = 0.0, np.inf, solid
    for _ in range(MAX_ROUNDS):
        candidate = start.simplify(tolerance)
        count = candidate.num_tri()
        if candidate.is_empty() or candidate.volume() < LEAST_VOLUME * solid.volume():
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
