"""Projects a scene's Gaussians as `project` does, compiled and on all cores.

Does not draw. Import it inside functions only (see `models.compiled`). One pass over a chunk: what
lies outside the picture is left as soon as that is known, colours are computed for what is seen.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.compiled import (
    boolean,
    f32,
    f64,
    filled,
    i32,
    i64,
    inlined,
    kernel,
    taken,
)
from models.splat_to_sog.metrics.packed import (
    BLUE,
    COLUMNS,
    FLOOR,
    GREEN,
    HALF_HEIGHT,
    HALF_WIDTH,
    OPACITY,
    RED,
    A,
    B,
    C,
    Packed,
    U,
    V,
)
from models.splat_to_sog.metrics.project import (
    CHUNK_ROWS,
    GUARD,
    LOW_PASS,
    MAX_LOG_SCALE,
    MAX_LOGIT,
)
from models.splat_to_sog.metrics.rasterise import ALPHA_MIN, Camera, Float32, Projected
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import SH_C0, Splats
from models.splat_to_sog.threads import in_threads

Float64 = NDArray[np.float64]


def project(splats: Splats, camera: Camera) -> Projected:
    """The visible Gaussians; at equal depth the earlier row lies in front."""
    return visible(splats, camera).sorted()


def visible(splats: Splats, camera: Camera) -> Packed:
    """The same, not yet sorted: the rows ascend."""
    pose = np.concatenate([camera.rotation.ravel(), camera.position]).astype(np.float64)
    lens = np.array([camera.focal_px, camera.width, camera.height, camera.near], np.float64)

    def project_chunk(rows: slice) -> Packed:
        size = rows.stop - rows.start
        table = np.empty((size, COLUMNS), np.float32)
        depths = np.empty(size, np.float32)
        found = np.empty(size, np.int32)
        count = _project(
            np.asarray(splats.means[rows]),  # a plain view, also of a memory-mapped array
            np.asarray(splats.scales[rows]),
            np.asarray(splats.quats[rows]),
            np.asarray(splats.opacities[rows]),
            np.asarray(splats.sh0[rows]),
            np.asarray(splats.shN[rows]),
            pose,
            lens,
            splats.model == "antialiased",
            table,
            depths,
            found,
        )
        found = found[:count] + np.int32(rows.start)
        return Packed(table[:count].copy(), depths[:count].view(np.uint32), found)

    parts = in_threads(project_chunk, chunks(len(splats), CHUNK_ROWS))
    if len(parts) == 1:
        return parts[0]
    return Packed(
        np.concatenate([part.table for part in parts] or [np.empty((0, COLUMNS), np.float32)]),
        np.concatenate([part.depths for part in parts] or [np.empty(0, np.uint32)]),
        np.concatenate([part.rows for part in parts] or [np.empty(0, np.int32)]),
    )


@inlined
def _ellipse(
    quat: Float32,  # [4]
    scale: Float32,  # [3]
    pose: Float64,  # [12]
    fx: float,
    tx: float,
    ty: float,
) -> tuple[float, float, float]:
    """Covariance (a, b, c) in px^2 of a Gaussian in the picture, before the low-pass.

    fx: px a scene unit at its depth; tx, ty: its centre's slopes, x / z and y / z.
    """
    w, x, y, z = float(quat[0]), float(quat[1]), float(quat[2]), float(quat[3])
    length = math.sqrt(w * w + x * x + y * y + z * z)
    if length > 0:
        w, x, y, z = w / length, x / length, y / length, z / length
    else:
        w = 1.0
    axes = (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    )
    a, b, c = 0.0, 0.0, 0.0
    for i in range(3):
        axis = axes[i]
        deviation = fx * math.exp(min(float(scale[i]), MAX_LOG_SCALE))
        right = axis[0] * pose[0] + axis[1] * pose[1] + axis[2] * pose[2]
        down = axis[0] * pose[3] + axis[1] * pose[4] + axis[2] * pose[5]
        forward = axis[0] * pose[6] + axis[1] * pose[7] + axis[2] * pose[8]
        u, v = deviation * (right - tx * forward), deviation * (down - ty * forward)
        a, b, c = a + u * u, b + u * v, c + v * v
    return a, b, c


@inlined
def _add_harmonics(
    x: float,
    y: float,
    z: float,
    coefficients: Float32,  # [3, K]
    colour: Float64,  # [3]
) -> None:
    """Adds the bands above the constant one to `colour`; (x, y, z) is a unit direction."""
    count = coefficients.shape[1]
    xx, yy, zz = x * x, y * y, z * z
    xy, yz, xz = x * y, y * z, x * z
    for channel in range(3):
        s = coefficients[channel]
        total = 0.4886025119029199 * (-y * s[0] + z * s[1] - x * s[2])
        if count > 3:
            total += 1.0925484305920792 * (xy * s[3] - yz * s[4] - xz * s[6])
            total += 0.31539156525252005 * (2 * zz - xx - yy) * s[5]
            total += 0.5462742152960396 * (xx - yy) * s[7]
        if count > 8:
            total -= 0.5900435899266435 * (y * (3 * xx - yy) * s[8] + x * (xx - 3 * yy) * s[14])
            total += 2.890611442640554 * xy * z * s[9]
            total -= 0.4570457994644658 * (4 * zz - xx - yy) * (y * s[10] + x * s[12])
            total += 0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy) * s[11]
            total += 1.445305721320277 * z * (xx - yy) * s[13]
        if count > 15:
            total += 2.5033429417967046 * xy * (xx - yy) * s[15]
            total -= (
                1.7701307697799304 * z * (y * (3 * xx - yy) * s[16] + x * (xx - 3 * yy) * s[22])
            )
            total += 0.9461746957575601 * xy * (7 * zz - 1) * s[17]
            total -= 0.6690465435572892 * z * (7 * zz - 3) * (y * s[18] + x * s[20])
            total += 0.10578554691520431 * (zz * (35 * zz - 30) + 3) * s[19]
            total += 0.47308734787878004 * (xx - yy) * (7 * zz - 1) * s[21]
            total += 0.6258357354491761 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)) * s[23]
        colour[channel] += total


@kernel(
    taken(f32, 2, "A"),
    taken(f32, 2, "A"),
    taken(f32, 2, "A"),
    taken(f32, 1, "A"),
    taken(f32, 2, "A"),
    taken(f32, 3, "A"),
    taken(f64, 1),
    taken(f64, 1),
    boolean,
    filled(f32, 2),
    filled(f32, 1),
    filled(i32, 1),
    returns=i64,
)
def _project(
    means: Float32,  # [m, 3]
    scales: Float32,  # [m, 3]
    quats: Float32,  # [m, 4]
    opacities: Float32,  # [m]
    sh0: Float32,  # [m, 3]
    shn: Float32,  # [m, 3, K]
    pose: Float64,  # [12]
    lens: Float64,  # [4]
    antialiased: bool,
    table: Float32,  # [m, COLUMNS]
    depths: Float32,  # [m]
    rows: NDArray[np.int32],  # [m]
) -> int:
    """Fills the last three with what is visible, in the order of the input; returns how many.

    pose: [12] rotation row by row, position; lens: focal length, width, height, near.
    """
    focal, width, height, near = lens
    limit_x, limit_y = GUARD * width / (2 * focal), GUARD * height / (2 * focal)
    colour = np.empty(3)
    count = 0
    for i in range(len(means)):
        dx, dy, dz = means[i, 0] - pose[9], means[i, 1] - pose[10], means[i, 2] - pose[11]
        z = pose[6] * dx + pose[7] * dy + pose[8] * dz
        x = pose[0] * dx + pose[1] * dy + pose[2] * dz
        y = pose[3] * dx + pose[4] * dy + pose[5] * dz
        if not (z > near and abs(x) < limit_x * z and abs(y) < limit_y * z):
            continue
        logit = min(max(float(opacities[i]), -MAX_LOGIT), MAX_LOGIT)
        opacity = 1 / (1 + math.exp(-logit))
        if not opacity > ALPHA_MIN:
            continue
        tx, ty = x / z, y / z
        a, b, c = _ellipse(quats[i], scales[i], pose, focal / z, tx, ty)
        sharp = max(a * c - b * b, 0.0)
        area = sharp + LOW_PASS * (a + c) + LOW_PASS * LOW_PASS
        a, c = a + LOW_PASS, c + LOW_PASS
        if antialiased:
            opacity *= math.sqrt(sharp / area)
            if not opacity > ALPHA_MIN:
                continue
        reach = 2 * math.log(opacity / ALPHA_MIN)
        u, v = focal * tx + width / 2, focal * ty + height / 2
        half_width, half_height = math.sqrt(reach * a), math.sqrt(reach * c)
        if not (u + half_width > 0 and u - half_width < width):
            continue
        if not (v + half_height > 0 and v - half_height < height):
            continue
        for channel in range(3):
            colour[channel] = 0.5 + SH_C0 * sh0[i, channel]
        if shn.shape[2] > 0:
            distance = math.sqrt(dx * dx + dy * dy + dz * dz)
            _add_harmonics(dx / distance, dy / distance, dz / distance, shn[i], colour)
        row = table[count]
        row[U], row[V] = u, v
        row[A], row[B], row[C] = c / area, -b / area, a / area
        row[OPACITY], row[FLOOR] = opacity, -reach / 2
        row[HALF_WIDTH], row[HALF_HEIGHT] = half_width, half_height
        row[RED], row[GREEN] = max(colour[0], 0.0), max(colour[1], 0.0)
        row[BLUE] = max(colour[2], 0.0)
        depths[count], rows[count] = z, i
        count += 1
    return count
