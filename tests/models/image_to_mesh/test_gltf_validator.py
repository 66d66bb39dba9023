"""The Khronos glTF validator finds no fault in what the pipeline writes.

`npm ci --ignore-scripts` in this folder brings it. Without it or Node.js the tests skip and say
why.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.context import InputFile, PipelineResult
from models.image_to_mesh.finishing.coloured import ColouredMesh, encode_coloured_glb

HERE = Path(__file__).parent
SCRIPT = """
const { validateBytes } = require('gltf-validator');
const { readFileSync } = require('fs');
validateBytes(new Uint8Array(readFileSync(process.argv[1])))
  .then((report) => console.log(JSON.stringify(report.issues)));
"""


@pytest.fixture(scope="module")
def validate() -> Callable[[Path], dict]:
    """validate(path) -> the validator's issues: counts by severity, and messages."""
    node = shutil.which("node")
    missing = None
    if node is None:
        missing = "Node.js absent"
    elif not (HERE / "node_modules" / "gltf-validator").is_dir():
        missing = (
            "gltf-validator absent: run 'npm ci --ignore-scripts' in tests/models/image_to_mesh"
        )
    if missing is not None:
        pytest.skip(missing)

    def run(path: Path) -> dict:
        done = subprocess.run(
            [str(node), "-e", SCRIPT, str(path)],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return json.loads(done.stdout)

    return run


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
