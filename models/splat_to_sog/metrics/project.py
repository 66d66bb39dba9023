"""Projects a scene's Gaussians into a camera's picture, sorted front to back, in plain numpy.

Does not draw. This is the reference of `project_numba`; both work through the scene in chunks and
keep what is visible only. Zwicker et al., "EWA splatting", 2002, with the low-pass of 3DGS; the
opacity of antialiased scenes: Yu et al., "Mip-Splatting", 2024.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.metrics.harmonics import basis
from models.splat_to_sog.metrics.rasterise import ALPHA_MIN, Camera, Projected
from models.splat_to_sog.rotations import rotation_matrices
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import SH_C0, Splats

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

LOW_PASS = 0.3
"""Variance in px^2 that is added to both axes: no Gaussian is thinner than a pixel."""
GUARD = 1.3
"""Centres up to this many half pictures from the middle are drawn; beyond it the linear
approximation of the perspective breaks down."""
MAX_LOG_SCALE = 20.0
MAX_LOGIT = 30.0
CHUNK_ROWS = 1 << 16


def project(splats: Splats, camera: Camera) -> Projected:
    """The visible Gaussians; at equal depth the earlier row lies in front."""
    parts = [_project_rows(splats, camera, rows) for rows in chunks(len(splats), CHUNK_ROWS)]
    table = np.concatenate([values for values, _ in parts] or [np.empty((0, 12), np.float32)])
    rows = np.concatenate([rows for _, rows in parts] or [np.empty(0, np.int32)])
    order = front_to_back(np.ascontiguousarray(table[:, 11]).view(np.uint32))
    table = table[order]
    return Projected(
        means2d=np.ascontiguousarray(table[:, 0:2]),
        conics=np.ascontiguousarray(table[:, 2:5]),
        colours=np.ascontiguousarray(table[:, 5:8]),
        opacities=np.ascontiguousarray(table[:, 8]),
        radii=np.ascontiguousarray(table[:, 9:11]),
        rows=rows[order],
    )


def front_to_back(depths: NDArray[np.uint32]) -> NDArray[np.intp]:  # [M] -> [M]
    """Indices that sort depths given as the bits of positive float32, which sort as the floats do.

    With the index below the bits one sort of integers is stable, and fast.
    """
    index = np.arange(len(depths), dtype=np.uint64)
    keys = np.sort(depths.astype(np.uint64) << np.uint64(32) | index)
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)


def _project_rows(
    splats: Splats, camera: Camera, chunk: slice
) -> tuple[Float32, NDArray[np.int32]]:
    """(values [m, 12], rows [m]) of the chunk's visible Gaussians, in float64 until stored.

    Values: centre 2, conic 3, colour 3, opacity, radii 2, depth.
    """
    # 1. centres: in front of the camera and near the picture
    offsets = splats.means[chunk].astype(np.float64) - camera.position
    x, y, z = (offsets @ camera.rotation.astype(np.float64).T).T
    limit_x = GUARD * camera.width / (2 * camera.focal_px)
    limit_y = GUARD * camera.height / (2 * camera.focal_px)
    near = (z > camera.near) & (np.abs(x) < limit_x * z) & (np.abs(y) < limit_y * z)
    kept = np.flatnonzero(near)
    x, y, z = x[kept], y[kept], z[kept]
    rows = chunk.start + kept
    # 2. ellipses: covariance in the picture, before and after the low-pass
    covariance = covariances(splats.quats[rows], splats.scales[rows])
    jacobian = np.zeros((len(kept), 2, 3))
    jacobian[:, 0, 0] = jacobian[:, 1, 1] = camera.focal_px / z
    jacobian[:, 0, 2] = -camera.focal_px * x / z**2
    jacobian[:, 1, 2] = -camera.focal_px * y / z**2
    to_picture = jacobian @ camera.rotation.astype(np.float64)
    flat = to_picture @ covariance @ to_picture.transpose(0, 2, 1)
    a, b, c = flat[:, 0, 0], flat[:, 0, 1], flat[:, 1, 1]
    sharp = np.maximum(a * c - b * b, 0)
    area = sharp + LOW_PASS * (a + c) + LOW_PASS**2  # a sum of what is positive: never cancels
    a, c = a + LOW_PASS, c + LOW_PASS
    # 3. opacity, and with it how far the Gaussian is seen
    logits = np.clip(splats.opacities[rows].astype(np.float64), -MAX_LOGIT, MAX_LOGIT)
    opacity = 1 / (1 + np.exp(-logits))
    if splats.model == "antialiased":
        opacity *= np.sqrt(sharp / area)
    reach = 2 * np.log(np.maximum(opacity / ALPHA_MIN, 1))
    u = camera.focal_px * x / z + camera.width / 2
    v = camera.focal_px * y / z + camera.height / 2
    half_width, half_height = np.sqrt(reach * a), np.sqrt(reach * c)
    seen = (opacity > ALPHA_MIN) & (u + half_width > 0) & (u - half_width < camera.width)
    seen &= (v + half_height > 0) & (v - half_height < camera.height)
    # 4. colours of what is seen
    rows = rows[seen]
    colours = seen_colours(splats, rows, offsets[kept[seen]])
    columns = [u, v, c / area, -b / area, a / area, opacity, half_width, half_height, z]
    u, v, a, b, c, opacity, half_width, half_height, z = (column[seen] for column in columns)
    table = np.stack([u, v, a, b, c, *colours.T, opacity, half_width, half_height, z], axis=1)
    return table.astype(np.float32), rows.astype(np.int32)


def covariances(
    quats: Float32,
    scales: NDArray[np.floating],
) -> Float64:  # [M, 4], [M, 3] -> [M, 3, 3]
    """Covariance of each Gaussian in scene units^2; a scale of -inf is flat."""
    sizes = np.exp(np.minimum(scales.astype(np.float64), MAX_LOG_SCALE))
    axes = rotation_matrices(quats) * sizes[:, None]
    return axes @ axes.transpose(0, 2, 1)


def seen_colours(
    splats: Splats,
    rows: NDArray[np.intp],  # [m]
    offsets: Float64,  # [m, 3] camera -> centre
) -> Float64:  # [m, 3]
    """Colour of each row from where the camera stands, negative values cut at 0."""
    colours = 0.5 + SH_C0 * splats.sh0[rows].astype(np.float64)
    k = splats.shN.shape[2]
    if k:
        directions = offsets / np.maximum(np.linalg.norm(offsets, axis=1, keepdims=True), 1e-30)
        values = np.stack(basis(*directions.T)[:k], axis=1)
        colours += np.einsum("mck,mk->mc", splats.shN[rows].astype(np.float64), values)
    return np.maximum(colours, 0)
