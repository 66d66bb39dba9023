"""Triton kernels without a GPU: a program of the tests, run where Triton interprets them.

A process of its own, since Triton decides when a kernel is defined whether it interprets. It knows
no kernel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def interpreted(module: str, seed: int) -> Any:
    """What `python -m module seed` prints, which is JSON."""
    run = subprocess.run(
        [sys.executable, "-m", module, str(seed)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)
