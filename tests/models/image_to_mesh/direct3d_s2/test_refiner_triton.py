"""The refiners' kernels compile for every card that is served, and compute what PyTorch does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.image_to_mesh.direct3d_s2 import adaptive, group_norm
from models.nn.backends import use_backends
from models.nn.fused.functional import computed_in
from tests.models.nn.test_triton_compile import SERVED, SHARED_LIMIT, reports

ROOT = Path(__file__).resolve().parents[4]
FOLDER = "../image_to_mesh/direct3d_s2"


def smoothing() -> list[dict]:
    types = dict.fromkeys(("x", "weights", "out"), "*fp16")
    types |= dict.fromkeys(("channels", "size_x", "size_y", "size_z"), "i32")
    case = {"module": f"{FOLDER}/adaptive_triton", "kernel": "smooth", "types": types}
    return [
        case | {"constants": {"BLOCK": adaptive.BLOCK, "CHANNELS": channels}} for channels in (1, 8)
    ]


def norm() -> list[dict]:
    folder, block = f"{FOLDER}/group_norm_triton", {"BLOCK": group_norm.BLOCK}
    tables = dict.fromkeys(("means", "squares"), "*fp32")
    affine = dict.fromkeys(("weight", "bias"), "*fp32")
    sizes = dict.fromkeys(("channels", "width", "voxels", "parts", "span", "steps"), "i32")
    first = {"x": "*fp16"} | tables | dict.fromkeys(("numbers", "steps"), "i32")
    second = {"x": "*fp16"} | tables | affine | {"out": "*fp16"} | sizes | {"eps": "fp32"}
    return [
        {"module": folder, "kernel": "part_moments", "types": first, "constants": block},
        {
            "module": folder,
            "kernel": "norm_silu",
            "types": second,
            "constants": block | {"PARTS": group_norm.PROGRAMS},
        },
    ]


@pytest.mark.parametrize(("version", "capability"), SERVED)
def test_kernels_fit_and_do_not_spill(version: str, capability: int, tmp_path: Path) -> None:
    cases = [case | {"warps": 4, "stages": 3} for case in (*smoothing(), *norm())]
    for report in reports(version, capability, cases, tmp_path):
        assert report["shared"] <= SHARED_LIMIT[capability], report
        assert (report["stack"], report["local"]) == (0, 0), report


def test_interpreted_on_a_cpu(rng: np.random.Generator) -> None:
    program = Path(__file__).with_name("interpret_refiner.py")
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
    assert len(errors) == 7
    for name, error in errors.items():
        # fp32 sums of 27 products; of a group nine times as far from zero as it is wide; fp16's own
        exact = 3e-6 if name.startswith("normed") else 1e-6
        assert error < (1e-3 if "fp16" in name else exact), (name, error)


@pytest.mark.parametrize(
    ("capability", "dtype", "sparse", "by"),
    [
        ((9, 0), torch.bfloat16, "auto", "ours"),
        ((7, 5), torch.float16, "triton", "ours"),
        ((7, 5), torch.bfloat16, "auto", "PyTorch"),
        ((9, 0), torch.float16, "torch", "PyTorch"),
    ],
)
def test_who_computes(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    dtype: torch.dtype,
    sparse: str,
    by: str,
) -> None:
    """Cards before sm_80 have no instructions for bf16; PyTorch computes it there all the same."""
    computed_in.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for module, plain in ((group_norm, "plain"), (adaptive, "smoothed_by_taps")):
        monkeypatch.setattr(module, "launch", lambda *given: "ours")
        monkeypatch.setattr(module, plain, lambda *given: "PyTorch")
    x = SimpleNamespace(is_cuda=True, dtype=dtype, device=torch.device("cuda", 0))
    x.contiguous = lambda: x
    with use_backends(sparse=sparse):
        assert group_norm.GroupNormSiLU(2, 4).forward(x) == by
        assert adaptive._smoothed(x, x) == by
    computed_in.cache_clear()
