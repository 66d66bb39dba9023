"""Presets and targets: from what a user asks for to the price of a bit.

Does not know textures: it is given the predicted error of a scene at a price, or the size of its
files. A preset is a loss against the finest that SOG can store (16-bit positions, 8 bits for all
else), so it means the same on every scene; a file that truncates instead of rounding loses 6 dB.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from models.context import InvalidInput
from models.splat_to_sog.options import Preset

LOSS_DB: dict[Preset, float] = {"quality": 0.15, "small": 3.2, "tiny": 13.5}
"""Predicted rendered error above that of the finest steps."""

CALIBRATION_DB = -1.5
"""Nine renders (three real scenes, three presets) came out from 4.1 dB below to 2.6 dB above the
sum of the predicted errors: visibility is an estimate. A prediction is good to about 4 dB."""

CHEAPEST, DEAREST = -80.0, 20.0  # natural logarithms of prices searched
BISECTIONS = 40
MAX_ATTEMPTS = 7
SLACK = 0.985  # a file within this share of its target is near enough

T = TypeVar("T")
Error = Callable[[float], float]  # price -> predicted mean squared error of a picture


def price_of_preset(error: Error, preset: Preset) -> float:
    return price_of_error(error, error(0.0) * 10 ** (LOSS_DB[preset] / 10))


def price_of_psnr(error: Error, target_db: float) -> float:
    """Raises InvalidInput where even the finest steps fall short."""
    best = predicted_psnr(error(0.0))
    if target_db > best:
        raise InvalidInput(
            f"target_psnr: {target_db:g} dB; SOG's finest steps reach {best:.1f} dB on this scene.",
            code="target_unreachable",
            next_step=f"Ask for at most {math.floor(best * 10) / 10:g} dB, or for a preset.",
        )
    return price_of_error(error, 10 ** (-(target_db - CALIBRATION_DB) / 10))


def predicted_psnr(error: float) -> float:
    """dB of a picture (values 0..1) with this predicted squared error."""
    return CALIBRATION_DB - 10 * math.log10(max(error, 1e-12))


def price_of_error(error: Error, limit: float) -> float:
    """The highest price at which the error stays within `limit`; it grows with the price."""
    low, high = CHEAPEST, DEAREST
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if error(math.exp(middle)) <= limit else (low, middle)
    return math.exp(low)


def fit_bytes(
    encode: Callable[[float], T],
    size: Callable[[T], int],
    target: int,
    start: float,
    steepness: float = 0.12,
) -> tuple[T, float]:
    """(what `encode` made of the lowest price found whose size is at most `target`, that price).

    log(size) is nearly linear in log(price): a secant search over real files. Raises InvalidInput
    that names the smallest size reached.
    """
    fits: tuple[T, float] | None = None
    smallest = None
    low, high = CHEAPEST, DEAREST  # too large at low, fits at high
    at, previous = math.log(start), None
    for attempt in range(MAX_ATTEMPTS):
        made = encode(math.exp(at))
        length = size(made)
        smallest = length if smallest is None else min(smallest, length)
        if length <= target:
            high = min(high, at)
            if fits is None or at < math.log(fits[1]):
                fits = made, math.exp(at)
            if length >= SLACK * target:
                break
        else:
            low = max(low, at)
        excess = math.log(length / (target * (1 + SLACK) / 2))
        if previous and abs(at - previous[0]) > 1e-3:
            slope = (previous[1] - excess) / (at - previous[0])
            steepness = min(max(slope, 0.01), 1.0)
        previous = at, excess
        at = min(max(at + excess / steepness, CHEAPEST), DEAREST)
        if not low < at < high:
            at = DEAREST if high == DEAREST and attempt > 2 else (max(low, -60) + min(high, 0)) / 2
        if low == high:
            break
    if fits is None:
        raise InvalidInput(
            f"The target is {target} bytes of textures; this scene takes at least {smallest}.",
            code="target_unreachable",
            next_step=f"Allow {smallest} bytes, cut sh_degree, or drop splats.",
        )
    return fits
