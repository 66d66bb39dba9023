"""Take away pieces nobody wants: crumbs that float around an object, and what hides inside it.

Knows nothing of colours or texture. A piece is what hangs together by vertices; it goes as a whole
or stays as a whole, so what was closed stays closed. Vertices keep their numbers: see
`edges.compact`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from models.cores import usable_cores
from models.image_to_mesh.finishing.edges import Faces

Positions = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

LEAST_SHARE = 1e-3
"""Of the whole surface, or of the whole volume: a piece with less of both is a crumb."""
DIRECTIONS = 48
SIDE_PX = 512
SEEN_SHARE = 2e-3
"""Of a piece's pixels, over all directions. Half of a free convex piece's are seen."""


def remove_floating(vertices: Positions, faces: Faces, least_share: float = LEAST_SHARE) -> Faces:
    """The faces (F', 3) of pieces with at least this share of the area or of the volume.

    vertices (V, 3) float32, faces (F, 3) int32. The piece with the largest area always stays.
    """
    label, count = pieces(faces, len(vertices))
    if count < 2:
        return faces
    from models.image_to_mesh.finishing.pieces_compiled import measure_pieces

    area, volume = np.zeros(count), np.zeros(count)
    measure_pieces(*_contiguous(vertices, faces), label, area, volume)
    size = np.abs(volume)  # an inner shell is turned inside out: its volume is negative
    keep = (area >= least_share * area.sum()) | (size >= least_share * size.sum())
    keep[area.argmax()] = True
    return np.asarray(faces[keep[label]])


def remove_hidden(
    vertices: Positions, faces: Faces, directions: int = DIRECTIONS, side_px: int = SIDE_PX
) -> Faces:
    """The faces (F', 3) of pieces that can be seen from outside.

    Each direction draws the whole mesh, `side_px` along its diagonal, and counts which piece is in
    front. A piece that shows next to nothing of itself in all of them is hidden. One too small to
    cover a pixel is not judged.
    """
    label, count = pieces(faces, len(vertices))
    if count < 2:
        return faces
    positions, corners = _contiguous(vertices, faces)
    views = _views(positions, corners, directions, side_px)
    with ThreadPoolExecutor(usable_cores()) as pool:
        counts = pool.map(
            lambda view: _look(positions, corners, label, count, view, side_px), views
        )
        drawn, seen = np.sum(list(counts), axis=0)
    keep = (seen > SEEN_SHARE * drawn) | (drawn == 0)
    return np.asarray(faces[keep[label]])


def pieces(faces: Faces, vertex_count: int) -> tuple[Labels, int]:
    """The piece of each face (F,) int32, numbered by first face, and how many there are."""
    from models.image_to_mesh.finishing.pieces_compiled import label_pieces

    label = np.empty(len(faces), np.int32)
    faces = np.ascontiguousarray(faces, np.int32)
    count = label_pieces(faces, np.arange(vertex_count, dtype=np.int32), label)
    return label, int(count)


def _contiguous(vertices: Positions, faces: Faces) -> tuple[Positions, Faces]:
    """As the compiled loops want them."""
    return np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32)


def _views(
    vertices: Positions, faces: Faces, directions: int, side_px: int
) -> npt.NDArray[np.float64]:
    """Orthographic cameras (directions, 3, 4) spread evenly over the sphere (Fibonacci lattice)."""
    used = np.zeros(len(vertices), bool)
    used[faces.reshape(-1)] = True
    low, high = vertices[used].min(axis=0), vertices[used].max(axis=0)
    scale = (side_px - 2) / max(float(np.linalg.norm(high - low)), 1e-30)
    rank = np.arange(directions) + 0.5
    height = 1 - 2 * rank / directions
    turn = np.pi * (1 + 5**0.5) * rank
    ring = np.sqrt(1 - height**2)
    towards = np.stack((ring * np.cos(turn), height, ring * np.sin(turn)), axis=1)
    right = np.cross(np.eye(3)[np.abs(towards).argmin(axis=1)], towards)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    axes = np.stack((right, np.cross(towards, right), towards), axis=1) * scale
    middle = (side_px - 1) / 2 - axes @ ((low.astype(np.float64) + high) / 2)
    return np.concatenate((axes, middle[..., None]), axis=2)


def _look(
    vertices: Positions,
    faces: Faces,
    label: Labels,
    count: int,
    view: npt.NDArray[np.float64],
    side_px: int,
) -> npt.NDArray[np.int64]:  # (2, pieces)
    """Pixels that each piece covers in one view, and those where it is in front."""
    from models.image_to_mesh.finishing.pieces_compiled import draw

    nearest = np.full((side_px, side_px), -np.inf, np.float32)
    front = np.full((side_px, side_px), -1, np.int32)
    drawn = np.zeros(count, np.int64)
    place = np.empty((len(vertices), 2), np.int32)
    depth = np.empty(len(vertices), np.float32)
    draw(vertices, faces, label, view, place, depth, nearest, front, drawn)
    return np.stack((drawn, np.bincount(front.reshape(-1) + 1, minlength=count + 1)[1:]))
