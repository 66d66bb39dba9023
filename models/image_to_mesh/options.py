"""Options of image(s) -> mesh: one model that HTTP, CLI and docs derive from.

Knows nothing of arrays: importing this module is cheap, so the HTTP layer may.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Degrees = Annotated[float, Field(ge=-360, le=360)]
ElevationDegrees = Annotated[float, Field(ge=-90, le=90)]
MeshFormat = Literal["glb", "obj", "ply", "stl"]


class EmbeddedOptions(BaseModel):
    """Options of the embedded pipeline: silhouettes to a closed, textured mesh."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: Annotated[
        tuple[MeshFormat, ...],
        Field(min_length=1, description="Files to write; the first is the main result."),
    ] = ("glb",)
    azimuth: Annotated[
        tuple[Degrees, ...] | None,
        Field(
            description="One angle per image, degrees: 0 front, 90 the object's left side "
            "(camera at +X), 180 back. Several images without it are labelled by a guess, and the result says so."
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
            description="Vertical field of view of the camera, degrees; 0 is orthographic.",
        ),
    ] = 30.0
    resolution: Annotated[
        Literal[128, 192, 256], Field(description="Cells along the longest side of the grid.")
    ] = 192
    faces: Annotated[
        int, Field(ge=500, le=500_000, description="Face budget of the simplified mesh.")
    ] = 20_000
    texture_size: Annotated[
        Literal[1024, 2048], Field(description="Side of the square texture, pixels.")
    ] = 1024
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of every random choice.")] = 0
