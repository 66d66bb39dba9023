"""Triangles of marching cubes for every sign of a cube's corners and every choice on its faces.

Derived from one rule instead of a printed table, and knows nothing of values. On a face whose
diagonals differ in sign the corners inside may be joined or apart (Nielson and Hamann, The
asymptotic decider, 1991): both choices are cases here, so two cubes that choose alike fit together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
from torch import Tensor

CORNERS = tuple((x, y, z) for z, y, x in product((0, 1), repeat=3))
"""Corner i lies at (x, y, z) = bits 0, 1, 2 of i."""

EDGES = tuple(
    (lower, lower | 1 << axis) for axis in range(3) for lower in range(8) if not lower >> axis & 1
)
"""Edges as (lower, upper) corner: four along x, four along y, four along z."""

EDGE_AXIS = tuple(axis for axis in range(3) for _ in range(4))


def _around(axis: int, side: int) -> tuple[int, int, int, int]:
    """A face's corners, counter-clockwise seen from outside the cube."""
    u, v = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
    ring = [0, u, u | v, v]
    base = side << axis
    a, b, c, d = (base | corner for corner in (ring if side else ring[::-1]))
    return a, b, c, d


FACES = tuple(_around(axis, side) for axis in range(3) for side in (0, 1))
"""-x, +x, -y, +y, -z, +z."""

CENTRE = len(EDGES)
"""Stands for the vertex in the middle of a cube."""


@dataclass(frozen=True)
class CubeCases:
    """Tables over the case (bit i set where corner i is inside), and over the case and the choice.

    ambiguous: bool [256, 6]  faces whose diagonals differ in sign
    count:     int64 [16384]  triangles at case + 256 * choice; bit f of the choice is set where the
                              inside corners of ambiguous face f are joined
    triangles: int64 [16384, T, 3]  edges of the cube (or CENTRE), counter-clockwise from outside
    centred:   bool [16384]   whether CENTRE is used
    """

    ambiguous: Tensor
    count: Tensor
    triangles: Tensor
    centred: Tensor

    def to(self, device: torch.device) -> CubeCases:
        return CubeCases(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@cache
def cube_cases() -> CubeCases:
    """The tables, on the CPU."""
    ambiguous = [[_is_ambiguous(case, face) for face in FACES] for case in range(256)]
    found: dict[int, list[tuple[int, int, int]]] = {}
    for case, faces in enumerate(ambiguous):
        for bits in product((0, 1), repeat=sum(faces)):
            given = iter(bits)
            joined = [bool(next(given)) if face else False for face in faces]
            choice = sum(bit << f for f, bit in enumerate(joined))
            found[case + 256 * choice] = [
                triangle for loop in _loops(case, joined) for triangle in _cut(loop)
            ]
    most = max(len(triangles) for triangles in found.values())
    count = torch.zeros(256 * 64, dtype=torch.int64)
    table = torch.zeros(256 * 64, most, 3, dtype=torch.int64)
    for row, triangles in found.items():
        count[row] = len(triangles)
        if triangles:
            table[row, : len(triangles)] = torch.tensor(triangles)
    return CubeCases(torch.tensor(ambiguous), count, table, (table == CENTRE).flatten(1).any(1))


def _inside(case: int, corner: int) -> bool:
    return bool(case >> corner & 1)


def _is_ambiguous(case: int, face: tuple[int, ...]) -> bool:
    a, b, c, d = (_inside(case, corner) for corner in face)
    return a == c and b == d and a != b


def _loops(case: int, joined: list[bool]) -> list[list[int]]:
    """Closed ways along the cube's faces, as the edges they cross.

    On each face, seen from outside, a line leads from where a walk around it enters the inside to
    where the walk leaves it: the same run of inside corners if they are apart, the one before if
    joined. The two faces of an edge walk it in opposite senses, so each edge is left once.
    """
    onward: dict[int, int] = {}
    for face, join in zip(FACES, joined, strict=True):
        sides = [(face[k], face[(k + 1) % 4]) for k in range(4)]
        crossed = [side for side in sides if _inside(case, side[0]) != _inside(case, side[1])]
        for k, (first, second) in enumerate(crossed):
            if _inside(case, first):
                step = 1 if join or len(crossed) == 2 else -1
                onward[_edge(*crossed[(k + step) % len(crossed)])] = _edge(first, second)
    loops = []
    while onward:
        edge, following = onward.popitem()
        loop = [edge]
        while following != edge:
            loop.append(following)
            following = onward.pop(following)
        loops.append(loop)
    return loops


def _edge(a: int, b: int) -> int:
    return EDGES.index((min(a, b), max(a, b)))


def _cut(loop: list[int]) -> list[tuple[int, int, int]]:
    """Triangles over a loop. None has a side that joins two edges of one face without being a line
    of the loop there: the next cube could have the same side, and it would have four triangles. A
    loop that cannot be cut so gets a vertex in the middle."""
    best = _best(loop)
    if best is not None:
        return best
    return [(a, b, CENTRE) for a, b in zip(loop, loop[1:] + loop[:1], strict=True)]


def _best(loop: list[int]) -> list[tuple[int, int, int]] | None:
    """Cut off the triangle on the side from last to first, then what is left on both sides."""
    if len(loop) < 3:
        return []
    for k in range(1, len(loop) - 1):
        left, right = loop[: k + 1], loop[k:]
        if any(len(part) > 2 and _share_face(part[0], part[-1]) for part in (left, right)):
            continue
        first, second = _best(left), _best(right)
        if first is not None and second is not None:
            return [*first, *second, (loop[0], loop[k], loop[-1])]
    return None


def _share_face(one: int, other: int) -> bool:
    corners = {*EDGES[one], *EDGES[other]}
    return any(corners <= set(face) for face in FACES)
