"""Runs the Triton kernels on CPU, one by one in NumPy: `TRITON_INTERPRET=1 python -m MODULE SEED`.

A process of its own, since Triton decides when a kernel is defined whether it interprets. Prints
{case: error}; the test that started it judges.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import torch

from models.nn.sites import key_offset, pack
from models.nn.sparse_conv.kernel_map import KernelMap, strided_map, submanifold_map
from models.nn.sparse_conv.triton_conv import launch
from models.nn.sparse_conv.triton_map import arrange, find_neighbours
from models.nn.sparse_conv.triton_tiles import Plan, Tile
from tests.models.nn.voxels import random_grid

TILE = Tile(64, 32, 0, 16, 1, 1)  # few large steps: NumPy computes them one after the other
CASES = {
    # tile, splits, Cin, Cout, dtype, bias, residual
    "96 channels in two parts": (replace(TILE, columns=64, tail=32), 1, 32, 96, "float16", 1, 0),
    "channels no tile divides": (TILE, 1, 19, 37, "float32", 1, 1),
    "three splits": (TILE, 3, 16, 32, "float16", 1, 1),
    "more splits than some tiles have offsets": (TILE, 6, 16, 32, "float32", 0, 0),
    "neither bias nor residual": (TILE, 1, 32, 32, "float16", 0, 0),
}


def convolution_error(kernel_map: KernelMap, case: tuple, normal) -> float:
    """|out - reference| / |reference|, the reference in fp64."""
    tile, splits, channels_in, channels_out, name, biased, resumed = case
    dtype, n = getattr(torch, name), kernel_map.n_out
    size = kernel_map.kernel_size
    feats = normal(kernel_map.n_in, channels_in).to(dtype)
    weight = (normal(channels_out, *size, channels_in) / 4).to(dtype)
    bias = normal(channels_out).to(dtype) if biased else None
    residual = normal(n, channels_out).to(dtype) if resumed else None
    arrangement = arrange(kernel_map.neighbours)
    out = launch(Plan(tile, splits), feats, weight, bias, residual, arrangement)

    expected = torch.zeros(n, channels_out, dtype=torch.float64)
    for addend in (bias, residual):
        expected += 0 if addend is None else addend.double()
    for matrix, rows in zip(
        weight.flatten(1, 3).double().unbind(1), kernel_map.neighbours, strict=True
    ):
        there = rows >= 0
        expected[there] += feats[rows[there].long()].double() @ matrix.T
    return float((out.double() - expected).norm() / expected.norm())


def tainted_in_vain(kernel_map: KernelMap, normal) -> float:
    """Rows that are not finite though no neighbour is infinite, and the other way round."""
    feats, weight = normal(kernel_map.n_in, 19).float(), normal(32, 3, 3, 3, 19).float()
    feats[kernel_map.n_in // 2] = float("inf")
    out = launch(Plan(TILE), feats, weight, None, None, arrange(kernel_map.neighbours))
    expected = (kernel_map.neighbours == kernel_map.n_in // 2).any(0)
    return float((~out.isfinite().all(1) != expected).sum())


def main(seed: int) -> dict[str, float]:
    grid = random_grid(seed, items=3, extent=(6, 5, 7), empty=frozenset([1]), corner=100)
    sites = grid.tensor.sites
    steps = key_offset((1, 0, 0)), key_offset((0, 1, 0))
    found = find_neighbours(pack(sites.coords), *sites.sorted_keys, *steps)
    kernel_map = submanifold_map(sites, (3, 3, 3))
    errors = {"map": float((found != kernel_map.neighbours).sum())}

    arrangement = arrange(kernel_map.neighbours)
    rows = arrangement.rows[: len(sites)].long()
    masks = ((kernel_map.neighbours >= 0) << torch.arange(27)[:, None]).sum(0)
    errors["every row once"] = float((rows.sort().values != torch.arange(len(sites))).sum())
    errors["table"] = float(
        (arrangement.table[:, : len(sites)] != kernel_map.neighbours[:, rows]).sum()
    )
    errors["masks"] = float((arrangement.masks[: len(sites)] != masks[rows]).sum())
    behind = torch.cat((arrangement.table, arrangement.rows[None]))[:, len(sites) :]
    errors["padding"] = float((behind != -1).sum() + arrangement.masks[len(sites) :].sum())

    for name, case in CASES.items():
        errors[name] = convolution_error(kernel_map, case, grid.normal)
    errors["infinities"] = tainted_in_vain(kernel_map, grid.normal)
    strided = strided_map(sites, (2, 2, 2), 2)[1]
    case = (TILE, 1, 16, 32, "float32", 1, 0)
    errors["strided"] = convolution_error(strided, case, grid.normal)
    errors["its inverse"] = convolution_error(strided.transposed(), case, grid.normal)
    return errors


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(int(sys.argv[1]))))
