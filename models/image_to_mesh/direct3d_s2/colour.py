"""Colours for a bare shape: those of the input image where it sees the surface, blended elsewhere.

The networks make no colours and do not say from where the image looks. The camera is taken to be
level and without perspective, in front, unless the object's outline fits another direction better.
What it does not see gets the colours of the object's rim, as in the embedded pipeline: a second
face printed on the back would be a lie. It knows no network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt

from models.context import JsonValue
from models.image_to_mesh.finishing.bake import look_up, rim_diffused
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.normals import vertex_normals_in_loops
from models.image_to_mesh.finishing.visibility import View
from models.image_to_mesh.geometry.cameras import Camera, object_to_camera
from models.image_to_mesh.geometry.silhouette import bounds

Array = npt.NDArray[np.float32]

AZIMUTHS = (0, 15, -15, 30, -30, 45, -45, 60, -60, 75, -75, 90, -90, 105, -105, 120, -120, 135,
            -135, 150, -150, 165, -165, 180)  # fmt: skip
ELEVATIONS = (0, 15, 30, -15)
"""Directions that are tried, degrees; the front first."""
BETTER_BY = 0.04
"""Of agreement: another direction than the front must fit this much better to be believed."""
OUTLINE_PX = 64
POINTS = 60_000
"""Vertices that draw an outline of OUTLINE_PX without holes."""
DOUBTFUL_AGREEMENT = 0.75
SEEN_FROM, SEEN_FULLY = 0.1, 0.4
"""Cosines between surface and view: below the first the image has no say, above the second all."""
DEPTH_SHARE = 0.01
"""Of the object's size: this far behind the nearest point still counts as seen."""
CELLS = 512
"""Cells of the depth buffer along the object: no finer than its vertices lie."""


@dataclass(frozen=True)
class Coloured:
    """view: the image, and the camera it is taken to be from, in the mesh's own frame."""

    mesh: ColouredMesh
    view: View
    facts: dict[str, JsonValue]

    @property
    def warnings(self) -> list[str]:
        notes = [
            "The networks make a shape without colours: they are those of the image where it sees "
            "the surface, taken to be without perspective, and a blend of its rim elsewhere."
        ]
        agreement = float(self.facts["agreement"])
        if agreement < DOUBTFUL_AGREEMENT:
            notes.append(
                f"The shape's outline agrees with the image only in part ({agreement:.2f}): "
                "colours may lie beside what they belong to."
            )
        return notes


def coloured(
    vertices: Array,  # (V, 3), y up
    faces: npt.NDArray[np.int32],  # (F, 3)
    rgba: Array,  # (H, W, 4) 0..1, straight alpha
    on_part: Callable[[int, int], None] = lambda done, total: None,
) -> Coloured:
    """on_part: called when so many parts of so many are done; what it raises ends the work."""
    azimuth, elevation, agreement = _direction(vertices, rgba)
    camera = _fitted(object_to_camera(azimuth, elevation), vertices, rgba)
    view = View(rgba, camera)
    on_part(1, 4)
    share = _seen(vertices, faces, camera)
    on_part(2, 4)
    pixels = view.pixels(vertices.astype(np.float64))
    front = view.beyond_outline
    colours = share * _sampled(front, pixels, rgba.shape)
    on_part(3, 4)
    colours += (1 - share) * _sampled(rim_diffused(rgba, front), pixels, rgba.shape)
    on_part(4, 4)
    facts: dict[str, JsonValue] = {
        "camera": {"azimuth": azimuth, "elevation": elevation, "projection": "orthographic"},
        "source": "front" if (azimuth, elevation) == (0, 0) else "outline",
        "agreement": round(agreement, 3),
        "seen_share": round(float(share.mean()), 3),
    }
    mesh = ColouredMesh(vertices.astype(np.float32), faces, colours.astype(np.float32))
    return Coloured(mesh, view, facts)


# -- from where the image looks ------------------------------------------------------------------


