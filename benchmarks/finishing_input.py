"""A scanned object as a network's decoder would leave it: a million small faces with colours.

    python benchmarks/finishing_input.py [--data ../shared] [--flawed]

Knows nothing of finishing. The surface of a scanned power drill is sampled as a field on a grid,
roughened below the size of a voxel, and extracted again, so its faces are as small and uneven as
an iso-surface's; `flawed` adds what decoders leave behind: an inner shell, crumbs and holes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import marching_cubes

from models.image_to_mesh.finishing.coloured import ColouredMesh

ROOT = Path(__file__).resolve().parents[1]
SCAN = "data/meshes/meshes/ycb_PowerDrill.npz"
RESOLUTION = {False: 464, True: 364}
"""Voxels along the longest side, by whether flawed: both give about a million faces."""
CRUMBS = 200
HOLES = 150

Array = npt.NDArray[np.float32]


def million_faces(data: Path = ROOT.parent / "shared", flawed: bool = False) -> ColouredMesh:
    """The mesh, the same on every call; closed unless `flawed`. Takes about ten seconds."""
    scan = np.load(data / SCAN)
    unit = RESOLUTION[flawed] - 8
    corners = (scan["V"] - scan["V"].min(axis=0)).astype(np.float64) * unit + 4
    shape = tuple(np.ceil(corners.max(axis=0) + 4).astype(int))
    solid = _inside(corners[scan["F"]], *shape)
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(solid.astype(np.float32), 1.2)
    for cells, depth in ((3, 0.06), (9, 0.08), (40, 0.1)):
        field += depth * _noise(shape, cells, rng) * (field * (1 - field) * 4)
    vertices, faces, _, _ = marching_cubes(field, 0.5, gradient_direction="ascent")
    if flawed:
        vertices, faces = _flaws(vertices, faces, solid, rng)
    at = np.clip(np.rint(vertices).astype(int), 0, np.array(shape) - 1)
    colours = np.stack([_noise(shape, 25, rng)[tuple(at.T)] for _ in range(3)], axis=1)
    bands = np.sin(vertices[:, :1] / 9) > 0
    colours = np.where(bands, 0.5 + 0.25 * colours, 0.8 + 0.1 * colours)
    positions = (vertices - np.array(shape) / 2) / unit
    return ColouredMesh(
        positions.astype(np.float32),
        faces.astype(np.int32),
        np.clip(colours, 0, 1).astype(np.float32),
    )


def _noise(shape: tuple[int, ...], cells: int, rng: np.random.Generator) -> Array:
    """About -1..1, smooth over `cells` voxels."""
    coarse = rng.standard_normal([side // cells + 3 for side in shape]).astype(np.float32) / 2
    zoom = [(side + 1) / n for side, n in zip(shape, coarse.shape, strict=True)]
    fine = ndimage.zoom(coarse, zoom, order=1)
    return np.ascontiguousarray(fine[tuple(slice(side) for side in shape)])


def _flaws(
    vertices: Array,
    faces: npt.NDArray[np.int32],
    solid: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[Array, npt.NDArray[np.int32]]:
    """An inner shell, crumbs around, and holes of a few faces in the outer surface."""
    core = ndimage.gaussian_filter(
        ndimage.binary_erosion(solid, iterations=9).astype(np.float32), 1.2
    )
    shell_vertices, shell_faces, _, _ = marching_cubes(core, 0.5, gradient_direction="descent")
    at = vertices[rng.choice(len(vertices), HOLES)]
    centres = vertices[faces].mean(axis=1)
    whole = np.ones(len(faces), bool)
    for point in at:
        whole &= ((centres - point) ** 2).sum(axis=1) > rng.uniform(1, 4) ** 2
    parts = [(vertices, faces[whole]), (shell_vertices, shell_faces)]
    tetrahedron = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    sides = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    crumbs = rng.uniform(0, np.array(solid.shape) - 3, (CRUMBS, 3))
    parts += [((tetrahedron * 2 + place).astype(np.float32), sides) for place in crumbs]
    offsets = np.cumsum([0] + [len(v) for v, _ in parts[:-1]])
    return (
        np.concatenate([v for v, _ in parts]),
        np.concatenate([f + o for (_, f), o in zip(parts, offsets, strict=True)]).astype(np.int32),
    )


@numba.njit
def _inside(triangles, width, height, depth):  # (F, 3, 3) in voxels -> (X, Y, Z) bool
    """Parity of the crossings below each voxel's centre along z; triangles of a closed surface."""
    flips = np.zeros((width, height, depth), np.bool_)
    for t in range(len(triangles)):
        # A hair aside, so that no column passes through an edge.
        a, b, c = triangles[t, 0] + 1e-7, triangles[t, 1] + 1e-7, triangles[t, 2] + 1e-7
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0:
            continue
        for i in range(int(min(a[0], b[0], c[0])), int(max(a[0], b[0], c[0])) + 2):
            for j in range(int(min(a[1], b[1], c[1])), int(max(a[1], b[1], c[1])) + 2):
                u = ((b[0] - i) * (c[1] - j) - (b[1] - j) * (c[0] - i)) / area
                v = ((c[0] - i) * (a[1] - j) - (c[1] - j) * (a[0] - i)) / area
                if u >= 0 and v >= 0 and u + v <= 1:
                    z = u * a[2] + v * b[2] + (1 - u - v) * c[2]
                    flips[i, j, int(np.ceil(z))] ^= True
    for i in range(width):
        for j in range(height):
            state = False
            for k in range(depth):
                state ^= flips[i, j, k]
                flips[i, j, k] = state
    return flips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--flawed", action="store_true")
    arguments = parser.parse_args()
    mesh = million_faces(arguments.data, arguments.flawed)
    print(f"{len(mesh.vertices)} vertices, {len(mesh.faces)} faces")


if __name__ == "__main__":
    main()
