"""Several images of one object -> a closed surface and the cameras that see it.

Knows nothing of textures. Level views at right angles take the elliptical hull, all others the
visual hull.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.context import InvalidInput
from models.image_to_mesh.geometry.alignment import (
    agreement,
    framed_by_image,
    framed_by_object,
    slide_to_agree,
)
from models.image_to_mesh.geometry.cameras import Camera
from models.image_to_mesh.geometry.elliptical_hull import elliptical_hull
from models.image_to_mesh.geometry.surface import Faces, Vertices
from models.image_to_mesh.geometry.views import ViewPlan
from models.image_to_mesh.geometry.visual_hull import visual_hull

Array = npt.NDArray[np.float32]

LEAST_AGREEMENT = 0.4


@dataclass(frozen=True)
class Shape:
    """vertices (V, 3) float64 in the first camera's frame; faces (F, 3) int32; one camera a view.

    method:    "medial balls" | "elliptical hull" | "visual hull"
    agreement: 0..1, how well the views' outlines fit each other; None for one image
    """

    vertices: Vertices
    faces: Faces
    cameras: tuple[Camera, ...]
    method: str
    agreement: float | None


def reconstruct_views(
    pictures: Sequence[Array],  # each (H, W, 4) float32 0..1, straight alpha
    plan: ViewPlan,
    field_of_view: float = 30.0,
    resolution: int = 192,
) -> Shape:
    """Vertices in half-image units of the first view, as `medial_balls.reconstruct` gives them."""
    alphas = [np.ascontiguousarray(picture[..., 3]) for picture in pictures]
    by_object = framed_by_object(alphas, plan.azimuths, plan.elevations)
    if plan.orthogonal:
        vertices, faces = elliptical_hull(by_object, alphas, plan.azimuths, resolution)
        return _in_first_frame(
            vertices, faces, by_object, "elliptical hull", agreement(by_object, alphas)
        )
    candidates = [slide_to_agree(by_object, alphas)]
    if len({alpha.shape for alpha in alphas}) == 1:
        cameras = framed_by_image(plan.azimuths, plan.elevations, field_of_view)
        candidates.append((cameras, agreement(cameras, alphas)))
    cameras, agreed = max(candidates, key=lambda candidate: candidate[1])
    if agreed < LEAST_AGREEMENT:
        raise InvalidInput(
            f"The images' outlines do not fit together under the given angles (agreement "
            f"{agreed:.2f}, at least {LEAST_AGREEMENT} is needed).",
            code="views_disagree",
            next_step="Check each image's azimuth and elevation, and that all show one object.",
        )
    vertices, faces = visual_hull(cameras, alphas, resolution)
    return _in_first_frame(vertices, faces, cameras, "visual hull", agreed)


def _in_first_frame(
    vertices: Vertices, faces: Faces, cameras: Sequence[Camera], method: str, agreed: float
) -> Shape:
    """From the object's frame to the first camera's, where that camera is the plain one."""
    first = cameras[0]
    shift = np.array([*first.offset, 0.0])
    moved = first.scale * vertices @ first.rotation.T + shift
    turned = []
    for camera in cameras:
        rotation = camera.rotation @ first.rotation.T
        scale = camera.scale / first.scale
        x, y = np.asarray(camera.offset) - scale * (rotation @ shift)[:2]
        turned.append(replace(camera, rotation=rotation, scale=scale, offset=(float(x), float(y))))
    return Shape(moved, faces, tuple(turned), method, round(agreed, 3))
