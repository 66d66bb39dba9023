"""Where a scene is looked at from: an orbit around its middle, wide views and close-ups in turn.

Does not draw. The cameras follow from the positions of one scene alone, so the original's cameras
serve every coded version of it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.metrics.rasterise import Camera
from models.splat_to_sog.splats import Splats

HALF_ANGLE_DEG = 25.0  # of the field of view
ELEVATIONS_DEG = (20.0, -12.0, 38.0, 5.0)
DISTANCES = (2.2, 1.1)  # in scene radii: the whole, then a part
NEAR = 0.02  # in scene radii
FIRST = 0.35  # of the angle between two views: no view lies exactly on an axis
FLAT_RADIUS = 4.0  # in standard deviations of the largest splat, where all centres coincide
MAX_SAMPLES = 1 << 20  # centres the middle and the radius are taken from

FARTHEST = 1e30  # scene units: cameras are placed in single precision


def orbit(splats: Splats, views: int, size_px: int) -> list[Camera]:
    """`views` square cameras. The scene must have at least one splat, all positions finite.

    Middle: the median of the centres; radius: the 80th percentile of the distances from it, so
    that stray splats far away do not shrink the scene.
    """
    middle, radius = extent(splats)
    focal = 0.5 * size_px / math.tan(math.radians(HALF_ANGLE_DEG))
    cameras = []
    for view in range(views):
        azimuth = 2 * math.pi * (view + FIRST) / views
        elevation = math.radians(ELEVATIONS_DEG[view % len(ELEVATIONS_DEG)])
        distance = radius * DISTANCES[view % len(DISTANCES)]
        rotation = _facing(azimuth, elevation)
        position = middle - rotation[2] * distance
        cameras.append(
            Camera(
                position.astype(np.float32),
                rotation.astype(np.float32),
                focal,
                size_px,
                size_px,
                NEAR * radius,
            )
        )
    return cameras


def extent(splats: Splats) -> tuple[NDArray[np.float64], float]:
    """(middle [3], radius > 0), scene units."""
    step = -(-len(splats) // MAX_SAMPLES)
    centres = np.asarray(splats.means[::step])
    middle = np.median(centres, axis=0).astype(np.float64)
    radius = float(np.percentile(np.linalg.norm(centres - middle, axis=1), 80))
    radius = min(radius, FARTHEST)
    if radius > 0:
        return middle, radius
    largest = float(np.max(splats.scales[::step], initial=-np.inf))
    return middle, FLAT_RADIUS * math.exp(largest) if -80 < largest < 80 else 1.0


def _facing(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """[3, 3] rows right, down, forward of a camera raised by `elevation`; y points down in 3DGS."""
    forward = np.array(
        [
            -math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
            -math.cos(elevation) * math.cos(azimuth),
        ]
    )
    right = np.cross(forward, [0.0, -1.0, 0.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])
