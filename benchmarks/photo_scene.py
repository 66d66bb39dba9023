"""Photos of a known mesh from known places, told with the errors that a network's cameras have.

Knows nothing of registration: it draws what `register` is to find, and says what was true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.normals import vertex_normals
from models.image_to_mesh.finishing.rasterize import rasterize
from models.image_to_mesh.reconviagen.registration.photos import Photo
from models.image_to_mesh.reconviagen.registration.placement import Placement, turned

Array = npt.NDArray[Any]

SIDE_PX = 512
LIGHT = np.array([0.4, 0.8, 0.45])

Paint = Callable[[Array, Array], Array]
"""What points (P, 3) of the surface whose own colours are (P, 3) look like: (P, 3)."""


def as_they_are(points: Array, colours: Array) -> Array:
    return colours


def pattern(rng: np.random.Generator, size: float = 0.08, strength: float = 0.3) -> Paint:
    """Blotches and stripes of about this share of the object's size: detail as a print has it."""
    waves = rng.normal(size=(12, 3)) * np.pi / size
    phases, tints = rng.uniform(0, 7, 12), rng.normal(size=(12, 3))

    def paint(points: Array, colours: Array) -> Array:
        print_ = np.tanh(1.5 * np.sin(points @ waves.T + phases) @ tints / np.sqrt(12))
        return np.clip(0.15 + 0.7 * colours + strength * print_, 0, 1)

    return paint


@dataclass(frozen=True)
class Scene:
    """photos: as the pipeline would have them. placement: where the mesh truly is in their world.
    truth: each photo's true camera, (3, 4) from the mesh's frame."""

    photos: list[Photo]
    placement: Placement
    truth: list[Array]


def load(path: Path) -> ColouredMesh:
    """A mesh of the evaluation set, centred, its longest side 1; each corner has its own colour."""
    file = np.load(path)
    corners = file["V"][file["F"]].reshape(-1, 3)
    corners = _in_unit_box(corners)
    faces = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    colours = file["C"].reshape(-1, 3).astype(np.float32) / 255
    return ColouredMesh(corners.astype(np.float32), faces, colours)


def decoded(
    mesh: ColouredMesh,
    rng: np.random.Generator,
    faces: int = 20_000,
    blurs: int = 6,
    bend: float = 0.01,
    paint: Paint = as_they_are,
) -> ColouredMesh:
    """As a network would decode it: many faces that share vertices, colours blurred over so many
    rings of neighbours, its surface off by waves of this share of its size."""
    values, first, triangles = _welded(_divided(mesh, faces))
    colours = _blurred(paint(first[:, :3], values[:, 3:]), triangles, blurs)
    points = first[:, :3].astype(np.float64)
    waves = sum(np.sin(points @ rng.normal(size=3) * 12 + rng.uniform(0, 7)) for _ in range(8))
    points += bend * (waves / 4)[:, None] * vertex_normals(points, triangles)
    return ColouredMesh(
        _in_unit_box(points).astype(np.float32),
        np.ascontiguousarray(triangles),
        np.clip(colours, 0, 1).astype(np.float32),
    )


def _divided(mesh: ColouredMesh, faces: int) -> Array:
    """Each face in four until there are so many: (F, 3, 6), places and colours of corners."""
    values = np.concatenate([mesh.vertices, mesh.colours], axis=1)[mesh.faces]
    while len(values) < faces:
        a, b, c = values[:, 0], values[:, 1], values[:, 2]
        d, e, f = (a + b) / 2, (b + c) / 2, (c + a) / 2
        parts = [(a, d, f), (d, b, e), (f, e, c), (d, e, f)]
        values = np.concatenate([np.stack(part, axis=1) for part in parts])
    return values


def _welded(corners: Array) -> tuple[Array, Array, Array]:
    """Corners at one place as one vertex: the mean of their colours, the first one's place, and
    faces (F, 3) without those that have none of their area left."""
    values = corners.reshape(-1, 6)
    _, first, index, counts = np.unique(
        np.round(values[:, :3] * 1e4), axis=0, return_index=True, return_inverse=True,
        return_counts=True,
    )  # fmt: skip
    index = index.reshape(-1)
    triangles = index.astype(np.int32).reshape(-1, 3)
    a, b, c = triangles.T
    means = np.stack([np.bincount(index, column, len(counts)) / counts for column in values.T], 1)
    return means, values[first], triangles[(a != b) & (b != c) & (c != a)]


def _blurred(colours: Array, triangles: Array, rings: int) -> Array:
    """Each vertex takes the mean of its neighbours and itself, so many times."""
    ends = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    ones = np.ones(len(ends))
    ring = sparse.coo_matrix((ones, (ends[:, 0], ends[:, 1])), shape=(len(colours),) * 2).tocsr()
    ring = ring + ring.T + sparse.eye(len(colours))
    for _ in range(rings):
        colours = (ring @ colours) / np.asarray(ring.sum(axis=1))
    return colours


