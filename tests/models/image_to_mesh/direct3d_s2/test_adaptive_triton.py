"""The smoothing kernel compiles for every card that is served, and computes what taps do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.image_to_mesh.direct3d_s2.adaptive import BLOCK
from tests.models.nn.test_triton_compile import SERVED, SHARED_LIMIT, reports

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize(("version", "capability"), SERVED)
def test_smoothing_fits_and_does_not_spill(version: str, capability: int, tmp_path: Path) -> None:
    types = dict.fromkeys(("x", "weights", "out"), "*fp16")
    types |= dict.fromkeys(("channels", "size_x", "size_y", "size_z"), "i32")
    cases = [
        {
            "module": "../image_to_mesh/direct3d_s2/adaptive_triton",
            "kernel": "smooth",
            "types": types,
            "constants": {"BLOCK": BLOCK, "CHANNELS": channels},
            "warps": 4,
            "stages": 3,
        }
        for channels in (1, 8)
    ]
    for report in reports(version, capability, cases, tmp_path):
        assert report["shared"] <= SHARED_LIMIT[capability], report
        assert (report["stack"], report["local"]) == (0, 0), report


def test_interpreted_on_a_cpu(rng: np.random.Generator) -> None:
    program = Path(__file__).with_name("interpret_adaptive.py")
    done = subprocess.run(
        [sys.executable, str(program), str(rng.integers(2**31))],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    # fp32 sums of 27 products; one rounding of fp16
    assert all(error < (1e-3 if "fp16" in name else 1e-6) for name, error in errors.items()), errors
