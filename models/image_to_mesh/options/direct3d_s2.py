"""Options of Direct3D-S2: the shared ones, how fine the shape is, and finer ones for its samplers.

Knows nothing of arrays.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.image_to_mesh.options.shared import NetworkOptions, Steps


class Direct3DS2Options(NetworkOptions):
    """Options of Direct3D-S2: networks imagine the shape of one image's object, at up to 1024
    voxels along an edge. Colours are the image's where it sees the surface, a blend elsewhere."""

    resolution: Annotated[
        Literal[512, 1024],
        Field(
            description="Voxels along an edge of the grid the surface comes from; 1024 starts from "
            "the result of 512 and shows finer detail."
        ),
    ] = 1024
    dense_steps: Annotated[Steps, Field(description="Steps that find where the object is.")] = None
    sparse_steps: Annotated[
        Steps, Field(description="Steps that find its surface at 512 voxels along an edge.")
    ] = None
    fine_steps: Annotated[
        Steps, Field(description="Steps that find its surface at 1024 voxels along an edge.")
    ] = None

    def without_effect(self) -> dict[str, str]:
        unused = super().without_effect()
        if self.resolution == 512 and self.fine_steps is not None:
            unused["fine_steps"] = "resolution is 512"
        return unused
