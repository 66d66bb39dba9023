"""The voxeliser's kernels compile for every card that is served, and compute what PyTorch does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.image_to_mesh.volumes import block_lists
from models.image_to_mesh.volumes import voxelise as module
from models.nn.backends import use_backends
from models.nn.fused.functional import computed_in
from tests.models.interpreted import interpreted
from tests.models.nn.test_triton_compile import SERVED, SHARED_LIMIT, reports

TYPES = {
    "table": "*fp32", "items": "*i32", "starts": "*i64", "corners": "*i32", "keeps": "*i8",
    "counts": "*i32", "ends": "*i64", "kept": "*i32", "distances": "*fp32",
    "resolution": "i32", "half": "i32", "band": "fp32", "reach": "fp32",
}  # fmt: skip
KERNELS = {
    "mark_kept": "table items starts corners keeps counts resolution half band reach",
    "gather_kept": "items starts keeps counts ends kept",
    "fill": "table items starts corners distances resolution",
}


def case(kernel: str, warps: int, **constants: int) -> dict:
    return {
        "module": "../image_to_mesh/volumes/voxelise_triton",
        "kernel": kernel,
        "types": {name: TYPES[name] for name in KERNELS[kernel].split()},
        "constants": constants,
        "warps": warps,
        "stages": 3,
    }


@pytest.mark.parametrize(("version", "capability"), SERVED)
def test_kernels_fit_and_do_not_spill(version: str, capability: int, tmp_path: Path) -> None:
    cases = [
        case(kernel, threads.warps, ROWS=threads.rows)
        for kernel in ("mark_kept", "gather_kept")
        for threads in (block_lists.FEW, block_lists.MANY)
    ]
    cases.append(case("fill", block_lists.FILLING_WARPS, EDGE=block_lists.FINEST))
    for report in reports(version, capability, cases, tmp_path):
        assert report["shared"] <= SHARED_LIMIT[capability], report
        assert (report["stack"], report["local"]) == (0, 0), report


def test_interpreted_on_a_cpu(rng: np.random.Generator) -> None:
    seed = int(rng.integers(2**31))
    errors = interpreted("tests.models.image_to_mesh.volumes.interpret_voxelise", seed)
    assert len(errors) == 5
    for name, error in errors.items():
        assert error["voxels"] > 0 and error["wrong"] == 0, (name, error)
        # fp32 places in a grid of 19, beside triangles as long as that
        assert error["distance"] < 1e-5, (name, error)
    assert errors["in parts"]["parts"] > 4 * errors["a crowd"]["parts"]


@pytest.mark.parametrize(
    ("device", "sparse", "by"),
    [("cuda:0", "auto", "_listed"), ("cuda:0", "torch", "_descended"), ("cpu", "auto", "_filled")],
)
def test_who_computes(monkeypatch: pytest.MonkeyPatch, device: str, sparse: str, by: str) -> None:
    """On any card: the arithmetic is fp32 alone."""
    computed_in.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    given = torch.device(device)
    vertices = SimpleNamespace(device=given, is_cuda=given.type == "cuda", dtype=torch.float32)
    with use_backends(sparse=sparse):
        assert module._search_of(vertices) is getattr(module, by)
    computed_in.cache_clear()
