"""A closed surface with detail that 1,500 faces cannot hold, and colours; made in a moment."""

from __future__ import annotations

import numpy as np
import trimesh

from models.image_to_mesh.finishing.coloured import ColouredMesh


def bumpy(subdivisions: int = 6, crumbs: bool = False) -> ColouredMesh:
    """A flattened ball with ripples; red grows with x, green with y, blue in bands."""
    ball = trimesh.creation.icosphere(subdivisions)
    vertices = ball.vertices * (0.45, 0.35, 0.25)
    ripple = np.sin(40 * vertices).prod(axis=1, keepdims=True)
    vertices = vertices * (1 + 0.02 * ripple)
    faces = ball.faces
    if crumbs:
        crumb = trimesh.creation.icosphere(0)
        faces = np.concatenate((faces[1:], crumb.faces + len(vertices)))  # and a hole
        vertices = np.concatenate((vertices, crumb.vertices * 0.004 + 0.6))
    colours = 0.5 + vertices * (1, 1, 0)
    colours[:, 2] = 0.5 + 0.4 * np.sin(15 * vertices[:, 1])
    return ColouredMesh(
        vertices.astype(np.float32), faces.astype(np.int32), colours.astype(np.float32)
    )
