"""Kernels of sparse convolution compile for every card that is served, without one.

Each with the Triton of its stack, and 3.6: looked for in the folders of TRITONS (colon-separated),
where `.ci/run` installs them; without them these skip. Tiles must fit the card's shared memory and
spill no register.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from models.nn.sparse_conv.triton_tiles import Tile, tiles_of

SHARED_LIMIT = {75: 64 << 10, 86: 99 << 10, 90: 227 << 10, 120: 99 << 10}  # bytes a block
SERVED = [("3.2", 75), *((triton, card) for triton in ("3.4", "3.6") for card in (86, 90, 120))]
"""From 3.4 on Triton uses no matrix units of sm_75; 3.2 knows no sm_120 and aborts."""

TYPES = {
    "implicit_gemm": "features weight table:*i32 masks:*i32 rows:*i32 bias residual out padded:i32",
    "sum_splits": "partial:*fp32 rows:*i32 bias residual out padded:i32",
    "search_neighbours": "keys:*i64 known:*i64 known_rows:*i64 table:*i32 n:i32"
    " step_x:i64 step_y:i64",
    "rank_rows": "table:*i32 masks:*i32 ranks:*i32 n:i32",
    "arrange_rows": "table:*i32 masks:*i32 order:*i64 arranged:*i32 arranged_masks:*i32 rows:*i32"
    " n:i32 padded:i32",
}
NAMES = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}


def case(kernel: str, dtype: torch.dtype, constants: dict[str, Any], tile: Tile | None = None):
    pairs = (word.partition(":") for word in TYPES[kernel].split())
    types = {name: kind or NAMES[dtype] for name, _, kind in pairs}
    if constants.get("SPLITS", 1) > 1 and kernel == "implicit_gemm":
        types["out"] = "*fp32"
    kernels = (
        "triton_kernels" if kernel in ("implicit_gemm", "sum_splits") else "triton_map_kernels"
    )
    return {
        "module": f"sparse_conv/{kernels}",
        "kernel": kernel,
        "types": types,
        "constants": constants,
        "aligned": ["padded"] if "padded" in types else [],
        "warps": tile.warps if tile else 4,
        "stages": tile.stages if tile else 3,
    }  # fmt: skip


def gemm(
    dtype: torch.dtype, tile: Tile, *, channels: int = 384, splits: int = 1, precision: str = "ieee"
):
    constants = {
        "IN": channels, "OUT": 2 * tile.width, "OUT_STRIDE": 27 * channels,
        "OFFSET_STRIDE": channels, "IN_STRIDE": 1, "HAS_BIAS": splits == 1,
        "HAS_RESIDUAL": splits == 1, "PRECISION": precision, "WIDE": False,
        "BLOCK_M": tile.rows, "BLOCK_N": tile.columns, "TAIL_N": tile.tail,
        "BLOCK_K": tile.depth, "SPLITS": splits,
    }  # fmt: skip
    return case("implicit_gemm", dtype, constants, tile)


def others(dtype: torch.dtype):
    sums = {"OUT": 96, "HAS_BIAS": True, "HAS_RESIDUAL": True, "SPLITS": 6}
    return [
        case("sum_splits", dtype, sums | {"BLOCK_M": 32, "BLOCK_N": 64}),
        case("search_neighbours", dtype, {"ROUNDS": 18, "BLOCK": 128}),
        case("rank_rows", dtype, {"VOLUME": 27, "BLOCK": 128}),
        case("arrange_rows", dtype, {"BLOCK": 128}),
    ]


def folder_of(version: str) -> Path:
    for folder in filter(None, os.environ.get("TRITONS", "").split(":")):
        found = next(Path(folder).glob("triton-*.dist-info"))
        if re.match(rf"triton-{re.escape(version)}\.", found.name):
            return Path(folder)
    pytest.skip(f"TRITONS names no Triton {version}: nothing to compile with")


def reports(version: str, capability: int, cases: list, cache: Path) -> list[dict[str, Any]]:
    run = subprocess.run(
        [sys.executable, Path(__file__).parent / "compile_triton.py", folder_of(version),
         str(capability)],
        input=json.dumps(cases), capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "TRITON_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


@pytest.mark.parametrize(("version", "capability"), SERVED)
def test_tiles_fit_and_do_not_spill(version: str, capability: int, tmp_path: Path) -> None:
    half = tiles_of(capability, torch.float16)
    products = [gemm(torch.float16, tile) for tile in half]
    products.append(gemm(torch.float16, half[-1], channels=40, splits=3))
    single = tiles_of(capability, torch.float32)
    exact = [gemm(torch.float32, single[-1])] if capability < 80 else []
    if capability >= 80:
        products.append(gemm(torch.bfloat16, half[-1]))
        products += [gemm(torch.float32, tile, precision="tf32x3") for tile in single]
        products.append(gemm(torch.float32, single[-1], precision="tf32"))
    rest = others(torch.float16)
    found = reports(version, capability, products + exact + rest, tmp_path)
    for report in found:
        assert report["shared"] <= SHARED_LIMIT[capability], report
        assert (report["stack"], report["local"]) == (0, 0), report
    for report in found[: len(products)]:
        assert report["wgmma" if capability == 90 else "mma"], report
    for report in found[: -len(rest)]:  # gathers of 16 bytes that no register waits for
        assert report["copies"] == (capability >= 80), report
    assert not any(report["mma"] or report["wgmma"] for report in found[len(products) :])


def test_a_spill_would_be_seen(tmp_path: Path) -> None:
    """256 sums a thread: the reading of resources finds what it looks for."""
    (report,) = reports("3.4", 86, [gemm(torch.float16, Tile(128, 256, 0, 32, 4, 5))], tmp_path)
    assert report["stack"] > 0
