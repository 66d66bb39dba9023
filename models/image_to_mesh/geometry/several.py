"""Several images of one object -> a closed surface and the cameras that see it.

Knows nothing of textures. Level views at right angles are taken as drawn: angles exact, outlines
centred. All others are brought to agree first.
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
from models.image_to_mesh.geometry.front_and_back import front_and_back
from models.image_to_mesh.geometry.limbs import thick_parts
from models.image_to_mesh.geometry.outline import Outline
from models.image_to_mesh.geometry.refinement import refine
from models.image_to_mesh.geometry.surface import Faces, Vertices
from models.image_to_mesh.geometry.views import ViewPlan
from models.image_to_mesh.geometry.visual_hull import visual_hull

Array = npt.NDArray[np.float32]

LEAST_AGREEMENT = 0.4
ABOUT_LEVEL_DEGREES = 10.0


@dataclass(frozen=True)
class Shape:
    """vertices (V, 3) float64 in the first camera's frame; faces (F, 3) int32; one camera a view.

    azimuths:  degrees, one a view: as declared, or turned a little until the outlines fit
    method:    "medial balls" | "elliptical hull" | "visual hull"
    agreement: 0..1, how well the views' outlines fit each other; None for one image
    """

    vertices: Vertices
    faces: Faces
    cameras: tuple[Camera, ...]
    azimuths: tuple[float, ...]
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
    outlines = [Outline(*pair) for pair in zip(by_object, alphas, strict=True)]
    azimuths = plan.azimuths
    if plan.orthogonal:
        if len({azimuth % 180 for azimuth in azimuths}) == 1:
            surface = front_and_back(by_object, alphas, resolution)
            agreed = agreement(by_object, alphas)
            return _in_first_frame(*surface, by_object, azimuths, "medial balls", agreed)
        cameras, agreed = by_object, agreement(by_object, alphas)
    else:
        candidates = []
        if len({alpha.shape for alpha in alphas}) == 1:
            turntable = framed_by_image(azimuths, plan.elevations, field_of_view)
            candidates.append((turntable, agreement(turntable, alphas), azimuths))
        candidates.append((*slide_to_agree(by_object, alphas), azimuths))
        if max(abs(elevation) for elevation in plan.elevations) <= ABOUT_LEVEL_DEGREES:
            refined = refine([thick_parts(outline) for outline in outlines], azimuths)
            turned = framed_by_object(alphas, refined.azimuths, plan.elevations, refined.shifts)
            candidates.append((turned, agreement(turned, alphas), refined.azimuths))
        cameras, agreed, azimuths = max(candidates, key=lambda candidate: candidate[1])
    if agreed < LEAST_AGREEMENT:
        raise InvalidInput(
            f"The images' outlines do not fit together under the given angles (agreement "
            f"{agreed:.2f}, at least {LEAST_AGREEMENT} is needed).",
            code="views_disagree",
            next_step="Check each image's azimuth and elevation, and that all show one object.",
        )
    outlines = [outline.moved(camera) for outline, camera in zip(outlines, cameras, strict=True)]
    vertices, faces, method = visual_hull(outlines, resolution)
    return _in_first_frame(vertices, faces, cameras, azimuths, method, agreed)


def _in_first_frame(
    vertices: Vertices,
    faces: Faces,
    cameras: Sequence[Camera],
    azimuths: Sequence[float],
    method: str,
    agreed: float,
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
    return Shape(moved, faces, tuple(turned), tuple(azimuths), method, round(agreed, 3))
