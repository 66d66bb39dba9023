"""Distance from points to triangles, exact, many pairs at once and on any device.

Knows nothing of grids. Each triangle gets a frame of its own, in which it lies in a plane with its
longest edge along the first axis: what is left is a distance in two dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Triangles:
    """Frames of F triangles. One without area is the segment or the point it looks like.

    origin: [F, 3]    a corner, where the longest edge begins
    axes:   [F, 3, 3] rows: along the longest edge, into the triangle, out of its plane
    shape:  [F, 3]    (l, x, y): in the plane its corners are (0, 0), (l, 0) and (x, y), y >= 0
    lowest, highest: [F, 3] its box
    """

    origin: Tensor
    axes: Tensor
    shape: Tensor
    lowest: Tensor
    highest: Tensor

    def float(self) -> Triangles:
        """In single precision."""
        return Triangles(*(getattr(self, name).float() for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.origin)

    def distance(self, points: Tensor, triangle: Tensor) -> Tensor:  # [P, 3], int64 [P] -> [P]
        """From each point to the triangle named beside it."""
        local = (self.axes[triangle] * (points - self.origin[triangle])[:, None]).sum(2)
        x, y, z = local.unbind(1)
        length, cx, cy = self.shape[triangle].unbind(1)
        bx, by = x - length, y
        ex = cx - length
        # Beyond an edge a point lies to its right; walking around, the inside is to the left.
        beyond = (y < 0) | (cy <= 0) | (ex * by < cy * bx) | (cx * y > cy * x)
        to_edge = torch.minimum(
            (x - x.clamp(min=0).minimum(length)) ** 2 + y * y,
            torch.minimum(_to_segment(bx, by, ex, cy), _to_segment(x, y, cx, cy)),
        )
        return torch.where(beyond, to_edge, 0).add_(z * z).sqrt_()


def triangles_of(vertices: Tensor, faces: Tensor) -> Triangles:  # [V, 3] fp64, int64 [F, 3]
    corners = vertices[faces]
    sides = corners.roll(-1, 1) - corners  # from corner k to k + 1
    longest = sides.norm(dim=2).argmax(dim=1)
    turn = (longest[:, None] + torch.arange(3, device=longest.device)) % 3
    a, b, c = corners.gather(1, turn[..., None].expand(-1, -1, 3)).unbind(1)
    along = _unit(b - a, like=c - a)
    normal = _unit(torch.linalg.cross(b - a, c - a), like=_any_across(along))
    # A needle's normal is all rounding: across its long edge it must be exactly.
    normal = normal - (normal * along).sum(1, keepdim=True) * along
    normal = _unit(normal, like=_any_across(along))
    inward = torch.linalg.cross(normal, along)
    axes = torch.stack((along, inward, normal), dim=1)
    length, x, y = (((q - a) * w).sum(1) for q, w in ((b, along), (c, along), (c, inward)))
    shape = torch.stack((length, x, y), dim=1)
    return Triangles(a, axes, shape, corners.amin(1), corners.amax(1))


def _to_segment(x: Tensor, y: Tensor, ex: Tensor, ey: Tensor) -> Tensor:
    """Squared distance in the plane from (x, y) to the segment from the origin to (ex, ey)."""
    square = (ex * ex + ey * ey).clamp_(min=torch.finfo(x.dtype).tiny)
    share = ((x * ex + y * ey) / square).clamp_(0, 1)
    return (x - share * ex) ** 2 + (y - share * ey) ** 2


def _unit(vectors: Tensor, like: Tensor) -> Tensor:
    """[F, 3] of length one; where they have none, along `like`, or along x."""
    length = vectors.norm(dim=1, keepdim=True)
    other = like / like.norm(dim=1, keepdim=True).clamp(min=1e-300)
    other[other.norm(dim=1) < 0.5] = other.new_tensor([1.0, 0, 0])
    return torch.where(length > 1e-30, vectors / length.clamp(min=1e-300), other)


def _any_across(unit: Tensor) -> Tensor:
    """Some direction across each of unit [F, 3]."""
    least = torch.nn.functional.one_hot(unit.abs().argmin(dim=1), 3).to(unit)
    across: Tensor = torch.linalg.cross(unit, least)
    return across
