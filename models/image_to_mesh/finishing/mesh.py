"""The finished mesh, as every exporter takes it. Knows nothing of files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROUGHNESS = 0.85
METALLIC = 0.0


@dataclass(frozen=True)
class TexturedMesh:
    """A closed surface in the unit box, and its texture.

    positions: (V, 3) float32, no two equal; normals: (V, 3) float32, unit
    triangles: (F, 3) int32 over `positions`, counter-clockwise from outside
    source:    (N,) position of each texture vertex: a vertex on a seam appears once a page
    uv:        (N, 2) float32, v down as in glTF
    faces:     (F, 3) int32 over the texture vertices
    texture:   (S, S, 3) uint8, sRGB
    normal_map: (S, S, 3) uint8 in tangent space (see `normal_map`), or None
    tangents:  (N, 4) float32 it is written against, or None
    """

    positions: npt.NDArray[np.float32]
    normals: npt.NDArray[np.float32]
    triangles: npt.NDArray[np.int32]
    source: npt.NDArray[np.int64]
    uv: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    texture: npt.NDArray[np.uint8]
    normal_map: npt.NDArray[np.uint8] | None = None
    tangents: npt.NDArray[np.float32] | None = None

    def vertex_colours(self) -> npt.NDArray[np.uint8]:
        """(V, 3) uint8: the texture at each position; at a seam, the first page's."""
        side = self.texture.shape[0]
        texel = np.clip((self.uv * side).astype(int), 0, side - 1)
        colours = np.zeros((len(self.positions), 3), np.uint8)
        colours[self.source[::-1]] = self.texture[texel[::-1, 1], texel[::-1, 0]]
        return colours
