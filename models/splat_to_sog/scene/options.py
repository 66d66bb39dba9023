"""Options of the scene operations: flat fields that HTTP, CLI and docs derive from.

Knows nothing of arrays: importing this module is cheap, so the HTTP layer may.
"""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Coordinate = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]  # fits a float32
Degrees = Annotated[float, Field(allow_inf_nan=False)]
Place = Annotated[list[Coordinate], Field(min_length=3, max_length=3)]
Angles = Annotated[list[Degrees], Field(min_length=3, max_length=3)]


class SceneOptions(BaseModel):
    """What is done to a scene before it is encoded, in the order of these fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    translate: Annotated[
        Place | None, Field(description="Move the scene by [x, y, z], scene units, after scale.")
    ] = None
    rotate: Annotated[
        Angles | None,
        Field(
            description="Turn the scene by [x, y, z] degrees about its fixed axes through the "
            "origin: first about x, then y, then z."
        ),
    ] = None
    scale: Annotated[
        float | None,
        Field(gt=0, le=1e6, description="Enlarge the scene by this factor about the origin."),
    ] = None
    min_opacity: Annotated[
        float | None,
        Field(ge=0, le=1, description="Drop splats whose peak alpha is below this, 0 to 1."),
    ] = None
    max_size: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Drop splats whose largest standard deviation exceeds this, scene units.",
        ),
    ] = None
    min_size: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Drop splats whose largest standard deviation is below this, scene units.",
        ),
    ] = None
    max_relative_size: Annotated[
        float | None,
        Field(
            gt=0,
            le=100,
            description="Drop splats whose largest standard deviation exceeds this share of the "
            "scene's radius (the median distance of splats from their median).",
        ),
    ] = None
    box: Annotated[
        list[Coordinate] | None,
        Field(
            min_length=6,
            max_length=6,
            description="Keep splats whose centre is in the box [x0, y0, z0, x1, y1, z1].",
        ),
    ] = None
    sphere: Annotated[
        list[Coordinate] | None,
        Field(
            min_length=4,
            max_length=4,
            description="Keep splats whose centre is in the sphere [x, y, z, radius].",
        ),
    ] = None
    floaters: Annotated[
        float | None,
        Field(
            gt=0,
            le=10,
            description="Drop floaters: splats that lie alone. 1 drops those 4 deviations lonelier "
            "than the scene's median, 2 those 2 deviations lonelier, and so on.",
        ),
    ] = None
    keep: Annotated[
        int | None,
        Field(ge=1, description="Merge splats that look alike until this many are left."),
    ] = None
    keep_fraction: Annotated[
        float | None,
        Field(gt=0, le=1, description="As keep, as a share of the splats that the filters left."),
    ] = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.keep is not None and self.keep_fraction is not None:
            raise ValueError(
                f"keep is {self.keep} and keep_fraction is {self.keep_fraction}: give one of them"
            )
        if self.min_size is not None and self.max_size is not None:
            if self.min_size > self.max_size:
                raise ValueError(f"min_size {self.min_size} is above max_size {self.max_size}")
        if self.box is not None:
            for axis, low, high in zip("xyz", self.box[:3], self.box[3:], strict=True):
                if low > high:
                    raise ValueError(f"box: {axis} runs from {low} down to {high}")
        if self.sphere is not None and not self.sphere[3] > 0:
            raise ValueError(f"sphere: its radius is {self.sphere[3]}; it is above 0")
        return self

    def decimates(self) -> bool:
        return self.keep is not None or self.keep_fraction is not None

    def count_to_keep(self, count: int) -> int:
        """Splats that decimation leaves of `count`."""
        if self.keep is not None:
            return min(self.keep, count)
        if self.keep_fraction is not None:
            return max(1, math.ceil(self.keep_fraction * count))
        return count
