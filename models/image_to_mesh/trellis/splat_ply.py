"""Gaussians as the .ply file that 3-D Gaussian splatting made common.

It knows neither network nor what is done with the file: arrays in, bytes out. Kerbl et al., 3D
Gaussian Splatting for Real-Time Radiance Field Rendering, 2023: the layout of its code's output.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

PROPERTIES = (
    *("x", "y", "z"),
    *("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity",
    *("scale_0", "scale_1", "scale_2"),
    *("rot_0", "rot_1", "rot_2", "rot_3"),
)
LEAST_OPACITY = 1e-6
"""Opacity is stored as its logit: 0 and 1 would be infinite."""


def encode_splat_ply(
    means: Float32,  # (P, 3), z up
    sh0: Float32,  # (P, 3) harmonics of degree 0
    scales: Float32,  # (P, 3) standard deviations
    quaternions: Float32,  # (P, 4), w first, unit length
    opacities: Float32,  # (P,) 0..1
) -> bytes:
    """Binary little-endian PLY, turned so that -y is up, as scenes of this format lie."""
    opacity = np.clip(opacities.astype(np.float64), LEAST_OPACITY, 1 - LEAST_OPACITY)
    columns = (
        _z_up_to_minus_y_up(means),
        sh0,
        np.log(opacity / (1 - opacity))[:, None],
        np.log(scales),
        _turned(quaternions),
    )
    rows = np.concatenate(columns, axis=1).astype("<f4")
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(rows)}",
        *(f"property float {name}" for name in PROPERTIES),
        "end_header",
    ]
    return ("\n".join(lines) + "\n").encode("ascii") + rows.tobytes()


def _z_up_to_minus_y_up(means: Float32) -> Float32:
    """A quarter turn about x: (x, y, z) -> (x, -z, y)."""
    return np.stack((means[:, 0], -means[:, 2], means[:, 1]), axis=1)


def _turned(quaternions: Float32) -> npt.NDArray[np.float64]:
    """The same turn before each rotation: (cos 45, sin 45, 0, 0) times q."""
    w, x, y, z = quaternions.astype(np.float64).T
    return math.sqrt(0.5) * np.stack((w - x, x + w, y - z, z + y), axis=1)
