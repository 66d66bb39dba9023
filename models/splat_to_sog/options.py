"""Options of splat -> SOG: one model that HTTP, CLI and docs derive from.

Knows nothing of arrays: importing this module is cheap, so the HTTP layer may.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Preset = Literal["quality", "small", "tiny"]


class SogOptions(BaseModel):
    """How a splat is written as a SOG v2 bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Annotated[
        Preset,
        Field(
            description="quality: the finest SOG can store; small: 3.4 dB less as rendered, tiny: "
            "14 dB less. With harmonics small pays about 4 times quality's price for a bit, tiny "
            "10 times."
        ),
    ] = "quality"
    target_psnr: Annotated[
        float | None,
        Field(
            ge=10,
            le=90,
            description="Instead of a preset: the least PSNR of rendered views in dB; met by up to "
            "0.1 dB more.",
        ),
    ] = None
    target_bytes: Annotated[
        int | None,
        Field(ge=1, description="Instead of a preset: the most bytes the .sog may take."),
    ] = None
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
            description="Entries of the spherical-harmonics palette; default: as many as the price "
            "of a bit pays for.",
        ),
    ] = None
    seed: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="Seed of the clustering; same seed, same bytes.")
    ] = 0

    @model_validator(mode="after")
    def _one_aim(self) -> SogOptions:
        if self.target_psnr is not None and self.target_bytes is not None:
            raise ValueError("target_psnr and target_bytes exclude each other; give one")
        return self

    @property
    def targeted(self) -> bool:
        """Whether a figure is to be met, instead of a preset."""
        return self.target_psnr is not None or self.target_bytes is not None
