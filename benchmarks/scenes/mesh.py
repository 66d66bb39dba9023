"""Triangle meshes with shiny materials, built from formulas: what the procedural scenes consist of.

Does not know cameras, lights or Gaussians. Space is that of 3DGS: y points down, so "up" is -y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Colour = tuple[float, float, float]


class Pattern(IntEnum):
    """How `shading` varies the colour over a surface."""

    PLAIN = 0
    CHECKER = 1  # two tones of worn wood
    MARBLE = 2
    STRIPES = 3
    SOIL = 4
    ROCK = 5
    LEAF = 6


@dataclass(frozen=True)
class Material:
    colour: Colour  # linear
    roughness: float = 0.4  # 0 mirror .. 1 chalk
    metal: float = 0.0
    pattern: Pattern = Pattern.PLAIN


@dataclass(frozen=True)
class Mesh:
    """V vertices, F triangles."""

    points: Array  # [V, 3] scene units
    faces: NDArray[np.int64]  # [F, 3]
    texture: Array  # [V, 3] where on its own object a vertex lies: patterns stick to the object
    colours: Array  # [V, 3] linear
    roughness: Array  # [V]
    metal: Array  # [V]
    pattern: NDArray[np.int64]  # [V]

    def normals(self) -> Array:  # [V, 3]
        """Unit normals, each the area-weighted mean of the triangles around a vertex."""
        a, b, c = (self.points[self.faces[:, k]] for k in range(3))
        flat = np.cross(b - a, c - a)
        total = np.zeros_like(self.points)
        for k in range(3):
            for axis in range(3):
                total[:, axis] += np.bincount(
                    self.faces[:, k], weights=flat[:, axis], minlength=len(total)
                )
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def shape(points: Array, faces: NDArray[np.int64], material: Material) -> Mesh:
    """One material all over; the texture position is the point itself."""
    n = len(points)
    return Mesh(
        points,
        faces,
        points.copy(),
        np.tile(np.array(material.colour), (n, 1)),
        np.full(n, material.roughness),
        np.full(n, material.metal),
        np.full(n, int(material.pattern)),
    )


def moved(mesh: Mesh, offset: Sequence[float], turn: Array | None = None) -> Mesh:
    """Turned by `turn` [3, 3], then shifted; its pattern moves along."""
    points = mesh.points if turn is None else mesh.points @ turn.T
    values = {field.name: getattr(mesh, field.name) for field in fields(Mesh)}
    return Mesh(**{**values, "points": points + np.asarray(offset)})


def joined(meshes: Sequence[Mesh]) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.points) for mesh in meshes)])
    arrays = {
        field.name: np.concatenate([getattr(mesh, field.name) for mesh in meshes])
        for field in fields(Mesh)
    }
    arrays["faces"] = np.concatenate(
        [mesh.faces + start for mesh, start in zip(meshes, starts[:-1], strict=True)]
    )
    return Mesh(**arrays)


def grid_faces(nu: int, nv: int, wrap_u: bool, wrap_v: bool) -> NDArray[np.int64]:
    """Two triangles a cell of a grid whose vertex (i, j) is number i * nv + j."""
    i = np.arange(nu if wrap_u else nu - 1)
    j = np.arange(nv if wrap_v else nv - 1)
    i, j = (index.ravel() for index in np.meshgrid(i, j, indexing="ij"))
    i1, j1 = (i + 1) % nu, (j + 1) % nv
    a, b, c, d = i * nv + j, i1 * nv + j, i1 * nv + j1, i * nv + j1
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def revolved(profile: Array, material: Material, around: int = 128) -> Mesh:
    """A profile [P, 2] of (radius, height above the ground) turned about the vertical axis."""
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)
    radius, height = profile.T
    points = np.stack(
        [
            np.outer(np.cos(angle), radius),
            np.tile(-height, (around, 1)),
            np.outer(np.sin(angle), radius),
        ],
        axis=-1,
    ).reshape(-1, 3)
    return shape(points, grid_faces(around, len(profile), True, False), material)


def ball(radius: float, material: Material, detail: int = 64) -> Mesh:
    """A sphere about the origin."""
    angle = np.linspace(0, np.pi, detail)
    profile = radius * np.stack([np.sin(angle), np.cos(angle)], 1)
    return revolved(profile, material, around=2 * detail)


def ring(major: float, minor: float, material: Material) -> Mesh:
    """A torus that lies flat about the origin."""
    u = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    v = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    u, v = np.meshgrid(u, v, indexing="ij")
    radius = major + minor * np.cos(v)
    points = np.stack([radius * np.cos(u), minor * np.sin(v), radius * np.sin(u)], -1)
    return shape(points.reshape(-1, 3), grid_faces(160, 64, True, True), material)


def rounded_box(half: Sequence[float], material: Material, power: float = 0.25) -> Mesh:
    """A superellipsoid: box-like for small powers, an ellipsoid at 1."""
    sphere = ball(1.0, material, detail=96)
    bent = np.sign(sphere.points) * np.abs(sphere.points) ** power
    bent /= (np.abs(bent) ** (2 / power)).sum(axis=1, keepdims=True) ** (power / 2)
    return shape(bent * np.asarray(half), sphere.faces, material)


def blades(
    roots: Array,  # [B, 3] where each blade leaves the ground
    heading: Array,  # [B] radians, the way it leans
    length: Array,  # [B] scene units
    width: Array,  # [B] scene units
    lean: Array,  # [B] 0 upright .. 2 hanging over
    colours: Array,  # [B, 3] linear
    material: Material,
    segments: int = 6,
) -> Mesh:
    """Leaves and stalks: tapering strips that bend under their weight."""
    count = len(roots)
    along = np.linspace(0, 1, segments + 1)
    tilt = lean[:, None] * along  # [B, S + 1] angle from the vertical
    step = (length / segments)[:, None]
    out = np.cumsum(np.sin(tilt) * step, axis=1) - np.sin(tilt[:, :1]) * step
    up = np.cumsum(np.cos(tilt) * step, axis=1) - np.cos(tilt[:, :1]) * step
    forward = np.stack([np.cos(heading), np.zeros(count), np.sin(heading)], 1)
    side = np.stack([-np.sin(heading), np.zeros(count), np.cos(heading)], 1)
    spine = roots[:, None] + out[..., None] * forward[:, None]
    spine[..., 1] -= up
    taper = width[:, None] * (1 - along**2) ** 0.5 * (0.35 + 0.65 * np.sqrt(along + 0.1))
    half = 0.5 * taper[..., None] * side[:, None]
    crease = 0.15 * taper[..., None] * np.array([0.0, -1.0, 0.0])  # raised edges: a keel
    points = np.stack([spine - half + crease, spine, spine + half + crease], axis=2)
    cells = grid_faces(segments + 1, 3, False, False)
    faces = (np.arange(count) * 3 * (segments + 1))[:, None, None] + cells
    mesh = shape(points.reshape(-1, 3), faces.reshape(-1, 3), material)
    texture = np.zeros((count, segments + 1, 3, 3))
    texture[..., 0] = along[None, :, None] * length[:, None, None]
    texture[..., 1] = np.array([-1.0, 0.0, 1.0])
    texture[..., 2] = np.arange(count)[:, None, None]
    values = {field.name: getattr(mesh, field.name) for field in fields(Mesh)}
    values["texture"] = texture.reshape(-1, 3)
    values["colours"] = np.repeat(colours, 3 * (segments + 1), axis=0)
    return Mesh(**values)
