"""Which triangle each pixel sees, exactly, on whatever device torch is given.

Does not shade. Every triangle tests the pixels of its box, all at once; the nearest hit wins by an
atomic minimum. Homogeneous edge functions: Olano & Greer, "Triangle scan conversion using 2D
homogeneous coordinates", 1997.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CANDIDATES = 1 << 26  # pixel tests at once: bounds the memory
NOTHING = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class View:
    """A pinhole camera; principal point in the middle, float64 tensors on the scene's device."""

    position: Tensor  # [3] scene units
    rotation: Tensor  # [3, 3] world -> camera; rows: right, down, forward
    focal_px: float
    width: int
    height: int
    near: float  # scene units

    def scaled(self, factor: int) -> View:
        """The same view with `factor` times the pixels a side."""
        return View(
            self.position,
            self.rotation,
            self.focal_px * factor,
            self.width * factor,
            self.height * factor,
            self.near,
        )

    def rays(self, pixels: Tensor) -> Tensor:  # [P] row-major numbers -> [P, 3]
        """Directions in camera space through the pixels' centres, at depth 1."""
        column = (pixels % self.width).double() + 0.5
        row = torch.div(pixels, self.width, rounding_mode="floor").double() + 0.5
        return torch.stack(
            [
                (column - self.width / 2) / self.focal_px,
                (row - self.height / 2) / self.focal_px,
                torch.ones_like(column),
            ],
            dim=1,
        )


@dataclass(frozen=True)
class Hits:
    """The pixels that see something."""

    pixels: Tensor  # [P] row-major numbers, ascending
    faces: Tensor  # [P]
    weights: Tensor  # [P, 3] perspective-correct barycentric
    depth: Tensor  # [P] along the forward axis, scene units


def visible(points: Tensor, faces: Tensor, view: View) -> Hits:  # [V, 3] float64, [F, 3]
    """Nearest triangle per pixel; triangles that reach behind `near` are not drawn."""
    seen = (points - view.position) @ view.rotation.T
    corners = seen[faces]  # [F, 3, 3]
    depth = corners[..., 2]
    flat = corners[..., :2] / depth[..., None].clamp_min(view.near) * view.focal_px
    size = torch.tensor([view.width, view.height], device=points.device)
    low = (flat.amin(1) + size / 2 - 0.5).ceil().long().clamp_min(0)
    high = torch.minimum((flat.amax(1) + size / 2 - 0.5).floor().long(), size - 1)
    box = (high - low + 1).clamp_min(0)
    count = box.prod(1) * (depth.amin(1) > view.near)
    drawn = count.nonzero().squeeze(1)
    a, b, c = corners[drawn].unbind(1)
    edges = torch.stack([b.cross(c, dim=1), c.cross(a, dim=1), a.cross(b, dim=1)], dim=1)
    volume = (a * edges[:, 0]).sum(1)
    low, box, count = low[drawn], box[drawn], count[drawn]

    nearest = torch.full((view.width * view.height,), NOTHING, device=points.device)
    ends = count.cumsum(0)
    start = 0
    while start < len(drawn):
        before = ends[start - 1] if start else ends.new_zeros(())
        stop = max(int(torch.searchsorted(ends, before + CANDIDATES, right=True)), start + 1)
        part = slice(start, stop)
        cell = torch.repeat_interleave(torch.arange(start, stop, device=points.device), count[part])
        offset = torch.arange(len(cell), device=points.device) + before - (ends - count)[cell]
        column = low[cell, 0] + offset % box[cell, 0]
        row = low[cell, 1] + torch.div(offset, box[cell, 0], rounding_mode="floor")
        pixel = row * view.width + column
        weights = (edges[cell] * view.rays(pixel)[:, None]).sum(2)
        total = weights.sum(1)
        inside = (weights >= 0).all(1) | (weights <= 0).all(1)
        hit = (inside & (total != 0)).nonzero().squeeze(1)
        far = (volume[cell[hit]] / total[hit]).float()
        key = far.view(torch.int32).long() << 32 | drawn[cell[hit]]
        nearest.scatter_reduce_(0, pixel[hit], key, "amin")
        start = stop

    pixels = (nearest != NOTHING).nonzero().squeeze(1)
    key = nearest[pixels]
    face = key & 0xFFFFFFFF
    depth = (key >> 32).int().view(torch.float32).double()
    a, b, c = seen[faces[face]].unbind(1)
    edges = torch.stack([b.cross(c, dim=1), c.cross(a, dim=1), a.cross(b, dim=1)], dim=1)
    weights = (edges * view.rays(pixels)[:, None]).sum(2)
    return Hits(pixels, face, weights / weights.sum(1, keepdim=True), depth)
