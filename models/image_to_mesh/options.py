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
    """Options of the embedded pipeline: outlines to a closed, textured mesh; no weights, no GPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: Annotated[
        tuple[MeshFormat, ...],
        Field(
            min_length=1,
            description="Files to write; the first is the main result. obj comes as a ZIP of .obj, "
            ".mtl and texture; ply carries vertex colours; stl is shape alone.",
        ),
    ] = ("glb",)
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
    faces: Annotated[
        int, Field(ge=500, le=500_000, description="Face budget of the simplified mesh.")
    ] = 20_000
    texture_size: Annotated[
        Literal[1024, 2048], Field(description="Side of the square texture, pixels.")
    ] = 1024
    texture_format: Annotated[
        Literal["jpeg", "png"],
        Field(
            description="Texture inside the file: jpeg (quality 92, full chroma) or lossless png."
        ),
    ] = "jpeg"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of every random choice.")] = 0


class TrellisOptions(BaseModel):
    """Options of TRELLIS: networks imagine the object from one image or a few, sides unseen too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: Annotated[
        tuple[Literal["glb", "splat"], ...],
        Field(
            min_length=1,
            description="What to make; the first is the main result. glb is the decoded mesh with "
            "vertex colours, splat a .ply of 3-D Gaussians.",
        ),
    ] = ("glb",)
    mixing: Annotated[
        Literal["stochastic", "multidiffusion"],
        Field(
            description="How several images lead the networks: one each step in turn, or all at "
            "every step, which takes as many times longer."
        ),
    ] = "stochastic"
    structure_steps: Annotated[
        int | None,
        Field(ge=1, le=100, description="Steps that find the shape; default: the checkpoint's."),
    ] = None
    structure_guidance: Annotated[
        float | None,
        Field(
            ge=0,
            le=20,
            description="How strictly the shape follows the image; default: the checkpoint's.",
        ),
    ] = None
    latent_steps: Annotated[
        int | None,
        Field(ge=1, le=100, description="Steps that find surface and colours; default as above."),
    ] = None
    latent_guidance: Annotated[
        float | None,
        Field(
            ge=0,
            le=20,
            description="How strictly surface and colours follow the image; default as above.",
        ),
    ] = None
    seed: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="Another seed imagines another object.")
    ] = 0
