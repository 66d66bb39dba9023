"""Options of the splat pipeline: what is done to the scene, how it is coded, what is written.

Knows nothing of arrays: importing this module is cheap, so the HTTP layer may.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.scene.options import SceneOptions

SplatFormat = Literal["sog", "loose", "lod", "ply", "compressed", "spz"]

SOGS: tuple[SplatFormat, ...] = ("sog", "loose", "lod")
MEANT_FOR: dict[str, tuple[SplatFormat, ...]] = {  # option -> the formats it changes
    "preset": SOGS,
    "target_psnr": SOGS,
    "target_bytes": SOGS[:2],
    "palette_size": SOGS,
    "lod_levels": ("lod",),
    "lod_ratio": ("lod",),
    "spz_version": ("spz",),
}


class SplatOptions(SceneOptions, SogOptions):
    """Splat to SOG, or from any splat format to another, with operations on the scene between."""

    formats: Annotated[
        tuple[SplatFormat, ...],
        Field(
            min_length=1,
            description="Files to write; the first is the main result. sog: a bundle; loose: "
            "meta.json and textures as a ZIP; lod: streamed SOG with levels of detail as a ZIP; "
            "ply: 3DGS .ply; compressed: .compressed.ply; spz.",
        ),
    ] = ("sog",)
    level: Annotated[
        int,
        Field(ge=0, le=15, description="Level of detail to take of a streamed SOG; 0: the finest."),
    ] = 0
    report: Annotated[
        bool,
        Field(
            description="Render the scene and its main result, and report PSNR, SSIM, errors of "
            "each attribute and a preview picture."
        ),
    ] = True
    lod_levels: Annotated[
        int,
        Field(ge=1, le=10, description="Levels of detail of a streamed SOG, the scene included."),
    ] = 4
    lod_ratio: Annotated[
        float,
        Field(ge=0.1, le=0.9, description="Splats of each level as a share of the one before."),
    ] = 0.5
    spz_version: Annotated[
        Literal[3, 4],
        Field(description="3: one gzip stream, read everywhere; 4: zstd streams, smaller."),
    ] = 3

    @model_validator(mode="after")
    def _one_file_of_that_size(self) -> Self:
        if self.target_bytes is not None and "lod" in self.formats:
            raise ValueError(
                f"target_bytes is {self.target_bytes} and formats has lod, which is many files "
                "that load one by one: give target_psnr or a preset"
            )
        return self

    def without_effect(self) -> dict[str, tuple[SplatFormat, ...]]:
        """Options that were set although no format to write knows them, and whose they are."""
        return {
            name: formats
            for name, formats in MEANT_FOR.items()
            if not set(formats) & set(self.formats)
            and getattr(self, name) != type(self).model_fields[name].default
        }
