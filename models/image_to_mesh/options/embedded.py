"""Options of the embedded pipeline: outlines to a closed, textured mesh.

Knows nothing of arrays.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.image_to_mesh.options.shared import MeshOptions

Degrees = Annotated[float, Field(ge=-360, le=360)]
ElevationDegrees = Annotated[float, Field(ge=-90, le=90)]


class EmbeddedOptions(MeshOptions):
    """Options of the embedded pipeline: outlines to a closed, textured mesh; no weights, no GPU."""

    azimuth: Annotated[
        tuple[Degrees, ...] | None,
        Field(
            description="One angle per image, degrees: 0 front, 90 the object's left side (camera "
            "at +X), 180 back. Without it, several images are labelled by the words front, left, "
            "back, right in their file names, else by a guess, and the result says so.",
        ),
    ] = None
    elevation: Annotated[
        tuple[ElevationDegrees, ...] | None,
        Field(description="One angle per image, degrees above the horizon; default 0."),
    ] = None
    field_of_view: Annotated[
        float,
        Field(
            ge=0,
            le=120,
            description="Field of view across the image's longer side, degrees; 0 is orthographic. "
            "Level views at right angles are always taken as orthographic.",
        ),
    ] = 30.0
    resolution: Annotated[
        Literal[128, 192, 256], Field(description="Cells along the longest side of the object.")
    ] = 192

    def without_effect(self) -> dict[str, str]:
        given = [name for name in ("steps", "guidance") if getattr(self, name) is not None]
        return dict.fromkeys(given, "the embedded pipeline samples nothing")
