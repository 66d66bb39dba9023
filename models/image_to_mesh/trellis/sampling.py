"""What a job asks of the two samplers, and how their steps are told to whoever watches.

It knows options and settings; not what is sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from models.context import JsonValue
from models.image_to_mesh.options import ReconViaGenOptions, TrellisOptions
from models.image_to_mesh.stopwatch import Stopwatch
from models.image_to_mesh.trellis.release import Release, SamplerSettings
from models.nn.samplers import Step

T = TypeVar("T")

Samplers = tuple[SamplerSettings, SamplerSettings]
"""Of the structure, and of the latent."""


def samplers_for(release: Release, options: TrellisOptions | ReconViaGenOptions) -> Samplers:
    """What was asked of each, else of both, else the release's own."""

    def chosen(own: SamplerSettings, steps: int | None, guidance: float | None) -> SamplerSettings:
        return replace(
            own,
            steps=_first(steps, options.steps, own.steps),
            cfg_strength=_first(guidance, options.guidance, own.cfg_strength),
        )

    return (
        chosen(release.structure_sampler, options.structure_steps, options.structure_guidance),
        chosen(release.latent_sampler, options.latent_steps, options.latent_guidance),
    )


def _first(*values: T | None) -> T:
    """The first that was given."""
    return next(value for value in values if value is not None)


def each_step(watch: Stopwatch, start: float, end: float) -> Callable[[Step], None]:
    """Progress from `start` to `end` of the whole, step by step; a cancelled job ends between."""

    def on_step(step: Step) -> None:
        watch.advance(start + (end - start) * step.done / step.total, f"{step.done}/{step.total}")

    return on_step


def sampler_facts(samplers: Samplers) -> dict[str, JsonValue]:
    """For a report."""
    names = ("structure", "latent")
    return {
        name: {"steps": sampler.steps, "guidance": sampler.cfg_strength}
        for name, sampler in zip(names, samplers, strict=True)
    }
