"""The search for nearest points compiles for every card that is served, without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.image_to_mesh.finishing.closest_device import BLOCK, WARPS
from tests.models.nn.test_triton_compile import SERVED, SHARED_LIMIT, reports

TYPES = (
    "points:*fp32 normals:*fp32 table:*fp32 starts:*i32 items:*i32 side:fp32 count_x:i32"
    " count_y:i32 count_z:i32 bound:fp32 size:i32 faces:*i32 weights:*fp32 squares:*fp32"
)


@pytest.mark.parametrize(("version", "capability"), SERVED)
def test_search_fits_and_does_not_spill(version: str, capability: int, tmp_path: Path) -> None:
    case = {
        "module": "../image_to_mesh/finishing/closest_triton",
        "kernel": "nearest",
        "types": dict(word.split(":") for word in TYPES.split()),
        "constants": {"BLOCK": BLOCK},
        "warps": WARPS,
        "stages": 1,
    }
    (report,) = reports(version, capability, [case], tmp_path)
    assert report["shared"] <= SHARED_LIMIT[capability], report
    assert (report["stack"], report["local"]) == (0, 0), report
    assert not (report["mma"] or report["wgmma"])
