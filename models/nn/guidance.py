"""Classifier-free guidance: one velocity out of those under several conditions.

It knows velocities as tensors and conditions as things a network takes; not time schedules, not
what a condition shows. Ho & Salimans, "Classifier-Free Diffusion Guidance" (2022); the interval:
Kynkäänniemi et al., "Applying Guidance in a Limited Interval" (2024); the rescaling: Lin et al.,
"Common Diffusion Noise Schedules and Sample Steps are Flawed" (2023), sec. 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

SIGMA_MIN = 1e-5
"""Noise left in a sample at t = 0 in the flows these networks were trained on."""

Mixing = Literal["stochastic", "multidiffusion"]
"""How several images condition one sample: one of them each step in turn, or the mean of all."""


@dataclass(frozen=True)
class Guidance:
    """velocity = weight * v(condition) + (1 - weight) * v(negative); a weight of 1 is none.

    interval: guide where low <= t <= high, both included; elsewhere the condition alone counts.
    rescale:  from 0 to 1: how far the predicted sample's spread is brought back to that of the
              conditional prediction, which strong guidance widens.
    """

    weight: float
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    @classmethod
    def added(cls, strength: float, interval: tuple[float, float] = (0.0, 1.0)) -> Guidance:
        """TRELLIS counts from zero: (1 + strength) * v(condition) - strength * v(negative)."""
        return cls(1 + strength, interval)

    def acts_at(self, t: float) -> bool:
        low, high = self.interval
        return self.weight != 1 and low <= t <= high

    def combine(
        self,
        positive: Tensor,  # [B, ...], or [N, C] with `rows`: velocity under the condition
        negative: Tensor,  # of the same shape
        x: Tensor,  # of the same shape: the sample at t
        t: float,
        rows: Sequence[slice] | None = None,  # of a packed sample: the rows of each item
    ) -> Tensor:
        velocity = self.weight * positive + (1 - self.weight) * negative
        if self.rescale == 0:
            return velocity
        target, guided = predict_x0(x, positive, t), predict_x0(x, velocity, t)
        matched = guided * (spread(target, rows) / spread(guided, rows))
        return velocity_to(x, torch.lerp(guided, matched, self.rescale), t)


def predict_x0(x: Tensor, velocity: Tensor, t: float) -> Tensor:
    """The sample at t = 0 that x at t and its velocity point to."""
    return (1 - SIGMA_MIN) * x - (SIGMA_MIN + (1 - SIGMA_MIN) * t) * velocity


def velocity_to(x: Tensor, x0: Tensor, t: float) -> Tensor:
    """The velocity at t whose prediction is x0: undoes `predict_x0`."""
    return ((1 - SIGMA_MIN) * x - x0) / (SIGMA_MIN + (1 - SIGMA_MIN) * t)


def spread(x: Tensor, rows: Sequence[slice] | None) -> Tensor:
    """Standard deviation of each item, in a shape that broadcasts to x."""
    if rows is None:
        return x.std(dim=tuple(range(1, x.ndim)), keepdim=True)
    lengths = torch.tensor([item.stop - item.start for item in rows])
    each = torch.stack([x[item].std() for item in rows])
    return each.repeat_interleave(lengths.to(x.device), output_size=x.shape[0])[:, None]


def conditions_at(step: int, conditions: Sequence[object], mixing: Mixing) -> Sequence[object]:
    """Those whose mean velocity counts at this step."""
    return conditions if mixing == "multidiffusion" else [conditions[step % len(conditions)]]
