"""Volumes on a GPU: the same surface and the same voxels as on the CPU, twice the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from scipy import ndimage

from models.image_to_mesh.finishing.edges import is_closed
from models.image_to_mesh.volumes import block_lists
from models.image_to_mesh.volumes.sparse_marching_cubes import sparse_marching_cubes
from models.image_to_mesh.volumes.voxel_index import key_of
from models.image_to_mesh.volumes.voxelise import Band, voxelise
from models.nn.backends import use_backends

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
    agree(Band(*(part.to(cuda) for part in here)), there, 4.0)


@pytest.mark.parametrize(("resolution", "band"), [(3, 1.0), (250, 0.7), (1000, 4.0)])
def test_voxels_of_our_kernels_and_of_pytorch(
    cuda: str,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    resolution: int,
    band: float,
) -> None:
    """Loose triangles from far below a voxel to as long as the grid, beyond its ends too, and a
    crowd of small ones, so that lists are both short and long; all at once and in small parts."""
    sizes = np.repeat(np.geomspace(1e-3, 0.5, 40) * resolution, [2000] * 20 + [5] * 20)
    sizes = sizes[:, None, None]
    middles = rng.uniform(-0.1, 1.1, (len(sizes), 1, 3)) * resolution
    middles[::2] = middles[::2] * 0.05 + resolution / 2
    corners = middles + rng.normal(size=(len(sizes), 3, 3)) * sizes
    vertices = torch.from_numpy(corners.reshape(-1, 3).astype(np.float32)).to(cuda)
    faces = torch.arange(len(vertices), device=cuda).reshape(-1, 3)
    ours = voxelise(vertices, faces, resolution, band)
    with use_backends(sparse="torch"):
        plain = voxelise(vertices, faces, resolution, band)
    agree(plain, ours, band)
    monkeypatch.setattr(block_lists, "PAIRS_AT_ONCE", 1 << 17)
    monkeypatch.setattr(block_lists, "BLOCKS_AT_ONCE", 1 << 13)
    parts: list[None] = []
    again = voxelise(vertices, faces, resolution, band, lambda: parts.append(None))
    assert torch.equal(ours.coords, again.coords)
    assert torch.equal(ours.distances, again.distances)
    assert len(parts) > 20 or resolution == 3


def agree(one: Band, other: Band, band: float) -> None:
    """The same distances; only voxels at the very end of the band may be in one alone."""
    keys, others = key_of(one.coords), key_of(other.coords)
    assert len(keys) > 0 and bool((keys.diff() > 0).all()) and bool((others.diff() > 0).all())
    shared, also = torch.isin(keys, others), torch.isin(others, keys)
    assert (one.distances[shared] - other.distances[also]).abs().max() < 2e-4
    assert (one.distances[~shared] > band - 2e-4).all()
    assert (other.distances[~also] > band - 2e-4).all()
