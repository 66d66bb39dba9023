"""A texture atlas of projected pages: which page each face uses, and where on the texture it lies.

Knows nothing of colours (see `bake`). One image makes two pages: what the camera sees, and what
lies behind it. Several images make a page each, plus a page for every side that none of them saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.normals import face_normals
from models.image_to_mesh.finishing.visibility import DepthBuffer, View
from models.image_to_mesh.geometry.surface import Faces, Vertices

GUTTER_TEXELS = 8
"""Around each page: room for three mipmap levels before pages bleed into each other."""
BEHIND_SCALE = 0.4
"""Resolution of a page nobody saw, relative to one that was: its colours are diffuse."""
BEHIND_SCORE = 0.9
SAME_SIDE_DEGREES = 60.0


@dataclass(frozen=True)
class Page:
    """A rectangle of the texture that shows the object as view `view` projects it.

    behind: it carries the faces that look away from that view
    corner: (column, row) of the rectangle's corner in the view's pixels
    origin: (column, row) of the same corner on the texture
    scale:  texels per view pixel
    size:   (width, height) in texels
    """

    view: int
    behind: bool
    corner: tuple[float, float]
    origin: tuple[int, int]
    scale: float
    size: tuple[int, int]

    def to_texels(self, pixels: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """View pixels -> texels; both (..., 2) as (column, row), centres at whole numbers."""
        return np.asarray((pixels + 0.5 - self.corner) * self.scale + self.origin - 0.5, np.float64)


@dataclass(frozen=True)
class Atlas:
    """pages, and for each face its page: (F,) int32."""

    pages: tuple[Page, ...]
    page_of_face: npt.NDArray[np.int32]
    texture_size: int


def plan_atlas(vertices: Vertices, faces: Faces, views: Sequence[View], texture_size: int) -> Atlas:
    """Choose pages, assign faces, pack the pages into the square texture."""
    sides = [(index, False) for index in range(len(views))]
    sides += [(index, True) for index in range(len(views)) if not _seen_from_behind(index, views)]
    page_of_face = _assign(vertices, faces, views, sides)
    used = [k for k in range(len(sides)) if (page_of_face == k).any()]
    boxes = []
    for k in used:
        pixels = views[sides[k][0]].pixels(vertices[np.unique(faces[page_of_face == k])])
        boxes.append((pixels.min(axis=0) - 0.5, pixels.max(axis=0) + 1.5))
    reach = [views[sides[k][0]].pixels_per_unit for k in used]
    # Pages share one resolution on the object, whatever the images' own; unseen sides get less.
    share = np.array(
        [(BEHIND_SCALE if sides[k][1] else 1.0) / r for k, r in zip(used, reach, strict=True)]
    )
    extents = np.array([high - low for low, high in boxes]) * share[:, None]
    unit, origins, sizes = _pack(extents, texture_size)
    pages = tuple(
        Page(*sides[k], (float(low[0]), float(low[1])), origin, float(unit * s), size)
        for k, (low, _), origin, s, size in zip(used, boxes, origins, share, sizes, strict=True)
    )
    return Atlas(pages, np.searchsorted(used, page_of_face).astype(np.int32), texture_size)


def unwrap(
    vertices: Vertices, faces: Faces, views: Sequence[View], atlas: Atlas
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Split vertices along page borders.

    Returns the source vertex of each new vertex (N,), its texture coordinates (N, 2) with v down as
    in glTF, and the faces (F, 3) over the new vertices.
    """
    key = faces.astype(np.int64) * len(atlas.pages) + atlas.page_of_face[:, None]
    unique, corner = np.unique(key, return_inverse=True)
    source, page_index = unique // len(atlas.pages), unique % len(atlas.pages)
    uv = np.zeros((len(unique), 2), np.float64)
    for k, page in enumerate(atlas.pages):
        mine = page_index == k
        uv[mine] = (
            page.to_texels(views[page.view].pixels(vertices[source[mine]])) + 0.5
        ) / atlas.texture_size
    return (
        source,
        np.clip(uv, 0, 1).astype(np.float32),
        corner.reshape(faces.shape).astype(np.int32),
    )


def _seen_from_behind(index: int, views: Sequence[View]) -> bool:
    limit = np.cos(np.radians(SAME_SIDE_DEGREES))
    directions = np.array([view.camera.rotation[2] for view in views])
    return bool((directions @ -directions[index] > limit).any())


def _assign(
    vertices: Vertices, faces: Faces, views: Sequence[View], sides: Sequence[tuple[int, bool]]
) -> npt.NDArray[np.int32]:
    """The page that sees a face most squarely, among those from which it is not hidden."""
    normals = face_normals(vertices, faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    centres = vertices[faces].mean(axis=1)
    scores = np.empty((len(sides), len(faces)))
    for k, (index, behind) in enumerate(sides):
        facing = np.einsum("fi,fi->f", normals, views[index].camera.towards(centres))
        scores[k] = -BEHIND_SCORE * facing if behind else facing
        if len(views) > 1:  # one image: a surface without folds hides nothing of itself
            hidden = ~DepthBuffer(vertices, faces, views[index], behind).sees(centres)
            scores[k][hidden & (scores[k] > 0)] *= 0.1
    return np.asarray(np.argmax(scores, axis=0), np.int32)


def _pack(
    extents: npt.NDArray[np.float64], texture_size: int
) -> tuple[float, list[tuple[int, int]], list[tuple[int, int]]]:
    """Largest common scale at which all rectangles (N, 2) fit the square, on shelves.

    Returns the scale, and each rectangle's origin and size in texels.
    """
    best: tuple[float, list[tuple[int, int]], list[tuple[int, int]]] | None = None
    for transposed in (False, True):
        boxes = extents[:, ::-1] if transposed else extents
        low, high = 0.0, (texture_size - 2 * GUTTER_TEXELS) / float(boxes.max())
        for _ in range(20):
            middle = (low + high) / 2
            if _shelves(boxes * middle, texture_size) is None:
                high = middle
            else:
                low = middle
        placed = _shelves(boxes * low, texture_size)
        if placed is not None and (best is None or low > best[0]):
            sizes = [(int(w), int(h)) for w, h in np.floor(extents * low).astype(int)]
            best = low, [(c, r) if not transposed else (r, c) for c, r in placed], sizes
    if best is None:
        raise ValueError(f"{len(extents)} pages do not fit a texture of {texture_size}")
    return best


def _shelves(boxes: npt.NDArray[np.float64], side: int) -> list[tuple[int, int]] | None:
    """Rows filled from the left, tallest first; None when they do not fit."""
    origins = [(0, 0)] * len(boxes)
    left, top, shelf = GUTTER_TEXELS, GUTTER_TEXELS, 0.0
    for k in np.argsort(-boxes[:, 1], kind="stable"):
        width, height = np.ceil(boxes[k])
        if left + width + GUTTER_TEXELS > side and shelf:
            left, top, shelf = GUTTER_TEXELS, top + int(shelf) + GUTTER_TEXELS, 0.0
        if left + width + GUTTER_TEXELS > side or top + height + GUTTER_TEXELS > side:
            return None
        origins[int(k)] = (left, top)
        left += int(width) + GUTTER_TEXELS
        shelf = max(shelf, height)
    return origins
