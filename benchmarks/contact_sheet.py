"""Render GLB files from four sides into one PNG, to be looked at.

    python benchmarks/contact_sheet.py sheet.png a.glb b.glb

Knows nothing of glTF beyond what trimesh reads: textured triangles, lit by one soft light.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from models.image_to_mesh.finishing.rasterize import rasterize
from models.image_to_mesh.geometry.cameras import object_to_camera

SIDES = ((0, 10), (90, 10), (180, 10), (270, 10))
"""(azimuth, elevation) in degrees of the four columns: front, +X side, back, -X side."""
OVERSAMPLE = 2


def render(
    path: Path, azimuth: float, elevation: float, side_px: int, textured: bool = True
) -> np.ndarray:
    """(side_px, side_px, 3) uint8, orthographic, on light grey."""
    scene = trimesh.load_scene(path, process=False)
    (mesh,) = scene.geometry.values()
    rotation = object_to_camera(azimuth, elevation)
    seen = np.asarray(mesh.vertices) @ rotation.T
    size = side_px * OVERSAMPLE
    points = np.stack([seen[:, 0], -seen[:, 1]], axis=1) * size * 0.8 + size / 2 - 0.5
    faces = np.asarray(mesh.faces, np.int32)
    raster = rasterize(points, seen[:, 2], faces, size, size)
    normals = raster.interpolate(np.asarray(mesh.vertex_normals) @ rotation.T, faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    light = np.array([0.3, 0.6, 0.74])
    shade = 0.72 + 0.33 * np.clip(normals @ light, 0, 1)
    colour = np.full((len(normals), 3), 0.75)
    if textured:
        texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"), np.float32) / 255
        uv = raster.interpolate(np.asarray(mesh.visual.uv), faces)
        height, width = texture.shape[:2]
        column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
        row = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
        colour = texture[row, column]
    image = np.full((size, size, 3), 0.9, np.float32)
    image[raster.covered] = colour * shade[:, None]
    image = image.reshape(side_px, OVERSAMPLE, side_px, OVERSAMPLE, 3).mean(axis=(1, 3))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("glb", type=Path, nargs="+")
    parser.add_argument("--size", type=int, default=256, help="pixels a side of each picture")
    parser.add_argument("--bare", action="store_true", help="grey, to judge the shape alone")
    arguments = parser.parse_args()
    rows = [
        np.concatenate(
            [render(path, a, e, arguments.size, not arguments.bare) for a, e in SIDES], axis=1
        )
        for path in arguments.glb
    ]
    Image.fromarray(np.concatenate(rows)).save(arguments.sheet)


if __name__ == "__main__":
    main()
