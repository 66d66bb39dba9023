"""The Khronos glTF validator, called through Node.js.

`npm ci --ignore-scripts` in this folder brings it. Knows no test; where it is absent the one that
asks for it is skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = """
const { validateBytes } = require('gltf-validator');
const { readFileSync } = require('fs');
validateBytes(new Uint8Array(readFileSync(process.argv[1])))
  .then((report) => console.log(JSON.stringify(report.issues)));
"""


def gltf_validator() -> Callable[[Path], dict]:
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
