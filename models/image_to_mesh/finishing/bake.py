"""Paint the atlas: sample the images where they saw the surface, diffuse colours where none did.

Knows nothing of packing, nor of how views were chosen. What one image did not see gets the colours
of its rim, blurred into each other: a second face or label printed on the back would be a lie.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.image_to_mesh.finishing.atlas import GUTTER_TEXELS, Atlas, Page
from models.image_to_mesh.finishing.fill import diffuse, fill_nearest
from models.image_to_mesh.finishing.rasterize import rasterize
from models.image_to_mesh.finishing.view_choice import ViewChoice
from models.image_to_mesh.finishing.visibility import DepthBuffer, View
from models.image_to_mesh.geometry.silhouette import bounds
from models.image_to_mesh.geometry.surface import Faces, Vertices

Array = npt.NDArray[np.float32]

RIM_SHARE = 0.03
"""Width of the rim whose colours the unseen side takes, as a share of the object's size."""
RIM_SIDE_PX = 320
LEAST_WEIGHT = 0.004
"""A view's share in a colour below which it makes no difference in 8 bits."""
UNSEEN_WEIGHT = 0.003
"""Of colours that spread from elsewhere: they count only where no chosen view sees."""


def bake(
    vertices: Vertices, faces: Faces, views: Sequence[View], atlas: Atlas
) -> npt.NDArray[np.uint8]:
    """The texture, (S, S, 3) uint8 sRGB."""
    side = atlas.texture_size
    texture = np.zeros((side, side, 3), np.float32)
    known = np.zeros((side, side), bool)
    buffers = [DepthBuffer(vertices, faces, view) for view in views] if len(views) > 1 else []
    for index, page in enumerate(atlas.pages):
        if atlas.choice is None:
            picture, rgba = views[0].beyond_outline, views[0].rgba
            source = rim_diffused(rgba, picture) if page.behind else picture
            content = _resample(source, rgba.shape, page)
        else:
            own = faces[atlas.page_of_face == index]
            content = _paint(vertices, own, views, buffers, page, atlas.choice)
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


def rim_diffused(rgba: Array, picture: Array) -> Array:
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
    source = low_pass(source, texels_per_pixel)
    columns, rows = _texel_pixels(page, view_shape, source.shape)
    return np.asarray(
        cv2.remap(source, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    )


def _paint(
    vertices: Vertices,
    own: Faces,
    views: Sequence[View],
    buffers: Sequence[DepthBuffer],
    page: Page,
    choice: ViewChoice,
) -> Array:
    """A page in the colours of the views chosen for each place, and of what spreads into the rest.

    Two pages that meet in a seam show the same surface points there, so they mix alike.
    """
    pad = GUTTER_TEXELS // 2
    width, height = page.size[0] + 2 * pad, page.size[1] + 2 * pad
    view = views[page.view]
    texels = page.to_texels(view.pixels(vertices)) - page.origin + pad
    depth = view.camera.depth(vertices) * (-1 if page.behind else 1)
    unit = page.scale * view.pixels_per_unit  # texels per unit of length
    raster = rasterize(texels, depth, own, height, width)
    points = raster.interpolate(vertices, own).astype(np.float64)
    weights = raster.interpolate(choice.weights, own)
    colour = raster.interpolate(choice.unseen, own)
    total = np.maximum(1 - weights.sum(axis=1, keepdims=True), UNSEEN_WEIGHT)
    colour *= total
    for k, (other, buffer) in enumerate(zip(views, buffers, strict=True)):
        mine = np.flatnonzero(weights[:, k] > LEAST_WEIGHT)
        if not len(mine):
            continue
        weight = (weights[mine, k] * buffer.sees(points[mine]))[:, None]
        picture = low_pass(other.beyond_outline, unit / other.pixels_per_unit)
        colour[mine] += weight * look_up(picture, other.pixels(points[mine]))
        total[mine] += weight
    canvas = np.zeros((height, width, 3), np.float32)
    canvas[raster.covered] = colour / np.maximum(total, 1e-4)
    return fill_nearest(canvas, raster.covered)


def low_pass(picture: Array, texels_per_pixel: float) -> Array:
    """Blur before thinning out, or fine detail turns into noise."""
    if texels_per_pixel >= 0.8:
        return picture
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.5 / texels_per_pixel))


def look_up(picture: Array, at: npt.NDArray[np.float64]) -> Array:  # -> (P, 3)
    """Bilinear look-up at points (P, 2), as (column, row).

    cv2.remap takes at most 32767 rows: the list is folded into a rectangle. It takes no empty one.
    """
    if len(at) == 0:
        return np.zeros((0, 3), np.float32)
    side = 4096
    rows = -(-len(at) // side)
    folded = np.zeros((rows * side, 2), np.float32)
    folded[: len(at)] = at
    grid = folded.reshape(rows, side, 2)
    sampled = cv2.remap(
        picture, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(sampled.reshape(-1, 3)[: len(at)])
