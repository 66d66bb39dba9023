"""Euler sampling of a flow: from noise at t = 1 to a sample at t = 0 along predicted velocities.

It knows velocities as tensors; not the network behind them, nor whether its tokens are voxels.
Lipman et al., "Flow Matching for Generative Modeling" (2023); Liu et al., "Flow Straight and Fast"
(2023). Times are those of the checkpoints: `rescaled_times` or `shifted_times`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.context import Unavailable
from models.nn.guidance import Guidance, Mixing, conditions_at, predict_x0
from models.nn.velocity import Condition, Velocity


def rescaled_times(steps: int, rescale_t: float = 1.0) -> list[float]:
    """`steps + 1` times from 1 to 0: t -> r t / (1 + (r - 1) t) of equal steps.

    r above 1 spends more of them near the noise, where the shape is decided.
    """
    _check_steps(steps)
    even = [i * (-1.0 / steps) + 1.0 for i in range(steps)] + [0.0]
    return [rescale_t * t / (1 + (rescale_t - 1) * t) for t in even]


def shifted_times(steps: int, shift: float, trained_steps: int = 1000) -> list[float]:
    """`steps + 1` times from 1 to 0 as Direct3D-S2 spaces them.

    The shift acts twice, as in the scheduler it was trained with: it moves the last of the
    `trained_steps` times, down to which the steps are equal, and then each of these.
    Esser et al., "Scaling Rectified Flow Transformers" (2024), eq. 23.
    """
    _check_steps(steps)

    def shifted(t: float) -> float:
        return shift * t / (1 + (shift - 1) * t)

    last = shifted(1 / trained_steps)
    gap = (1 - last) / max(steps - 1, 1)
    return [shifted(1 - i * gap) for i in range(steps)] + [0.0]


@dataclass(frozen=True)
class Step:
    """One step taken: from `x` at `t` along `velocity` to `x_next`; `done` of `total` are over."""

    done: int
    total: int
    t: float
    x: Tensor
    velocity: Tensor
    x_next: Tensor

    @property
    def x0(self) -> Tensor:
        """The sample that this step pointed to: a preview of the result."""
        return predict_x0(self.x, self.velocity, self.t)


@torch.no_grad()
def sample(
    velocity: Velocity,
    noise: Tensor,  # [B, ...], or [N, C] with `rows`; fp32
    conditions: Sequence[Condition],  # one, or one for each image
    *,
    times: Sequence[float],  # from 1 to 0, one more than steps
    negative: Condition = None,
    guidance: Guidance | None = None,
    mixing: Mixing = "stochastic",
    rows: Sequence[slice] | None = None,  # of a packed sample: the rows of each item
    on_step: Callable[[Step], None] | None = None,
) -> Tensor:  # of the shape of `noise`
    """Steps through `times`, guided by `negative` where `guidance` acts.

    on_step: called after every step; what it raises ends the sampling. On CUDA it is called when
    the step before has been computed, so that the device never waits for it.
    Raises Unavailable where the sample is not finite.
    """
    if not conditions:
        raise ValueError("sampling needs at least one condition")
    total, x, pace = len(times) - 1, noise, Pace(noise.device)
    for i, (t, t_next) in enumerate(zip(times, times[1:], strict=False)):
        positives = conditions_at(i, conditions, mixing)
        guided = guidance is not None and guidance.acts_at(t)
        # 1. The velocity under each condition; that of several images is their mean.
        found = velocity(x, t, [*positives, negative] if guided else positives)
        v = mean(found[: len(positives)])
        # 2. Away from the negative.
        if guidance is not None and guided:
            v = guidance.combine(v, found[-1], x, t, rows)
        # 3. A step along it.
        x_next = x - (t - t_next) * v
        if on_step is not None:
            pace.wait()
            on_step(Step(i + 1, total, t, x, v, x_next))
        x = x_next
    if not x.isfinite().all():  # it would pass for an object without a shape
        raise Unavailable(
            "The network's numbers left the range of their format while it sampled.",
            code="sample_not_finite",
            next_step="Set MESHPRESS_DTYPE to float32, or to bfloat16 where the GPU has it.",
        )
    return x


def mean(velocities: Sequence[Tensor]) -> Tensor:
    return velocities[0] if len(velocities) == 1 else torch.stack([*velocities]).mean(0)


class Pace:
    """Keeps the host one step ahead of a CUDA device: reports are true, and it stays busy."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Until what was queued at the last call is done."""
        if self.device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        if self._before is not None:
            self._before.synchronize()
        self._before = event


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}: at least 1 is needed")
