"""Options of ReconViaGen: the shared ones, and finer ones for each of its two samplers.

Knows nothing of arrays.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.image_to_mesh.options.shared import GaussianOptions, Guidance, Steps


class ReconViaGenOptions(GaussianOptions):
    """Options of ReconViaGen: photos from all around, their cameras unknown, to one object."""

    structure_steps: Annotated[
        Steps, Field(description="Steps that find the shape; default: as steps, else 30.")
    ] = None
    structure_guidance: Annotated[
        Guidance,
        Field(
            description="How strictly the shape follows the photos, 1 or less: no more than they "
            "ask; default: as guidance, else 7.5."
        ),
    ] = None
    latent_steps: Annotated[
        Steps, Field(description="Steps that find surface and colours; default: as steps, else 12.")
    ] = None
    latent_guidance: Annotated[
        Guidance,
        Field(
            description="How strictly surface and colours follow the photos, 1 or less: no more "
            "than they ask; default: as guidance, else 7.5."
        ),
    ] = None
