"""The nearest points of a surface, as `closest` finds them, on a GPU.

PyTorch fills the grid, Triton searches it. Knows nothing of textures.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.image_to_mesh.finishing.closest import REACH_SHARE, grid_of

BLOCK, WARPS = 32, 1
"""Points that search together: a warp of neighbours waits for none but its own."""


def nearest(
    vertices: Tensor,  # (V, 3) float32
    faces: Tensor,  # (F, 3) int64
    points: Tensor,  # (P, 3) float32
    normals: Tensor,  # (P, 3) float32
) -> tuple[Tensor, Tensor, Tensor]:
    """face (P,) int32, weights (P, 3) float32, distance (P,) float32."""
    corners = vertices[faces].double()
    edges = corners[:, 1:] - corners[:, :1]
    normal = torch.linalg.cross(edges[:, 0], edges[:, 1])
    doubled = normal.norm(dim=1, keepdim=True)
    low, high = corners.amin((0, 1)), corners.amax((0, 1))
    area = float(doubled.sum()) / 2
    side, counts = grid_of(low.cpu().numpy(), high.cpu().numpy(), area, len(faces))
    table = torch.cat(
        (corners[:, 0] - low, edges[:, 0], edges[:, 1], normal / doubled.clamp(min=1e-30)), 1
    ).float()
    starts, items = _cells(table, side, counts.tolist())
    reach = REACH_SHARE * float((high - low).max())
    placed = (points.double() - low).float()

    def search(at: Tensor, facing: Tensor, bound: float) -> tuple[Tensor, Tensor, Tensor]:
        return _launch(at, facing, table, starts, items, side, counts.tolist(), bound)

    face, weights, square = search(placed, normals, reach * reach)
    missing = torch.nonzero(face < 0)[:, 0]
    if len(missing):
        far = search(placed[missing], torch.zeros_like(normals[missing]), math.inf)
        face[missing], weights[missing], square[missing] = far
    return face, weights, square.sqrt()


def _cells(table: Tensor, side: float, counts: list[int]) -> tuple[Tensor, Tensor]:
    """Triangles by cell: each in every cell of its box that its plane crosses."""
    rows = table.double()
    zero = torch.zeros_like(rows[:, 0:3])
    limit = torch.tensor(counts, device=table.device) - 1
    ends = torch.stack((zero, rows[:, 3:6], rows[:, 6:9]))
    first = ((rows[:, :3] + ends.amin(0)) / side).floor().long().clamp(min=0).minimum(limit)
    last = ((rows[:, :3] + ends.amax(0)) / side).floor().long().clamp(min=0).minimum(limit)
    span = last - first + 1
    many = span.prod(1)
    face = torch.arange(len(table), device=table.device).repeat_interleave(many)
    step = torch.arange(len(face), device=table.device)
    step -= (many.cumsum(0) - many).repeat_interleave(many)
    _, sy, sz = span[face].unbind(1)
    cell = first[face] + torch.stack((step // (sy * sz), step // sz % sy, step % sz), 1)
    normal = rows[face, 9:]
    along = (((cell + 0.5) * side - rows[face, :3]) * normal).sum(1).abs()
    thick = normal.abs().sum(1)
    crossed = (thick > 0) & (along <= 0.5 * side * (1 + 1e-5) * thick + 1e-9 * side)
    cell, face = cell[crossed], face[crossed]
    index = (cell[:, 0] * counts[1] + cell[:, 1]) * counts[2] + cell[:, 2]
    order = index.sort(stable=True).indices
    starts = torch.zeros(math.prod(counts) + 1, dtype=torch.int64, device=table.device)
    starts[1:] = torch.bincount(index, minlength=math.prod(counts)).cumsum(0)
    return starts.int(), face[order].int()


def _launch(
    points: Tensor,
    normals: Tensor,
    table: Tensor,
    starts: Tensor,
    items: Tensor,
    side: float,
    counts: list[int],
    bound: float,
) -> tuple[Tensor, Tensor, Tensor]:
    from models.image_to_mesh.finishing import closest_triton

    face = torch.empty(len(points), dtype=torch.int32, device=points.device)
    weights, square = torch.empty_like(points), torch.empty_like(points[:, 0])
    closest_triton.nearest[(-(-len(points) // BLOCK),)](
        points.contiguous(), normals.contiguous(), table, starts, items, side, *counts, bound,
        len(points), face, weights, square, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return face, weights, square
