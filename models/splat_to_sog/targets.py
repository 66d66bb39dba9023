"""Targets: the price of a bit at which the result looks, or weighs, as was asked for.

Does not know scenes or files: it is given a function that makes the result at a price and says what
came of it, and one that predicts that. A prediction is off by about the same factor at all prices,
so that the first attempt says where the second has to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from models.context import InvalidInput
from models.splat_to_sog.presets import DEAREST, FINEST

Made = TypeVar("Made")
Attempt = Callable[[float], tuple[float, Made]]  # price -> (PSNR in dB or bytes, what was made)
Predicted = Callable[[float], float]  # price -> the same figure, as predicted

ATTEMPTS = 8  # most scenes need two or three
BISECTIONS = 32
NEAR_DB = 0.1  # a PSNR this little above its target meets it
NEAR_SHARE = 0.975  # a size from this share of its target up to all of it meets it
WIDEST = 20.0  # log price: beyond that far nothing changes any more
SAME = 1e-3  # log price: steps are the same
SLOPES = 0.3, 3.0  # of what is found against what was predicted

LOG_FINEST, LOG_DEAREST = math.log(FINEST), math.log(DEAREST)


def fit_psnr(
    attempt: Attempt[Made], target_db: float, predicted_db: Predicted
) -> tuple[float, Made]:
    """(the price whose PSNR is from `target_db` to NEAR_DB above, what was made at it).

    Never below the target; further above only where the steps leap over it. Raises InvalidInput
    where even the finest steps fall short.
    """
    search = _Search(
        lambda price: _negative(attempt(price)),
        lambda price: -predicted_db(price),
        window=(-target_db - NEAR_DB, -target_db),
        fits=lambda value: value <= -target_db,
    )
    search.run()
    if search.best is None and LOG_FINEST not in search.tried:
        search.make(LOG_FINEST)
    if search.best is None:
        best = -search.tried[LOG_FINEST]
        raise InvalidInput(
            f"target_psnr: {target_db:g} dB; SOG's finest steps reach {best:.1f} dB on this scene.",
            code="target_unreachable",
            next_step=f"Ask for at most {math.floor(best * 10) / 10:g} dB, or for a preset.",
        )
    return search.best


def fit_loss(
    attempt: Attempt[Made], finest: tuple[float, Made], loss_db: float, predicted_db: Predicted
) -> tuple[float, Made]:
    """(the price whose PSNR is `loss_db` below that of the finest steps, within NEAR_DB, what was
    made at it); where the steps leap over that, less is lost.

    Compared is the error above that of the finest steps, which grows as a power of the price.
    """
    best = finest[0]

    def value(db: float, least: float) -> float:  # a little coarser may happen to look finer
        return 10 * math.log10(max(_error(db) - _error(least), 1e-3 * _error(least)))

    def seen(price: float) -> tuple[float, Made]:
        db, made = attempt(price)
        return value(db, best), made

    least = predicted_db(FINEST)
    window = value(best - loss_db + NEAR_DB, best), value(best - loss_db - NEAR_DB, best)
    search = _Search(
        seen,
        lambda price: value(predicted_db(price), least),
        window,
        fits=lambda value: value <= window[1],
    )
    search.run()
    return search.best or (FINEST, finest[1])


def _error(db: float) -> float:
    return float(10 ** (-db / 10))


def fit_bytes(
    attempt: Attempt[Made], target: int, predicted_bytes: Predicted
) -> tuple[float, Made]:
    """(the price whose result takes at most `target` bytes and at least NEAR_SHARE of them, that).

    Smaller only where the steps leap over that, or where the finest take less. Raises InvalidInput
    that names the smallest size there is.
    """
    search = _Search(
        lambda price: _log_shrink(attempt(price), target),
        lambda price: -math.log(predicted_bytes(price) / target),
        window=(0.0, -math.log(NEAR_SHARE)),
        fits=lambda value: value >= 0,
    )
    search.run()
    if search.best is None and LOG_DEAREST not in search.tried:
        search.make(LOG_DEAREST)
    if search.best is None:
        least = round(target * math.exp(-search.tried[LOG_DEAREST]))
        raise InvalidInput(
            f"target_bytes: {target}; this scene takes at least {least}.",
            code="target_unreachable",
            next_step=f"Allow {least} bytes, cut sh_degree, or drop splats.",
        )
    return search.best


def _negative(found: tuple[float, Made]) -> tuple[float, Made]:
    return -found[0], found[1]


def _log_shrink(found: tuple[float, Made], target: int) -> tuple[float, Made]:
    return -math.log(found[0] / target), found[1]


class _Search(Generic[Made]):
    """Attempts at prices whose value, which grows with the price, comes ever nearer to a window.

    tried: value by log price; best: the last word of those that fit, as near to the window as any.
    """

    def __init__(
        self,
        attempt: Attempt[Made],
        predicted: Predicted,
        window: tuple[float, float],
        fits: Callable[[float], bool],
    ) -> None:
        self.attempt, self.predicted, self.fits = attempt, predicted, fits
        self.low, self.high = window
        self.middle = sum(window) / 2
        self.tried: dict[float, float] = {}
        self.best: tuple[float, Made] | None = None
        self._best_gap = math.inf

    def run(self) -> None:
        for _ in range(ATTEMPTS):
            at = self._next()
            if any(abs(at - other) < SAME for other in self.tried) or self._met():
                return
            self.make(at)

    def make(self, at: float) -> None:
        self.learn(at, *self.attempt(math.exp(at)))

    def learn(self, at: float, value: float, made: Made) -> None:
        self.tried[at] = value
        gap = abs(value - self.middle)
        if self.fits(value) and gap < self._best_gap:
            self.best, self._best_gap = (math.exp(at), made), gap

    def _met(self) -> bool:
        return any(self.low <= value <= self.high for value in self.tried.values())

    def _next(self) -> float:
        """Where the prediction, corrected by what was found, is in the middle of the window."""
        near = sorted(self.tried, key=lambda at: abs(self.tried[at] - self.middle))[:2]
        want = self.middle
        if near:
            known, value = self._predicted(near[0]), self.tried[near[0]]
            want = known + (self.middle - value) / self._slope(near)
        at = self._price_of(want)
        under = [t for t, value in self.tried.items() if value < self.middle]
        over = [t for t, value in self.tried.items() if value >= self.middle]
        low, high = max(under, default=LOG_FINEST), min(over, default=LOG_DEAREST)
        last = list(self.tried)[-2:]
        between = bool(under and over)
        stuck = between and (set(last) <= set(under) or set(last) <= set(over))
        beyond = at <= low and bool(under) or at >= high and bool(over)
        if not stuck and not beyond:
            return at
        if between:  # to the middle of what is known, by prediction
            at = self._price_of((self._predicted(low) + self._predicted(high)) / 2)
            if low + SAME < at < high - SAME:
                return at
        return (max(low, high - WIDEST) + min(high, low + WIDEST)) / 2

    def _slope(self, near: Sequence[float]) -> float:
        if len(near) < 2:
            return 1.0
        run = self._predicted(near[0]) - self._predicted(near[1])
        if abs(run) < 1e-6:
            return 1.0
        rise = self.tried[near[0]] - self.tried[near[1]]
        return min(max(rise / run, SLOPES[0]), SLOPES[1])

    def _predicted(self, at: float) -> float:
        return self.predicted(math.exp(at))

    def _price_of(self, value: float) -> float:
        """The highest log price whose predicted value is at most this."""
        low, high = LOG_FINEST, LOG_DEAREST
        if self._predicted(high) <= value:
            return high
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._predicted(middle) <= value else (low, middle)
        return low
