"""The Khronos glTF validator finds no fault in what the pipeline writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models.context import InputFile, PipelineResult
from models.image_to_mesh.finishing.finish import FinishOptions, finish
from models.image_to_mesh.finishing.glb import encode_glb
from models.image_to_mesh.finishing.mesh import TexturedMesh
from tests.models.image_to_mesh.finishing.bumpy import bumpy


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


@pytest.fixture(scope="module")
def textured() -> TexturedMesh:
    return finish(bumpy(5), FinishOptions(1000, 256)).mesh


@pytest.mark.node
@pytest.mark.parametrize("normal_map", [True, False])
@pytest.mark.parametrize("compression", ["none", "quantize", "meshopt", "draco"])
@pytest.mark.parametrize("texture_format", ["jpeg", "png", "webp"])
def test_finished_mesh_has_no_issues(
    texture_format: str,
    compression: str,
    normal_map: bool,
    textured: TexturedMesh,
    validate: Callable[[Path], dict],
    tmp_path: Path,
) -> None:
    """Packed data the validator cannot read: it says so, and judges all that is around it."""
    mesh = textured if normal_map else replace(textured, normal_map=None, tangents=None)
    path = tmp_path / "mesh.glb"
    path.write_bytes(encode_glb(mesh, texture_format, compression=compression))
    issues = validate(path)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]
    said = {message["code"] for message in issues["messages"]}
    unread = {"draco": {"UNSUPPORTED_EXTENSION", "UNUSED_OBJECT"}}
    assert said <= (unread | {"meshopt": {"UNSUPPORTED_EXTENSION"}}).get(compression, set())
