"""The Khronos glTF validator finds no fault in what the pipeline writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.context import InputFile, PipelineResult
from models.image_to_mesh.finishing.coloured import ColouredMesh, encode_coloured_glb


@pytest.mark.node
@pytest.mark.parametrize("texture_format", ["jpeg", "png"])
def test_sample_has_no_issues(
    texture_format: str,
    validate: Callable[[Path], dict],
    run: Callable[..., PipelineResult],
    samples: Path,
) -> None:
    robot = InputFile(samples / "robot.png", "robot.png")
    issues = validate(run([robot], texture_format=texture_format).artifacts[0].path)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


@pytest.mark.node
def test_validator_sees_a_planted_fault(
    validate: Callable[[Path], dict],
    run: Callable[..., PipelineResult],
    samples: Path,
    tmp_path: Path,
) -> None:
    data = run([InputFile(samples / "robot.png", "robot.png")]).artifacts[0].path.read_bytes()
    broken = tmp_path / "broken.glb"
    broken.write_bytes(data.replace(b'"metallicFactor":0.0', b'"metallicFactor":7.0'))
    assert validate(broken)["numErrors"] > 0


@pytest.mark.node
def test_coloured_mesh_has_no_issues(
    validate: Callable[[Path], dict], rng: np.random.Generator, tmp_path: Path
) -> None:
    corners = rng.uniform(-0.5, 0.5, (4, 3)).astype(np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32)
    path = tmp_path / "coloured.glb"
    path.write_bytes(encode_coloured_glb(ColouredMesh(corners, faces, corners + 0.5)))
    issues = validate(path)
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues["messages"]
