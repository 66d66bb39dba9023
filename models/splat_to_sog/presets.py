"""Presets and targets: from what a user asks for to the price of a bit.

Does not know textures: it is given functions of the price, the files and what they look like. A
preset is a loss, as rendered, against the finest that SOG can store (16-bit positions, 8 bits for
all else), so it means the same on every scene.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.context import InvalidInput
from models.splat_to_sog.options import Preset
from models.splat_to_sog.webp import FAST, QUICKEST, Effort


@dataclass(frozen=True)
class Plan:
    """How a scene is coded.

    loss_db: rendered loss against the finest steps; 0: none is measured
    classes: of splats of like worth, each with steps of its own (`rate`)
    turns:   ways of writing a rotation that are tried (`canonical`)
    span:    splats a block in which the order follows likeness; 0: along the curve (`order`)
    """

    loss_db: float
    classes: int
    turns: int
    span: int
    effort: Effort


PLANS: Mapping[Preset, Plan] = {
    "quality": Plan(loss_db=0.0, classes=1, turns=6, span=0, effort=QUICKEST),
    "small": Plan(loss_db=3.4, classes=2, turns=1, span=512, effort=FAST),
    "tiny": Plan(loss_db=14.0, classes=4, turns=1, span=512, effort=FAST),
}

WITH_HARMONICS: Mapping[Preset, Plan] = {
    "quality": Plan(loss_db=0.0, classes=1, turns=1, span=0, effort=FAST),
    "small": Plan(loss_db=0.0, classes=8, turns=1, span=512, effort=FAST),
    "tiny": Plan(loss_db=0.0, classes=8, turns=1, span=512, effort=FAST),
}
"""Of scenes with harmonics, which hold most of what is stored and lost: they set the price
(`harmonics.harmonics_price`), and no loss is measured."""

FINEST = math.exp(-80.0)
"""A price at which every step is the smallest there is."""

DEAREST = math.exp(20.0)
BISECTIONS = 40

NEAR_DB = 0.1  # a loss this close to what was asked for is met
PSNR_ATTEMPTS = 8

BYTES_ATTEMPTS = 7
SLACK = 0.985  # a file within this share of its target is near enough
LOG_BYTES_PER_LOG_PRICE = 0.12  # a first guess
WIDEST = 20.0  # log price: beyond that far nothing changes any more

Error = Callable[[float], float]  # price -> predicted mean squared error of a picture
Psnr = Callable[[float], float]  # price -> rendered PSNR, dB
Files = Callable[[float], dict[str, bytes]]  # price -> files


def first_price(error: Error, loss_db: float) -> float:
    """The highest price whose predicted error is at most `loss_db` above that of the finest steps;
    a place to start from."""
    limit = error(FINEST) * 10 ** (loss_db / 10)
    low, high = math.log(FINEST), math.log(DEAREST)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if error(math.exp(middle)) <= limit else (low, middle)
    return math.exp(low)


def fit_psnr(psnr: Psnr, target_db: float, error: Error, finest_db: float | None = None) -> float:
    """The price whose rendered PSNR is `target_db`, within NEAR_DB where steps allow it, and never
    below it by more.

    The error above that of the finest steps grows as a power of the price: a secant search over
    logarithms. Raises InvalidInput where even the finest steps fall short of the target.
    """
    best = psnr(FINEST) if finest_db is None else finest_db
    if target_db > best:
        raise InvalidInput(
            f"target_psnr: {target_db:g} dB; SOG's finest steps reach {best:.1f} dB on this scene.",
            code="target_unreachable",
            next_step=f"Ask for at most {math.floor(best * 10) / 10:g} dB, or for a preset.",
        )
    least = _error_of(best)

    def excess(db: float) -> float:  # logarithm; a little coarser may happen to look finer
        return math.log(max(_error_of(db) - least, 1e-3 * least))

    wanted = excess(target_db)
    good = math.log(FINEST)
    at, power = math.log(first_price(error, best - target_db)), 1.0
    previous: tuple[float, float] | None = None
    for _ in range(PSNR_ATTEMPTS):
        found = psnr(math.exp(at))
        if found >= target_db - NEAR_DB:
            good = max(good, at)
            if found <= target_db + NEAR_DB:
                break
        if previous is not None and abs(at - previous[0]) > 1e-6:
            slope = (excess(found) - previous[1]) / (at - previous[0])
            power = min(max(slope, 0.4), 2.0)
        previous = at, excess(found)
        at += (wanted - previous[1]) / power
    return math.exp(good)


def _error_of(db: float) -> float:
    return float(10 ** (-db / 10))


def fit_bytes(
    files: Files, target: int, start: float, overhead: int = 0
) -> tuple[float, dict[str, bytes]]:
    """(the lowest price found whose files and `overhead` take at most `target` bytes, those files).

    The logarithm of the size falls nearly linearly with that of the price: a secant search over
    real files. Raises InvalidInput that names the smallest size reached.
    """
    fits: tuple[float, dict[str, bytes]] | None = None
    low, high = math.log(FINEST), math.log(DEAREST)  # too large at low, fits at high
    at, steepness = math.log(start), LOG_BYTES_PER_LOG_PRICE
    previous: tuple[float, float] | None = None
    for _ in range(BYTES_ATTEMPTS):
        made = files(math.exp(at))
        length = overhead + sum(map(len, made.values()))
        if length <= target:
            high = min(high, at)
            if fits is None or math.exp(at) < fits[0]:
                fits = math.exp(at), made
            if length >= SLACK * target:
                break
        else:
            low = max(low, at)
        excess = math.log(length / (target * (1 + SLACK) / 2))
        if previous and abs(at - previous[0]) > 1e-3:
            slope = (previous[1] - excess) / (at - previous[0])
            steepness = min(max(slope, 0.01), 1.0)
        previous = at, excess
        at += excess / steepness
        if not low < at < high:  # a jump beyond what is known: to the middle of it
            at = (max(low, high - WIDEST) + min(high, low + WIDEST)) / 2
    if fits is None:
        fits = DEAREST, files(DEAREST)
    length = overhead + sum(map(len, fits[1].values()))
    if length > target:
        raise InvalidInput(
            f"target_bytes: {target}; this scene takes at least {length}.",
            code="target_unreachable",
            next_step=f"Allow {length} bytes, cut sh_degree, or drop splats.",
        )
    return fits
