"""Measure field -> surface and mesh -> voxels at the resolutions of Direct3D-S2.

    python benchmarks/volumes.py [--data ../shared] [--device cpu] [--resolutions 512 1024] [--peer]
    python benchmarks/volumes.py --device cuda --resolutions 512 --mesh MESH.npz [--plain]

Knows no network. The field is the distance, about, to a sphere with waves on it, in the band of
voxels that a decoder leaves; the mesh is `finishing_input.million_faces`. `--peer` extracts
the same surface with scikit-image from a dense grid. With `--mesh` (arrays `V` [n, 3] and `F`
[m, 3]) only this: the surface of a shell 3.2 voxels around that mesh, extracted at a resolution, is
voxelised at twice that, as the cells of Direct3D-S2's second stage are; `--plain` does it without
our kernels, too. Memory is what PyTorch took from a GPU at most, beside the mesh.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from finishing_input import million_faces

from models.image_to_mesh.finishing.edges import is_closed
from models.image_to_mesh.volumes.sparse_marching_cubes import sparse_marching_cubes
from models.image_to_mesh.volumes.voxelise import voxelise
from models.nn.backends import use_backends

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 2


def plane(resolution: int, x: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxels [R * R, 3] of one x, and the distance of each to a sphere with waves, about."""
    ticks = torch.arange(resolution, device=device)
    y, z = torch.meshgrid(ticks, ticks, indexing="ij")
    place = torch.stack((torch.full_like(y, x), y, z), dim=-1).reshape(-1, 3)
    offset = place.float() - (resolution - 1) / 2
    waves = 0.004 * torch.sin(offset * (60 / resolution)).prod(dim=1)
    return place, offset.norm(dim=1) - resolution * (0.44 + waves)


def wavy_band(resolution: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """coords [N, 3] and values [N] of the voxels within three of the surface."""
    coords, values = [], []
    for x in range(resolution):
        place, value = plane(resolution, x, device)
        near = value.abs() < 3  # a cube's corners are at most 2.5 apart in value
        coords.append(place[near].int())
        values.append(value[near])
    return torch.cat(coords), torch.cat(values)


def dense_peer(resolution: int) -> dict[str, Any]:
    """scikit-image on the whole grid."""
    from skimage.measure import marching_cubes

    grid = torch.stack([plane(resolution, x, "cpu")[1] for x in range(resolution)])
    cube = grid.reshape((resolution,) * 3).numpy()
    start = time.perf_counter()
    _, faces, _, _ = marching_cubes(cube, 0.0)
    seconds = round(time.perf_counter() - start, 3)
    return {"scikit_image_s": seconds, "resolution": resolution, "faces": len(faces)}


def best(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    seconds = []
    for _ in range(REPEATS):
        result = None  # its memory is free for the next
        start = time.perf_counter()
        result = work()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def shell(path: Path, resolution: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices in voxels of twice that resolution, and faces."""
    arrays = np.load(path)
    vertices = torch.from_numpy(arrays["V"].astype(np.float32)).to(device)
    low, high = vertices.amin(0), vertices.amax(0)
    vertices = ((vertices - (low + high) / 2) * (0.95 / (high - low).amax()) + 0.5) * resolution
    faces = torch.from_numpy(arrays["F"].astype(np.int64)).to(device)
    band = voxelise(vertices, faces, resolution, 5.0)
    surface = sparse_marching_cubes(band.coords, band.distances, 3.2, resolution, outside=5.0)
    return surface.vertices.float() * 2, surface.faces.long()


def finer(path: Path, resolution: int, device: str, sparse: str) -> dict[str, Any]:
    vertices, faces = shell(path, resolution, device)
    with use_backends(sparse=sparse):  # type: ignore[arg-type]
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
        seconds, band = best(lambda: voxelise(vertices, faces, 2 * resolution, 4.0), device)
    row = {"voxelise_s": round(seconds, 4), "backend": sparse, "resolution": 2 * resolution}
    row |= {"faces": len(faces), "voxels": len(band.coords)}
    if device != "cpu":
        row["peak_gb"] = round((torch.cuda.max_memory_allocated() - held) / 1e9, 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--peer", action="store_true", help="needs 8 bytes a cell of the grid")
    parser.add_argument("--mesh", type=Path)
    parser.add_argument("--plain", action="store_true")
    arguments = parser.parse_args()
    if arguments.mesh:
        for resolution in arguments.resolutions:
            for sparse in ("auto", "torch")[: 1 + arguments.plain]:
                print(json.dumps(finer(arguments.mesh, resolution, arguments.device, sparse)))
        return
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
        closed = is_closed(surface.faces.int().cpu().numpy())
        row = {"resolution": resolution, "voxels": len(field[0]), "faces": len(surface.faces)}
        row["closed"] = closed
        print(json.dumps({"marching_cubes_s": round(seconds, 3), **row}))
        if arguments.peer:
            print(json.dumps(dense_peer(resolution)))
        places = (vertices * 0.95 + 0.5) * (resolution - 1)
        seconds, band = best(
            lambda places=places, resolution=resolution: voxelise(places, faces, resolution, 4.0),
            arguments.device,
        )
        row = {"resolution": resolution, "faces": len(faces), "voxels": len(band.coords)}
        print(json.dumps({"voxelise_s": round(seconds, 3), **row}))


if __name__ == "__main__":
    main()
