"""Presets: what each means, and the ends of the range of prices.

Does not know textures. A preset is a loss, as rendered, against the finest that SOG can store
(16-bit positions, 8 bits for all else), so it means the same on every scene; of scenes with
harmonics it is a price. Figures that a user asks for instead are `targets`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from models.splat_to_sog.options import Preset
from models.splat_to_sog.webp import FAST, QUICKEST, Effort


@dataclass(frozen=True)
class Plan:
    """How a scene is coded.

    loss_db: rendered loss against the finest steps; 0: none is measured
    matches: less is lost where truncation at the finest steps, as other tools do it, loses less
    classes: of splats of like worth, each with steps of its own (`rate`)
    turns:   ways of writing a rotation that are tried (`canonical`)
    span:    splats a block in which the order follows likeness; 0: along the curve (`order`)
    share:   what a bit must save where harmonics set the price (`harmonics.harmonics_price`)
    """

    loss_db: float
    classes: int
    turns: int
    span: int
    effort: Effort
    matches: bool = False
    share: float = 0.0


PLANS: Mapping[Preset, Plan] = {
    "quality": Plan(loss_db=0.0, classes=1, turns=6, span=0, effort=QUICKEST),
    "small": Plan(loss_db=3.4, classes=2, turns=1, span=512, effort=FAST, matches=True),
    "tiny": Plan(loss_db=14.0, classes=4, turns=1, span=512, effort=FAST),
}

WITH_HARMONICS: Mapping[Preset, Plan] = {
    "quality": Plan(loss_db=0.0, classes=2, turns=1, span=0, effort=FAST, share=3.5e-4),
    "small": Plan(loss_db=0.0, classes=2, turns=1, span=512, effort=FAST, share=2e-3),
    "tiny": Plan(loss_db=0.0, classes=2, turns=1, span=512, effort=FAST, share=5.3e-3),
}
"""Of scenes with harmonics, which hold most of what is stored and lost: they set the price, and no
loss is measured. Two classes are 0.2 to 0.9 dB better than one at the same bytes."""

FEW_WITH_HARMONICS: Mapping[Preset, Plan] = {
    "quality": Plan(loss_db=0.0, classes=1, turns=1, span=256, effort=FAST, share=7.05e-4),
    "small": Plan(loss_db=0.0, classes=1, turns=1, span=512, effort=FAST, share=2e-3),
    "tiny": Plan(loss_db=0.0, classes=1, turns=1, span=512, effort=FAST, share=5.3e-3),
}
"""Of those with so few splats that each may have a palette entry of its own: runs are for the
entries then (`Harmonics.in_runs`), and one step of the rest for all splats is 0.4 to 0.7 dB better
than four at the same bytes."""

FINEST = math.exp(-80.0)
"""A price at which every step is the smallest there is."""

DEAREST = math.exp(20.0)
