"""Splats: one Gaussian scene as plain arrays, and the checks that make it safe to encode.

Knows nothing of files: readers make it, the encoder and the writers take it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Model = Literal["default", "antialiased", "2dgs"]

COEFFICIENTS = (0, 3, 8, 15, 24)
"""Spherical-harmonics coefficients a channel above the constant one, by degree 0..4."""

SH_C0 = 0.28209479177387814
"""Constant band: display colour = 0.5 + SH_C0 * sh0."""


@dataclass(frozen=True)
class Splats:
    """A scene of N Gaussians in the space of a 3DGS .ply (y down, z forward); never modified."""

    means: Float32  # [N, 3] centre, scene units
    scales: Float32  # [N, 3] natural log of the standard deviation, scene units; -inf = flat
    quats: Float32  # [N, 4] rotation w, x, y, z; of any length
    opacities: Float32  # [N] logit; +-inf = fully opaque or invisible
    sh0: Float32  # [N, 3] constant SH coefficient of red, green, blue
    shN: Float32  # [N, 3, K] channel, coefficient; K of COEFFICIENTS  # noqa: N815
    model: Model = "default"

    def __post_init__(self) -> None:
        n = len(self.means)
        wanted = {
            "means": (n, 3),
            "scales": (n, 3),
            "quats": (n, 4),
            "opacities": (n,),
            "sh0": (n, 3),
            "shN": (n, 3, self.shN.shape[-1]),
        }
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name}: {array.dtype} {array.shape}, expected float32 {shape}")
        if self.shN.shape[2] not in COEFFICIENTS:
            raise ValueError(
                f"shN: {self.shN.shape[2]} coefficients, expected one of {COEFFICIENTS}"
            )

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Spherical-harmonics degree, 0..4."""
        return COEFFICIENTS.index(self.shN.shape[2])

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Splats:
        """The splats of these rows (indices [M] or mask [N]), in that order."""
        return replace(
            self,
            means=self.means[rows],
            scales=self.scales[rows],
            quats=self.quats[rows],
            opacities=self.opacities[rows],
            sh0=self.sh0[rows],
            shN=self.shN[rows],
        )

    def cut_degree(self, degree: int) -> Splats:
        """The same splats without the bands above `degree`."""
        if degree >= self.degree:
            return self
        return replace(self, shN=np.ascontiguousarray(self.shN[:, :, : COEFFICIENTS[degree]]))


@dataclass(frozen=True)
class Cleaned:
    """A scene made safe. dropped: splats per reason; one splat may count under several."""

    splats: Splats
    dropped: dict[str, int]
    dropped_total: int
    repaired: dict[str, int]


def drop_non_finite(splats: Splats) -> Cleaned:
    """Drop splats no renderer can draw; count every reason.

    Legal and kept: opacity +-inf (alpha exactly 1 or 0) and scale -inf (a flat axis). NaN anywhere,
    and infinities elsewhere, drop the splat. A zero quaternion has no direction: it is read as "no
    rotation", which is what renderers do with it, and counted under `repaired`.
    """
    bad = {
        "position not finite": ~np.isfinite(splats.means).all(axis=1),
        "scale NaN or +inf": (np.isnan(splats.scales) | np.isposinf(splats.scales)).any(axis=1),
        "rotation not finite": ~np.isfinite(splats.quats).all(axis=1),
        "opacity NaN": np.isnan(splats.opacities),
        "colour not finite": ~np.isfinite(splats.sh0).all(axis=1),
        "harmonics not finite": ~np.isfinite(splats.shN).all(axis=(1, 2)),
    }
    any_bad = np.logical_or.reduce(list(bad.values()))
    kept = splats.take(~any_bad) if any_bad.any() else splats
    zero = ~kept.quats.any(axis=1)
    if zero.any():
        quats = kept.quats.copy()
        quats[zero] = (1, 0, 0, 0)
        kept = replace(kept, quats=quats)
    return Cleaned(
        splats=kept,
        dropped={reason: int(mask.sum()) for reason, mask in bad.items() if mask.any()},
        dropped_total=int(any_bad.sum()),
        repaired={"rotation zero, read as none": int(zero.sum())} if zero.any() else {},
    )
