"""Options of ReconViaGen: the shared ones, and finer ones for each of its two samplers.

Knows nothing of arrays.
"""

from __future__ import annotations

from typing import Annotated, Literal

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
    texture_from: Annotated[
        Literal["decoder", "photos"],
        Field(
            description="decoder: the network's own colours. photos (off by default): where a "
            "photo sees the surface its colours are taken, if the mesh is found to fit the photos' "
            "outlines and colours; else, and elsewhere, the network's."
        ),
    ] = "decoder"

    def without_effect(self) -> dict[str, str]:
        """A texture is of the formats that have colours."""
        found = super().without_effect()
        if self.texture_from == "photos" and not {"glb", "obj", "ply"} & set(self.formats):
            found["texture_from"] = "formats has none with a mesh's colours"
        return found
