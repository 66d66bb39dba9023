"""Options of the splat pipeline: what is done to the scene, how it is coded, what is written.

Knows nothing of arrays: importing this module is cheap, so the HTTP layer may.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.scene.options import SceneOptions

SplatFormat = Literal["sog", "loose", "lod", "ply", "compressed", "spz"]


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
