"""Kernels of spatial sparse attention compile for every card that is served, without one.

As those of sparse convolution do in test_triton_compile.py: tiles fit the card's shared memory,
spill no register, and multiply on its matrix units.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.nn.spatial_sparse_attention.triton_tiles import Tile, choice_warps, tiles_of
from tests.models.nn.test_triton_compile import SERVED, SHARED_LIMIT, reports

GROUPS, SHARE, WIDTH = 2, 16, 32
"""Heads of keys, heads of queries for each, channels of a head: Direct3D-S2's."""

TYPES = {
    "attend_tiles": "q k v out sums:*fp32 table:*i32 rows:*i32 scale:fp32",
    "score_blocks": "q k sums:*fp32 table:*i32 scores:*fp32 first_tile:i32 columns:i32 scale:fp32",
    "choose_blocks": "scores:*fp32 table:*i32 among:*i32 children:*i32 chosen:*i32 first_tile:i32"
    " columns:i32",
    "attend_chosen": "q k v chosen:*i32 starts:*i32 seen near gates out scale:fp32",
}


def case(kernel: str, warps: int, stages: int, dtype: str, **constants: Any) -> dict[str, Any]:
    pairs = (word.partition(":") for word in TYPES[kernel].split())
    types = {name: kind or dtype for name, _, kind in pairs}
    return {
        "module": "spatial_sparse_attention/triton_kernels",
        "kernel": kernel,
        "types": types,
        "constants": {"GROUPS": GROUPS, **constants},
        "aligned": ["columns"] if "columns" in types else [],
        "warps": warps,
        "stages": stages,
    }


def products(capability: int, dtype: str) -> list[dict[str, Any]]:
    tiles = tiles_of(capability)
    heads = {"SHARE": SHARE, "WIDTH": WIDTH}

    def attend(tile: Tile, **branch: bool) -> dict[str, Any]:
        sizes = {"QUERIES": tile.rows // SHARE, "KEYS": tile.keys}
        return case("attend_tiles", tile.warps, tile.stages, dtype, **heads, **sizes, **branch)

    def chosen(topk: int) -> dict[str, Any]:
        sizes = {"HEADS": 16, "TOPK": topk, "SLOTS": topk, "KEYS": tiles.chosen.keys}
        tile = tiles.chosen
        return case("attend_chosen", tile.warps, tile.stages, dtype, **heads, **sizes, GATED=True)

    score = tiles.score
    return [
        attend(tiles.compression, BY_ROWS=False, WITH_SUMS=True),
        attend(tiles.window, BY_ROWS=True, WITH_SUMS=False),
        case(
            "score_blocks", score.warps, score.stages, dtype,
            **heads, QUERIES=score.rows, KEYS=score.keys,
        ),
        chosen(8),
        chosen(32),
    ]  # fmt: skip


def choices(capability: int) -> list[dict[str, Any]]:
    """Of the releases: v1.1, and v1.0 at 64^3 and 128^3; up to 512 and 4096 blocks."""
    tiles, found = tiles_of(capability), []
    for topk, size, children in ((8, 2048, 0), (8, 4096, 0), (32, 512, 8), (8, 4096, 8)):
        constants = {"QUERIES": tiles.score.rows, "TOPK": topk, "SIZE": size, "CHILDREN": children}
        found.append(case("choose_blocks", choice_warps(size), 3, "*fp16", **constants))
    return found


@pytest.mark.parametrize(("version", "capability"), SERVED)
def test_tiles_fit_and_do_not_spill(version: str, capability: int, tmp_path: Path) -> None:
    multiply = products(capability, "*fp16")
    if capability == 86:  # on others the same, but for the names of instructions
        multiply += products(capability, "*bf16")
    for report in (found := reports(version, capability, multiply + choices(capability), tmp_path)):
        assert report["shared"] <= SHARED_LIMIT[capability], report
        assert (report["stack"], report["local"]) == (0, 0), report
    assert all(report["mma"] or report["wgmma"] for report in found[: len(multiply)]), found
