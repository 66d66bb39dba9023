"""Which crossed edges of a cube share a dual vertex, for each of the 256 signs of its corners.

Derived from one rule instead of a printed table, and knows nothing of distances: on a face whose
diagonals differ in sign, the corners inside are kept apart (Nielson, Dual Marching Cubes, 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import torch
from torch import Tensor

CORNERS = tuple((x, y, z) for z, y, x in product((0, 1), repeat=3))
"""Corner i lies at (x, y, z) = bits 0, 1, 2 of i: 000, 100, 010, 110, 001, 101, 011, 111."""

EDGES = (
    *((0, 1), (1, 5), (4, 5), (0, 4)),
    *((2, 3), (3, 7), (6, 7), (2, 6)),
    *((0, 2), (1, 3), (5, 7), (4, 6)),
)
"""The edges as (lower, upper) corner, in the order of the network's 12 beta weights."""

EDGE_AXIS = tuple((upper - lower).bit_length() - 1 for lower, upper in EDGES)

_FACES = tuple(
    (axis, side, [i for i, corner in enumerate(CORNERS) if corner[axis] == side])
    for axis, side in product(range(3), (0, 1))
)


@dataclass(frozen=True)
class DualCases:
    """Tables over the case: the number whose bit i is set where corner i is inside.

    patch:   int8 [256, 12]   the dual vertex each edge belongs to, -1 where it is not crossed
    count:   int8 [256]       how many dual vertices: 0 to 4
    partner: int8 [256, 3]    step to the neighbour behind the face that makes this case
                              `ambiguous`, zero elsewhere
    ambiguous: bool [256]     all four edges of one face end in one dual vertex (cases C16 and C19).
             Where two such cubes share that face, an edge of the surface would have four sides;
             both then take the partition of the complement (Wenger, Isosurfaces, 2013).
    """

    patch: Tensor
    count: Tensor
    partner: Tensor
    ambiguous: Tensor

    def to(self, device: torch.device) -> DualCases:
        return DualCases(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@cache
def dual_cases() -> DualCases:
    """The tables, on the CPU."""
    patches = [_patches(case) for case in range(256)]
    partners = [_partner(case, patch) for case, patch in enumerate(patches)]
    return DualCases(
        patch=torch.tensor(patches, dtype=torch.int8),
        count=torch.tensor([max(patch) + 1 for patch in patches], dtype=torch.int8),
        partner=torch.tensor([step or (0, 0, 0) for step in partners], dtype=torch.int8),
        ambiguous=torch.tensor([step is not None for step in partners]),
    )


def _inside(case: int, corner: int) -> bool:
    return bool(case >> corner & 1)


def _crossed(case: int, corners: list[int]) -> list[int]:
    """The edges between these corners whose ends differ."""
    return [
        e
        for e, (a, b) in enumerate(EDGES)
        if a in corners and b in corners and _inside(case, a) != _inside(case, b)
    ]


def _patches(case: int) -> list[int]:
    """The patch of each edge: edges joined by a line on some face belong together."""
    patch = list(range(len(EDGES)))
    for _, _, corners in _FACES:
        for group in _lines(case, corners):
            for first, second in pairwise(group):
                old, new = patch[second], patch[first]
                patch = [new if label == old else label for label in patch]
    crossed = _crossed(case, list(range(8)))
    numbers = {label: n for n, label in enumerate(dict.fromkeys(patch[e] for e in crossed))}
    return [numbers[patch[e]] if e in crossed else -1 for e in range(len(EDGES))]


def _lines(case: int, corners: list[int]) -> list[list[int]]:
    """The lines in which the surface cuts a face, each as the two edges it joins."""
    crossed = _crossed(case, corners)
    if len(crossed) < 4:
        return [crossed]
    inside = [corner for corner in corners if _inside(case, corner)]
    return [[e for e in crossed if corner in EDGES[e]] for corner in inside]


def _partner(case: int, patch: list[int]) -> tuple[int, int, int] | None:
    """The step across the face whose four crossed edges share a patch, if there is one."""
    for axis, side, corners in _FACES:
        crossed = _crossed(case, corners)
        if len(crossed) == 4 and len({patch[e] for e in crossed}) == 1:
            step = [0, 0, 0]
            step[axis] = 1 if side else -1
            return step[0], step[1], step[2]
    return None