def _in_unit_box(points: Array) -> Array:
    """Centred, the longest side 1."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - (low + high) / 2) / (high - low).max())


def shoot(
    mesh: ColouredMesh,
    count: int,
    rng: np.random.Generator,
    *,
    degrees: float = 1.0,
    share: float = 0.01,
    exposure: float = 0.0,
    shaded: bool = False,
    paint: Paint = as_they_are,
) -> Scene:
    """Photos from all around, the world being that of the first camera, in units of its own.

    degrees, share: standard deviation of what cameras say wrongly: turns, and distances and focal
    lengths. exposure: of each photo's brightness, as a logarithm.
    """
    place = Placement(
        float(np.exp(0.5 * rng.normal())), turned(3 * rng.normal(size=3)), np.zeros(3)
    )
    truth, pictures, cameras = [], [], []
    for number in range(count):
        camera, intrinsics, height, width = _camera(number * 360 / count, rng)
        rgba = render(mesh, camera, intrinsics, height, width, shaded=shaded, paint=paint)
        rgba[..., :3] = np.clip(rgba[..., :3] * np.exp(exposure * rng.normal()), 0, 1)
        truth.append(camera)
        pictures.append((rgba, intrinsics))
        turn = camera[:, :3] @ place.rotation.T
        cameras.append((turn, place.scale * camera[:, 3]))
    first, shift = cameras[0]
    photos = []
    for (rgba, intrinsics), (turn, offset) in zip(pictures, cameras, strict=True):
        own = turn @ first.T
        moved = offset - own @ shift
        if photos:  # the first camera is the world: it has no error
            own = turned(np.radians(degrees / np.sqrt(3)) * rng.normal(size=3)) @ own
            moved = moved * (1 + share * rng.normal(size=3))
        told = intrinsics.copy()
        told[[0, 1], [0, 1]] *= 1 + share * rng.normal()
        photos.append(Photo(rgba, np.concatenate([own, moved[:, None]], axis=1), told))
    return Scene(photos, Placement(place.scale, first @ place.rotation, shift), truth)


def _camera(azimuth: float, rng: np.random.Generator) -> tuple[Array, Array, int, int]:
    """A camera about there with the object in its picture: (3, 4), (3, 3), height, width."""
    a = np.radians(azimuth + rng.uniform(-15, 15))
    e = np.radians(rng.uniform(-20, 50))
    distance = rng.uniform(1.8, 3.0)
    at = distance * np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    ahead = -at / distance
    right = np.cross(ahead, (0, 1, 0)) / np.cos(e)
    turn = np.stack([right, np.cross(ahead, right), ahead])
    turn = turned(0.05 * rng.normal(size=3)) @ turn
    height, width = SIDE_PX, int(SIDE_PX * rng.uniform(0.75, 1.3))
    focal = 0.40 * min(height, width) * (distance - 0.5) / 0.75
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return np.concatenate([turn, -(turn @ at)[:, None]], axis=1), intrinsics, height, width


def render(
    mesh: ColouredMesh,
    camera: Array,  # (3, 4) from the mesh's frame
    intrinsics: Array,  # (3, 3)
    height: int,
    width: int,
    *,
    shaded: bool = False,
    paint: Paint = as_they_are,
) -> npt.NDArray[np.float32]:  # (H, W, 4), straight alpha
    """Four samples a pixel; with Lambert shading by one lamp if `shaded`."""
    colours = mesh.colours
    if shaded:
        normals = vertex_normals(mesh.vertices, mesh.faces)
        lit = 0.55 + 0.45 * np.clip(normals @ LIGHT / np.linalg.norm(LIGHT), 0, 1)
        colours = (colours * lit[:, None]).astype(np.float32)
    seen = mesh.vertices @ camera[:, :3].T + camera[:, 3]
    at = (seen[:, :2] / seen[:, 2:] * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2]) * 2 - 0.5
    raster = rasterize(at, 1 / seen[:, 2], mesh.faces, 2 * height, 2 * width)
    fine = np.zeros((2 * height, 2 * width, 4), np.float32)
    both = raster.interpolate(np.concatenate([mesh.vertices, colours], axis=1), mesh.faces)
    fine[raster.covered, :3] = paint(both[:, :3], both[:, 3:])
    fine[raster.covered, 3] = 1
    mixed = fine.reshape(height, 2, width, 2, 4).mean(axis=(1, 3))
    mixed[..., :3] /= np.maximum(mixed[..., 3:], 1e-6)
    return np.asarray(mixed, np.float32)
