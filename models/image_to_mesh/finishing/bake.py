"""Paint the atlas: sample the images where they saw the surface, diffuse colours where none did.

Knows nothing of packing. What nobody saw gets the colours of its rim, blurred into each other: a
second face or label printed on the back would be a lie.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.image_to_mesh.finishing.atlas import GUTTER_TEXELS, Atlas, Page
from models.image_to_mesh.finishing.fill import diffuse, fill_nearest
from models.image_to_mesh.finishing.normals import vertex_normals
from models.image_to_mesh.finishing.rasterize import rasterize
from models.image_to_mesh.finishing.visibility import DepthBuffer, View
from models.image_to_mesh.geometry.silhouette import bounds
from models.image_to_mesh.geometry.surface import Faces, Vertices

Array = npt.NDArray[np.float32]

TRUSTED_ALPHA = 0.98
"""Below it a pixel's colour is mixed with the background it was cut from."""
RIM_SHARE = 0.03
"""Width of the rim whose colours the unseen side takes, as a share of the object's size."""
RIM_SIDE_PX = 320
GRAZING = 0.1
"""A view that sees a surface at a lower cosine than this adds nothing to its colour."""
UNSEEN_WEIGHT = 0.003
"""Of the rim's colours against what views saw: they count only where no view sees well."""


def bake(
    vertices: Vertices, faces: Faces, views: Sequence[View], atlas: Atlas
) -> npt.NDArray[np.uint8]:
    """The texture, (S, S, 3) uint8 sRGB."""
    side = atlas.texture_size
    texture = np.zeros((side, side, 3), np.float32)
    known = np.zeros((side, side), bool)
    pictures = [_beyond_outline(view.rgba) for view in views]
    normals = vertex_normals(vertices, faces)
    buffers = [DepthBuffer(vertices, faces, view) for view in views] if len(views) > 1 else []
    for index, page in enumerate(atlas.pages):
        if len(views) == 1:
            source = _rim_diffused(views[0].rgba, pictures[0]) if page.behind else pictures[0]
            content = _resample(source, views[0].rgba.shape, page)
        else:
            mine = atlas.page_of_face == index
            content = _blend(vertices, faces, normals, views, pictures, buffers, page, mine)
        rows, columns = _rectangle(page, side)
        texture[rows, columns] = content[: rows.stop - rows.start, : columns.stop - columns.start]
        known[rows, columns] = True
    return (np.clip(fill_nearest(texture, known), 0, 1) * 255 + 0.5).astype(np.uint8)


def _rectangle(page: Page, side: int) -> tuple[slice, slice]:
    """The page's rectangle with half a gutter around it."""
    pad = GUTTER_TEXELS // 2
    (left, top), (width, height) = page.origin, page.size
    return slice(top - pad, min(side, top + height + pad)), slice(
        left - pad, min(side, left + width + pad)
    )


def _beyond_outline(rgba: Array) -> Array:  # (H, W, 4) -> (H, W, 3)
    """Colours continued past the outline: no trace of the old background reaches the mesh."""
    trusted = rgba[..., 3] >= TRUSTED_ALPHA
    inner = ndimage.binary_erosion(trusted, border_value=1)
    for candidate in (inner, trusted, rgba[..., 3] >= 0.5):
        if candidate.sum() >= 0.25 * (rgba[..., 3] >= 0.5).sum():
            return fill_nearest(np.ascontiguousarray(rgba[..., :3]), candidate)
    return np.ascontiguousarray(rgba[..., :3])


