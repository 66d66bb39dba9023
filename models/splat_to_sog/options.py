"""Options of splat -> SOG: one model that HTTP, CLI and docs derive from.

Knows nothing of arrays: importing this module is cheap, so the HTTP layer may.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Preset = Literal["quality", "small", "tiny"]


class SogOptions(BaseModel):
    """How a splat is written as a SOG v2 bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Annotated[
        Preset,
        Field(description="What a byte may cost in rendered error: quality, small or tiny."),
    ] = "quality"

    sh_degree: Annotated[
        int | None,
        Field(
            ge=0, le=3, description="Cut spherical harmonics above this degree; default: keep all."
        ),
    ] = None
    palette_size: Annotated[
        int | None,
        Field(
            ge=1,
            le=65536,
            description="Entries of the spherical-harmonics palette; default: by the splat count.",
        ),
    ] = None
    seed: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="Seed of the clustering; same seed, same bytes.")
    ] = 0
