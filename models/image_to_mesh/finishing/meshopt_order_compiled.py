"""The loop of `meshopt_order`, compiled: a walk over a mesh along the edges last passed.

Knows nothing of streams. Import it inside functions only (see `models.compiled`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.compiled import boolean, filled, i32, i64, inlined, kernel, taken

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]

EDGES, VERTICES = 15, 13
"""Recent ones that the format can name."""
RECENT, SEEN, NEW = 1000, 900, 500
"""What speaks for a triangle: first close what is open, then go on to new vertices."""
PER_LEFT, PER_LEFT_AT_EDGE, PER_EDGE = 20, 50, 10
"""What speaks against it: triangles that its vertices still have, and an edge long passed.

Chosen on a scanned drill of 30,000 triangles and 248 charts, of 36 combinations."""


@inlined
def next_side(
    faces: Ints, edges: Longs, done: npt.NDArray[np.bool_], left: Longs, seen: Longs, now: int
) -> int:
    """Of the triangles ahead the one with the best score, as its side; -1: there is none."""
    side, best = -1, -(1 << 40)
    for k in range(EDGES):
        if edges[k] < 0 or done[edges[k] // 3]:
            continue
        face, corner = edges[k] // 3, edges[k] % 3
        a, b = faces[face, corner], faces[face, (corner + 1) % 3]
        c = faces[face, (corner + 2) % 3]
        score = NEW
        if seen[c]:
            score = RECENT if now - seen[c] < VERTICES else SEEN
        score -= PER_LEFT * left[c] + PER_LEFT_AT_EDGE * min(left[a], left[b]) + PER_EDGE * k
        if score > best:
            side, best = edges[k], score
    return side


@inlined
def cheapest_at(
    faces: Ints,
    sides: Longs,
    begin: int,
    end: int,
    done: npt.NDArray[np.bool_],
    seen: Longs,
    now: int,
) -> int:
    """Of one vertex's triangles the one whose corners take least to tell, as its first side."""
    chosen, least = -1, 100
    for place in range(begin, end):
        face = sides[place] // 3
        if done[face]:
            continue
        cost = 0
        for k in range(3):
            met = seen[faces[face, k]]
            if not met:
                cost += 1
            elif now - met >= VERTICES:
                cost += 2
        if cost < least:
            chosen, least = 3 * face, cost
    return chosen


@kernel(
    *(taken(i32, 2), taken(i64, 1), taken(i64, 1), taken(i64, 1)),
    *(filled(i64, 1), filled(boolean, 1), filled(i64, 1)),
)
def walk(
    faces: Ints,  # (F, 3)
    beyond: Longs,  # (3 F,) the side, 3 face + k, on the other side of each; -1 on a border
    sides: Longs,  # (3 F,) sides by the vertex they start from
    begin: Longs,  # (N + 1,) where each vertex's sides begin
    left: Longs,  # (N,) triangles at each vertex; counted down
    done: npt.NDArray[np.bool_],  # (F,) false; set
    order: Longs,  # (F,) filled
) -> None:
    edges = np.full(EDGES, -1, np.int64)  # sides of triangles ahead, the newest first
    seen = np.zeros(len(left), np.int64)  # when each vertex was last told in full, from 1; 0: never
    met = np.empty(3 * len(faces), np.int64)  # vertices told, to go back to from a dead end
    now, behind, start = 0, 0, 0
    for at in range(len(faces)):
        side = next_side(faces, edges, done, left, seen, now)
        fresh = side < 0
        while side < 0 and behind:
            vertex = met[behind - 1]
            if left[vertex]:
                side = cheapest_at(faces, sides, begin[vertex], begin[vertex + 1], done, seen, now)
            else:
                behind -= 1
        while side < 0:
            if not done[start]:
                side = 3 * start
            start += 1
        face, corner = side // 3, side % 3
        order[at], done[face] = face, True
        for k in range(3):
            vertex = faces[face, k]
            left[vertex] -= 1
            told = fresh or k == (corner + 2) % 3  # the others are the edge's
            if told and (not seen[vertex] or now - seen[vertex] >= VERTICES):
                now += 1
                seen[vertex] = now
                met[behind] = vertex
                behind += 1
        for turn in range(0 if fresh else 1, 3):
            for k in range(EDGES - 1, 0, -1):
                edges[k] = edges[k - 1]
            edges[0] = beyond[3 * face + (corner + turn) % 3]
