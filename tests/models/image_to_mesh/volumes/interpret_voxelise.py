"""Runs the voxeliser's kernels on a CPU: `TRITON_INTERPRET=1 python -m MODULE SEED`; prints errors.

A process of its own, since Triton decides when a kernel is defined whether it interprets.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from models.image_to_mesh.volumes import block_lists, voxelise
from tests.models.image_to_mesh.volumes.test_voxelise import reference


def loose(rng: np.random.Generator, side: int) -> np.ndarray:
    """[T, 3, 3]: triangles from far below a voxel to longer than the grid, beyond its ends too;
    a needle, one flat to a segment and one shrunk to a point."""
    sizes = np.geomspace(0.02, side, 12)[:, None, None]
    corners = rng.uniform(-2, side + 2, (12, 1, 3)) + rng.normal(size=(12, 3, 3)) * sizes
    corners[3, 2] = corners[3, 0] + 1e-4 * rng.normal(size=3)
    corners[4, 2] = corners[4, 0] * 0.3 + corners[4, 1] * 0.7
    corners[5] = corners[5, :1]
    return corners


def crowd(rng: np.random.Generator, side: int) -> np.ndarray:
    """Many small ones in a corner of the grid: long lists, and triangles that hide others."""
    return rng.normal(side / 3, side / 12, (50, 1, 3)) + rng.normal(size=(50, 3, 3))


def off(corners: np.ndarray, side: int, band: float) -> dict[str, float]:
    """Voxels of one and not of the other but at the very end of the band; distances in voxels."""
    vertices = torch.from_numpy(corners.reshape(-1, 3).astype(np.float32))
    faces = torch.arange(len(vertices)).reshape(-1, 3)
    parts: list[None] = []
    found = voxelise.voxelise(vertices, faces, side, band, lambda: parts.append(None))
    expected = reference(vertices.numpy(), faces.numpy(), side)
    rows = found.coords.numpy() @ (side * side, side, 1)
    there = np.zeros(side**3, bool)
    there[rows] = True
    wrong = (there != (expected < band)) & (np.abs(expected - band) > 2e-4)
    return {
        "parts": len(parts),
        "voxels": len(rows),
        "wrong": int(wrong.sum()) + int((np.diff(rows) <= 0).sum()),
        "distance": float(np.abs(found.distances.numpy() - expected[rows]).max(initial=0)),
    }


def main(seed: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(seed)
    voxelise._filled = voxelise._listed
    errors = {
        "of all sizes": off(loose(rng, 19), 19, 1.5),
        "a crowd": off(crowd(rng, 12), 12, 2.0),
        "a single block": off(loose(rng, 3), 3, 1.0),
    }
    block_lists.LONG = 0
    errors["more threads to a block"] = off(loose(rng, 11), 11, 1.5)
    block_lists.PAIRS_AT_ONCE, block_lists.BLOCKS_AT_ONCE = 60, 3
    return errors | {"in parts": off(crowd(rng, 12), 12, 1.0)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(int(sys.argv[1]))))
