"""A texture atlas of projected pages: which page each face uses, and where on the texture it lies.

Knows nothing of colours (see `bake`). One image makes two pages: what the camera sees, and what
lies behind it. Several images make a page each for what they paint (see `view_choice`), and more
for what none of them saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.normals import face_normals
from models.image_to_mesh.finishing.view_choice import ViewChoice, choose_views
from models.image_to_mesh.finishing.visibility import View
from models.image_to_mesh.geometry.surface import Faces, Vertices

GUTTER_TEXELS = 8
"""Around each page: room for three mipmap levels before pages bleed into each other."""
UNSEEN_SCALE = 0.4
"""Resolution of a page nobody saw, relative to one that was: its colours are diffuse."""
BEHIND_SCORE = 0.9


class Side(NamedTuple):
    """A view, or what lies behind it, and whether the page is for what no image saw."""

    view: int
    behind: bool
    unseen: bool


@dataclass(frozen=True)
class Page:
    """A rectangle of the texture that shows the object as view `view` projects it.

    behind: it shows the object from the opposite side
    unseen: it carries faces that no image saw
    corner: (column, row) of the rectangle's corner in the view's pixels
    origin: (column, row) of the same corner on the texture
    scale:  texels per view pixel
    size:   (width, height) in texels
    """

    view: int
    behind: bool
    unseen: bool
    corner: tuple[float, float]
    origin: tuple[int, int]
    scale: float
    size: tuple[int, int]

    def to_texels(self, pixels: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """View pixels -> texels; both (..., 2) as (column, row), centres at whole numbers."""
        return np.asarray((pixels + 0.5 - self.corner) * self.scale + self.origin - 0.5, np.float64)


@dataclass(frozen=True)
class Atlas:
    """pages, and for each face its page: (F,) int32. choice: who paints what; None for one image"""

    pages: tuple[Page, ...]
    page_of_face: npt.NDArray[np.int32]
    texture_size: int
    choice: ViewChoice | None = None


def plan_atlas(vertices: Vertices, faces: Faces, views: Sequence[View], texture_size: int) -> Atlas:
    """Choose pages, assign faces, pack the pages into the square texture."""
    choice = None
    if len(views) == 1:
        sides = [Side(0, behind=False, unseen=False), Side(0, behind=True, unseen=True)]
        page_of_face = _facing(vertices, faces, views, sides).argmax(axis=0)
    else:
        choice = choose_views(vertices, faces, views)
        everywhere = range(len(views))
        sides = [Side(k, behind=False, unseen=False) for k in everywhere]
        hidden = [Side(k, behind, unseen=True) for k in everywhere for behind in (False, True)]
        page_of_face = np.where(
            choice.view_of_face >= 0,
            choice.view_of_face,
            len(sides) + _facing(vertices, faces, views, hidden).argmax(axis=0),
        )
        sides += hidden
    used = [k for k in range(len(sides)) if (page_of_face == k).any()]
    boxes = []
    for k in used:
        pixels = views[sides[k].view].pixels(vertices[np.unique(faces[page_of_face == k])])
        boxes.append((pixels.min(axis=0) - 0.5, pixels.max(axis=0) + 1.5))
    reach = [views[sides[k].view].pixels_per_unit for k in used]
    # Pages share one resolution on the object, whatever the images' own; unseen sides get less.
    share = np.array(
        [(UNSEEN_SCALE if sides[k].unseen else 1.0) / r for k, r in zip(used, reach, strict=True)]
    )
    extents = np.array([high - low for low, high in boxes]) * share[:, None]
    unit, origins, sizes = _pack(extents, texture_size)
    pages = tuple(
        Page(*sides[k], (float(low[0]), float(low[1])), origin, float(unit * s), size)
        for k, (low, _), origin, s, size in zip(used, boxes, origins, share, sizes, strict=True)
    )
    return Atlas(pages, np.searchsorted(used, page_of_face).astype(np.int32), texture_size, choice)


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


def _facing(
    vertices: Vertices, faces: Faces, views: Sequence[View], sides: Sequence[Side]
) -> npt.NDArray[np.float64]:  # -> (sides, F)
    """How squarely each side sees each face; the first is preferred a little to those behind."""
    normals = face_normals(vertices, faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    centres = vertices[faces].mean(axis=1)
    scores = np.empty((len(sides), len(faces)))
    for k, side in enumerate(sides):
        facing = np.einsum("fi,fi->f", normals, views[side.view].camera.towards(centres))
        scores[k] = -BEHIND_SCORE * facing if side.behind else facing
    return scores


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
