"""Requests as steps, and steps' outcomes as one result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from service.jobs.records import Step
from service.jobs.steps import combined, handed_on, plan, published
from service.pipeline_options import validate_options
from service.pipelines import find_pipeline

TRELLIS = find_pipeline("mesh", "trellis")


@dataclass(frozen=True)
class Made:
    name: str


def steps_of(**options: Any) -> tuple[Step, ...]:
    return plan(TRELLIS, validate_options(TRELLIS, options))


def test_a_mesh_is_one_step_without_options_of_another() -> None:
    (step,) = steps_of(formats=["glb", "splat"], faces=5000)
    assert (step.pipeline, step.options["formats"]) == ("trellis", ["glb", "splat"])
    assert set(step.options) == set(TRELLIS.options.model_fields)


def test_a_sog_is_a_second_step_that_reads_the_gaussians() -> None:
    first, second = steps_of(formats=["glb", "sog"], preset="tiny", seed=3)
    assert first.options["formats"] == ["glb", "splat"]
    assert second.options["formats"] == ["sog"] and second.options["preset"] == "tiny"
    assert first.options["seed"] == second.options["seed"] == 3
    made = [Made("mesh.glb"), Made("scene.splat.ply")]
    assert handed_on(second, made) == [Made("scene.splat.ply")]
    result = published((first, second), [made, [Made("scene.sog"), Made("preview.webp")]])
    assert [file.name for file in result] == ["mesh.glb", "scene.sog", "preview.webp"]


def test_gaussians_that_were_asked_for_stay_in_the_result() -> None:
    steps = steps_of(formats=["spz", "splat"])
    assert steps[0].options["formats"] == ["splat"] and steps[0].hidden == ()
    result = published(steps, [[Made("scene.splat.ply")], [Made("scene.spz")]])
    assert [file.name for file in result] == ["scene.spz", "scene.splat.ply"]


@pytest.mark.parametrize("later", ["sog", "loose", "lod", "compressed", "spz"])
def test_every_format_of_the_splat_task_can_follow(later: str) -> None:
    assert steps_of(formats=[later])[1].options["formats"] == [later]


def test_the_report_joins_warnings_and_keeps_the_choice() -> None:
    choice = {"asked": "auto", "pipeline": "trellis", "reason": "it can"}
    options = validate_options(TRELLIS, {"formats": ["sog"]})
    steps = plan(TRELLIS, options, choice=choice)
    reports = [{"voxels": 5, "warnings": ["a"]}, {"warnings": ["b"], "splats": 7}]
    assert combined(steps, reports) == {
        "trellis": reports[0],
        "sog": reports[1],
        "warnings": ["a", "b"],
        "choice": choice,
    }
    (alone,) = plan(TRELLIS, validate_options(TRELLIS, {}), choice=choice)
    assert combined((alone,), [{"voxels": 5}]) == {"voxels": 5, "choice": choice}