def _rim_diffused(rgba: Array, picture: Array) -> Array:
    """The object's rim kept, its inside replaced by a smooth blend of the rim. At reduced size."""
    scale = min(1.0, RIM_SIDE_PX / max(rgba.shape[:2]))
    size = (max(1, round(rgba.shape[1] * scale)), max(1, round(rgba.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    solid = cv2.resize(rgba[..., 3], size, interpolation=cv2.INTER_AREA) >= 0.5
    depth = ndimage.distance_transform_edt(np.pad(solid, 1))[1:-1, 1:-1]
    top, bottom, left, right = bounds(solid.astype(np.float32))
    extent = max(bottom - top, right - left)
    rim = solid & (depth <= max(2.0, RIM_SHARE * extent))
    # Soften along the rim: a one-pixel highlight there would become a streak across the back.
    weight = rim.astype(np.float32)
    blurred = cv2.GaussianBlur(small * weight[..., None], (0, 0), 3.0)
    blurred /= np.maximum(cv2.GaussianBlur(weight, (0, 0), 3.0)[..., None], 1e-6)
    outline = (solid & (depth <= 1.5))[..., None]
    diffused = diffuse(np.where(outline, 0.5 * small + 0.5 * blurred, blurred), weight)
    return fill_nearest(diffused, solid)


def _texel_pixels(
    page: Page, view_shape: tuple[int, ...], source_shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """Where each texel of the page, half a gutter around it too, lies in an image of the view."""
    pad = GUTTER_TEXELS // 2
    shrink = source_shape[1] / view_shape[1], source_shape[0] / view_shape[0]
    columns = ((np.arange(-pad, page.size[0] + pad) + 0.5) / page.scale + page.corner[0]) * shrink[
        0
    ] - 0.5
    rows = ((np.arange(-pad, page.size[1] + pad) + 0.5) / page.scale + page.corner[1]) * shrink[
        1
    ] - 0.5
    grid = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    return grid[0], grid[1]


def _resample(source: Array, view_shape: tuple[int, ...], page: Page) -> Array:
    texels_per_pixel = page.scale * view_shape[1] / source.shape[1]
    source = _low_pass(source, texels_per_pixel)
    columns, rows = _texel_pixels(page, view_shape, source.shape)
    return np.asarray(
        cv2.remap(source, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    )


def _blend(
    vertices: Vertices,
    faces: Faces,
    normals: npt.NDArray[np.float64],
    views: Sequence[View],
    pictures: Sequence[Array],
    buffers: Sequence[DepthBuffer],
    page: Page,
    mine: npt.NDArray[np.bool_],
) -> Array:
    """Colours of a page from all views that see its surface, squarer views counting more.

    Two pages that meet in a seam show the same surface points there, so they blend alike.
    """
    pad = GUTTER_TEXELS // 2
    width, height = page.size[0] + 2 * pad, page.size[1] + 2 * pad
    view = views[page.view]
    texels = page.to_texels(view.pixels(vertices)) - page.origin + pad
    depth = view.camera.depth(vertices) * (-1 if page.behind else 1)
    own = faces[mine]
    unit = page.scale * view.pixels_per_unit  # texels per unit of length
    raster = rasterize(texels, depth, own, height, width)
    points = raster.interpolate(vertices, own).astype(np.float64)
    facing = raster.interpolate(normals, own).astype(np.float64)
    facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-9)
    total = np.zeros((len(points), 1), np.float32)
    colour = np.zeros((len(points), 3), np.float32)
    if page.behind:  # what no other view saw either falls back on the rim's colours
        rim = _resample(_rim_diffused(view.rgba, pictures[page.view]), view.rgba.shape, page)
        colour, total = UNSEEN_WEIGHT * rim[raster.covered], total + UNSEEN_WEIGHT
    for other, picture, buffer in zip(views, pictures, buffers, strict=True):
        square = np.einsum("pi,pi->p", facing, other.camera.towards(points)) - GRAZING
        weight = np.clip(square, 0, 1) ** 4 * buffer.sees(points)
        sampled = _sample(_low_pass(picture, unit / other.pixels_per_unit), other.pixels(points))
        colour += weight[:, None].astype(np.float32) * sampled
        total += weight[:, None].astype(np.float32)
    known = total[:, 0] > 1e-4
    canvas, certain = (
        np.zeros((height, width, 3), np.float32),
        np.zeros((height, width), np.float32),
    )
    canvas[raster.covered] = np.where(known[:, None], colour / np.maximum(total, 1e-4), 0)
    certain[raster.covered] = known
    return fill_nearest(diffuse(canvas, certain), raster.covered)


def _low_pass(picture: Array, texels_per_pixel: float) -> Array:
    """Blur before thinning out, or fine detail turns into noise."""
    if texels_per_pixel >= 0.8:
        return picture
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.5 / texels_per_pixel))


def _sample(picture: Array, at: npt.NDArray[np.float64]) -> Array:  # -> (P, 3)
    """Bilinear look-up at points (P, 2), as (column, row).

    cv2.remap takes at most 32767 rows: the list is folded into a rectangle.
    """
    side = 4096
    rows = -(-len(at) // side)
    folded = np.zeros((rows * side, 2), np.float32)
    folded[: len(at)] = at
    grid = folded.reshape(rows, side, 2)
    sampled = cv2.remap(
        picture, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(sampled.reshape(-1, 3)[: len(at)])
