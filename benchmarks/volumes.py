"""Measure field -> surface and mesh -> voxels at the resolutions of Direct3D-S2.

    python benchmarks/volumes.py [--data ../shared] [--device cpu] [--resolutions 512 1024]

Knows no network. The field is the exact distance to a sphere with waves on it, in the band of
voxels that a decoder leaves; the mesh is `finishing_input.million_faces`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from finishing_input import million_faces

from models.image_to_mesh.volumes.sparse_marching_cubes import sparse_marching_cubes
from models.image_to_mesh.volumes.voxelise import voxelise

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3


def wavy_band(resolution: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """coords [N, 3] and values [N] of the voxels within two of a wavy sphere: by planes of x."""
    ticks = torch.arange(resolution, device=device)
    middle = (resolution - 1) / 2
    coords, values = [], []
    for x in range(resolution):
        y, z = torch.meshgrid(ticks, ticks, indexing="ij")
        place = torch.stack((torch.full_like(y, x), y, z), dim=-1).reshape(-1, 3)
        offset = place.float() - middle
        radius = offset.norm(dim=1)
        waves = 0.03 * torch.sin(offset * (60 / resolution)).prod(dim=1)
        value = radius - resolution * (0.44 + waves)
        near = value.abs() < 2
        coords.append(place[near].int())
        values.append(value[near])
    return torch.cat(coords), torch.cat(values)


def best(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = work()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[512, 1024])
    arguments = parser.parse_args()
    mesh = million_faces(arguments.data)
    vertices = torch.from_numpy(mesh.vertices).to(arguments.device)
    faces = torch.from_numpy(mesh.faces).to(arguments.device)
    for resolution in arguments.resolutions:
        field = wavy_band(resolution, arguments.device)
        seconds, surface = best(
            lambda field=field, resolution=resolution: sparse_marching_cubes(
                *field, 0.0, resolution
            ),
            arguments.device,
        )
        row = {"resolution": resolution, "voxels": len(field[0]), "faces": len(surface.faces)}
        print(json.dumps({"marching_cubes_s": round(seconds, 3), **row}))
        places = (vertices * 0.95 + 0.5) * (resolution - 1)
        seconds, band = best(
            lambda places=places, resolution=resolution: voxelise(places, faces, resolution, 4.0),
            arguments.device,
        )
        row = {"resolution": resolution, "faces": len(faces), "voxels": len(band.coords)}
        print(json.dumps({"voxelise_s": round(seconds, 3), **row}))


if __name__ == "__main__":
    main()
