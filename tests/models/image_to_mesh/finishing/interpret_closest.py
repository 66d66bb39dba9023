"""Runs the search's Triton kernel on a CPU, in NumPy: `TRITON_INTERPRET=1 python -m ... SEED`.

A process of its own, since Triton decides when a kernel is defined whether it interprets. Prints
how far its answers are from the compiled loops'; the test that started it judges.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
import trimesh

from models.image_to_mesh.finishing import closest_device
from models.image_to_mesh.finishing.closest import Nearest, build_surface


def main() -> None:
    rng = np.random.default_rng(int(sys.argv[1]))
    ball = trimesh.creation.icosphere(1)
    vertices = (ball.vertices * (1, 0.6, 0.3)).astype(np.float32)
    vertices += rng.normal(size=vertices.shape).astype(np.float32) * 0.02
    faces = ball.faces.astype(np.int32)
    points = vertices[rng.integers(0, len(vertices), 40)]
    points = points + rng.normal(size=(40, 3)).astype(np.float32) * 0.02
    normals = rng.normal(size=(40, 3)).astype(np.float32)
    loops = build_surface(vertices, faces).nearest(points, normals)
    found = closest_device.nearest(
        torch.from_numpy(vertices),
        torch.from_numpy(faces).long(),
        torch.from_numpy(points),
        torch.from_numpy(normals),
    )
    kernel = Nearest(*(part.numpy() for part in found))
    places = [answer.interpolate(vertices, faces) for answer in (loops, kernel)]
    off = {
        "distance": float(np.abs(loops.distance - kernel.distance).max()),
        "place": float(np.abs(places[0] - places[1]).max()),
    }
    print(json.dumps(off))


if __name__ == "__main__":
    main()