def _direction(vertices: Array, rgba: Array) -> tuple[int, int, float]:
    """Azimuth, elevation, and how well the outlines agree: their common area over that of both."""
    target = _image_outline(rgba)
    points = vertices[:: max(1, len(vertices) // POINTS)]
    fits = {
        (azimuth, elevation): _overlap(target, _outline(points, azimuth, elevation))
        for elevation, azimuth in product(ELEVATIONS, AZIMUTHS)
    }
    best = max(fits, key=lambda direction: fits[direction])
    if fits[best] < fits[0, 0] + BETTER_BY:
        best = (0, 0)
    return *best, fits[best]


def _overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def _image_outline(rgba: Array) -> npt.NDArray[np.bool_]:
    """The object, its longer side filling a square of OUTLINE_PX."""
    top, bottom, left, right = bounds(rgba[..., 3])
    alpha = rgba[top:bottom, left:right, 3]
    scale = OUTLINE_PX / max(alpha.shape)
    width, height = (max(1, round(n * scale)) for n in alpha.shape[::-1])
    small = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA) >= 0.5
    return _centred(small)


def _outline(points: Array, azimuth: int, elevation: int) -> npt.NDArray[np.bool_]:
    plane = (points @ object_to_camera(azimuth, elevation)[:2].T) * (1, -1)
    low, high = plane.min(axis=0), plane.max(axis=0)
    columns, rows = ((plane - low) * (OUTLINE_PX - 1) / (high - low).max()).round().astype(int).T
    drawn = np.zeros((int(rows.max()) + 1, int(columns.max()) + 1), np.uint8)
    drawn[rows, columns] = 1
    closed = cv2.morphologyEx(
        np.pad(drawn, 2), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    )
    return _centred(_without_holes(closed[2:-2, 2:-2]) > 0)


def _without_holes(drawn: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Small gaps between points are filled; openings one can see through stay."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - drawn, connectivity=4)
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] <= 4)
    filled = drawn.copy()
    filled[np.isin(labels, small[small > 0])] = 1
    return filled


def _centred(shape: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    canvas = np.zeros((OUTLINE_PX, OUTLINE_PX), bool)
    top, left = ((OUTLINE_PX - n) // 2 for n in shape.shape)
    canvas[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
    return canvas


def _fitted(rotation: npt.NDArray[np.float64], vertices: Array, rgba: Array) -> Camera:
    """The camera of this direction that shows the object where the image has it."""
    plane = vertices @ rotation[:2].T
    low, high = plane.min(axis=0), plane.max(axis=0)
    top, bottom, left, right = bounds(rgba[..., 3])
    height, width = rgba.shape[:2]
    half = max(height, width) / 2
    scale = float(max(right - left, bottom - top) / half / (high - low).max())
    middle = np.array([(left + right - width) / 2, (height - top - bottom) / 2]) / half
    x, y = middle - (low + high) / 2 * scale
    return Camera(rotation, scale, (float(x), float(y)))


# -- what it sees --------------------------------------------------------------------------------


def _seen(vertices: Array, faces: npt.NDArray[np.int32], camera: Camera) -> Array:
    """(V, 1): how much the image has to say of each vertex, 0 to 1."""
    plane, depth = camera.project(vertices), camera.depth(vertices)
    low, high = plane.min(axis=0), plane.max(axis=0)
    cells = ((plane - low) * (CELLS - 1) / (high - low).max()).round().astype(int)
    nearest = np.full((CELLS, CELLS), -np.inf)
    np.maximum.at(nearest, (cells[:, 0], cells[:, 1]), depth)
    behind = nearest[cells[:, 0], cells[:, 1]] - depth
    open_ = behind <= DEPTH_SHARE * np.ptp(vertices, axis=0).max()
    facing = vertex_normals_in_loops(vertices, faces) @ camera.rotation[2]
    share = np.clip((facing - SEEN_FROM) / (SEEN_FULLY - SEEN_FROM), 0, 1)
    return np.asarray((share * open_)[:, None], np.float32)


def _sampled(
    picture: Array, pixels: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> Array:  # (H, W, 3), (V, 2) of an image of `shape` -> (V, 3)
    """The picture may be a smaller copy of the image that the pixels are of."""
    ratio = np.array([picture.shape[1] / shape[1], picture.shape[0] / shape[0]])
    return look_up(picture, (pixels + 0.5) * ratio - 0.5)
