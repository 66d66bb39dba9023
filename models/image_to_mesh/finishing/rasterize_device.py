"""The texels of an unwrapped mesh, as `texels.cover` finds them, on a GPU by PyTorch.

Knows nothing of what they show. Triangle, then the rows it crosses, then the span of each row: all
triangles at once, and of two that meet in a texel the first has it, as on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.image_to_mesh.finishing.texels_compiled import EDGE


def cover(
    uv: Tensor,  # (N, 2) float32
    faces: Tensor,  # (F, 3) int64
    size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """index (P,) int64 ascending, face (P,) int64, weights (P, 3) float32."""
    corners = (uv.double() * size - 0.5)[faces]  # (F, 3, 2) column and row
    edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    doubled = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    top = corners[..., 1].amin(1).ceil().clamp(min=0).long()
    bottom = corners[..., 1].amax(1).floor().clamp(max=size - 1).long()
    seen = torch.nonzero((bottom >= top) & (doubled.abs() >= 1e-12))[:, 0]
    face, row = _expand(seen, top[seen], bottom[seen])
    left, right = _span(corners[face], row)
    start = (left - EDGE).ceil().clamp(min=0).long()
    stop = (right + EDGE).floor().clamp(max=size - 1).long()
    some = torch.nonzero(stop >= start)[:, 0]
    which, column = _expand(some, start[some], stop[some])
    face, row = face[which], row[which]
    pixel = row * size + column
    first = torch.full((size * size,), len(faces), device=uv.device)
    first.scatter_reduce_(0, pixel, face, "amin")
    mine = first[pixel] == face
    pixel, face = pixel[mine], face[mine]
    at = torch.stack((column[mine], row[mine]), 1).double()
    weights = torch.empty(size * size, 3, device=uv.device)
    weights[pixel] = _barycentric(corners[face], at).float()
    index = torch.nonzero(first < len(faces))[:, 0]
    return index, first[index], weights[index]


def _expand(keys: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Each key repeated for each whole number from its first to its last."""
    lengths = last - first + 1
    begin = lengths.cumsum(0) - lengths
    offset = torch.arange(int(lengths.sum()), device=keys.device)
    offset -= begin.repeat_interleave(lengths)
    return keys.repeat_interleave(lengths), first.repeat_interleave(lengths) + offset


def _span(corners: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:  # (R, 3, 2), (R,) -> (R,), (R,)
    """Where the triangle's outline crosses a row: leftmost and rightmost column."""
    y = row.double()
    left, right = torch.full_like(y, torch.inf), torch.full_like(y, -torch.inf)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        (x0, y0), (x1, y1) = corners[:, a].unbind(1), corners[:, b].unbind(1)
        crosses = (torch.minimum(y0, y1) <= y) & (torch.maximum(y0, y1) >= y)
        flat = y0 == y1
        x = x0 + (y - y0) / torch.where(flat, 1.0, y1 - y0) * (x1 - x0)
        low = torch.where(flat, torch.minimum(x0, x1), x)
        high = torch.where(flat, torch.maximum(x0, x1), x)
        left = torch.where(crosses, torch.minimum(left, low), left)
        right = torch.where(crosses, torch.maximum(right, high), right)
    return left, right


def _barycentric(corners: Tensor, at: Tensor) -> Tensor:  # (P, 3, 2), (P, 2) -> (P, 3)
    (ax, ay), (bx, by), (cx, cy) = (corners[:, k].sub(at).unbind(1) for k in range(3))
    weights = torch.stack((bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx), 1)
    weights = (weights / weights.sum(1, keepdim=True)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)
