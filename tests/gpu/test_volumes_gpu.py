"""Volumes on a GPU: the same surface and the same voxels as on the CPU, twice the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from scipy import ndimage

from models.image_to_mesh.finishing.edges import is_closed
from models.image_to_mesh.volumes.sparse_marching_cubes import sparse_marching_cubes
from models.image_to_mesh.volumes.voxelise import voxelise

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_marching_cubes_as_on_the_cpu(cuda: str, rng: np.random.Generator, sigma: float) -> None:
    field = rng.standard_normal((48,) * 3)
    field = ndimage.gaussian_filter(field, sigma) if sigma else field
    values = torch.from_numpy((field / field.std()).astype(np.float32).reshape(-1))
    ticks = torch.arange(48)
    coords = torch.cartesian_prod(ticks, ticks, ticks)
    here = sparse_marching_cubes(coords, values, 0.1, 48, outside=2.0)
    there, again = (
        sparse_marching_cubes(coords.to(cuda), values.to(cuda), 0.1, 48, outside=2.0)
        for _ in range(2)
    )
    assert torch.equal(there.faces, again.faces) and torch.equal(there.vertices, again.vertices)
    assert torch.equal(there.faces.cpu(), here.faces)
    # A share of an edge is one division; positions below 48 are rounded at 4e-6.
    assert torch.allclose(there.vertices.cpu(), here.vertices, atol=1e-5)
    assert is_closed(there.faces.cpu().numpy().astype(np.int32))


@pytest.mark.parametrize("resolution", [100, 1024])
def test_voxels_as_on_the_cpu(cuda: str, resolution: int) -> None:
    """The CPU fills blocks in double precision, a GPU descends in single: 2e-4 voxels at 1024."""
    mesh = trimesh.creation.icosphere(4, resolution * 0.05)
    vertices = torch.from_numpy((mesh.vertices + resolution * 0.7).astype(np.float32))
    faces = torch.from_numpy(np.asarray(mesh.faces))
    here = voxelise(vertices, faces, resolution, 4.0)
    there, again = (voxelise(vertices.to(cuda), faces.to(cuda), resolution, 4.0) for _ in range(2))
    assert torch.equal(there.coords, again.coords)
    assert torch.equal(there.distances, again.distances)

    def rows(coords: torch.Tensor) -> dict[tuple[int, ...], int]:
        return {tuple(place): row for row, place in enumerate(coords.tolist())}

    one, other = rows(here.coords), rows(there.coords.cpu())
    both = one.keys() & other.keys()
    shared = sorted(both)
    a = here.distances[[one[place] for place in shared]]
    b = there.distances.cpu()[[other[place] for place in shared]]
    assert (a - b).abs().max() < 2e-4
    # Only voxels at the very end of the band may be in one and not in the other.
    for table, band in ((one, here), (other, there)):
        only = [row for place, row in table.items() if place not in both]
        assert (band.distances[only] > 4.0 - 2e-4).all()
