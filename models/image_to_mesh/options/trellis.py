"""Options of TRELLIS: the shared ones, and finer ones for each of its two samplers.

Knows nothing of arrays.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.image_to_mesh.options.shared import GaussianOptions, Guidance, Steps


class TrellisOptions(GaussianOptions):
    """Options of TRELLIS: networks imagine the object from one image or a few, sides unseen too."""

    mixing: Annotated[
        Literal["stochastic", "multidiffusion"],
        Field(
            description="How several images lead the networks: one each step in turn, or all at "
            "every step, which takes as many times longer."
        ),
    ] = "stochastic"
    structure_steps: Annotated[
        Steps, Field(description="Steps that find the shape; default: as steps.")
    ] = None
    structure_guidance: Annotated[
        Guidance,
        Field(description="How strictly the shape follows the image; default: as guidance."),
    ] = None
    latent_steps: Annotated[
        Steps, Field(description="Steps that find surface and colours; default: as steps.")
    ] = None
    latent_guidance: Annotated[
        Guidance,
        Field(
            description="How strictly surface and colours follow the image; default: as guidance."
        ),
    ] = None
