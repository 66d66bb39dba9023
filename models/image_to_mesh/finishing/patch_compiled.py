"""The loops of `patch`, compiled: triangles over a loop, and finer ones inside it.

Knows nothing of the mesh around beyond `taken_edge`. Import it inside functions only (see
`models.compiled`). A patch is a list of triangles and, across the side from corner k to k + 1 of
each, the triangle beyond: -1 on the loop.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.compiled import boolean, f64, filled, i32, i64, inlined, kernel, taken

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

DENSITY = math.sqrt(2)
"""Liepa's alpha: how much closer than the mesh around a new vertex may lie to its neighbours."""


@inlined
def area(points: Floats, a: int, b: int, c: int) -> float:
    """By Lagrange's identity: |u x v|^2 = |u|^2 |v|^2 - (u . v)^2."""
    dot, uu, vv = 0.0, 0.0, 0.0
    for k in range(3):
        u, v = points[b, k] - points[a, k], points[c, k] - points[a, k]
        dot, uu, vv = dot + u * v, uu + u * u, vv + v * v
    return 0.5 * math.sqrt(max(0.0, uu * vv - dot * dot))


@inlined
def angle_at(points: Floats, a: int, b: int, c: int) -> float:
    """The angle at a, between b and c."""
    dot, uu, vv = 0.0, 0.0, 0.0
    for k in range(3):
        u, v = points[b, k] - points[a, k], points[c, k] - points[a, k]
        dot, uu, vv = dot + u * v, uu + u * u, vv + v * v
    return math.acos(min(1.0, max(-1.0, dot / max(math.sqrt(uu * vv), 1e-300))))


@inlined
def distance(points: Floats, a: int, b: int) -> float:
    total = 0.0
    for k in range(3):
        total += (points[a, k] - points[b, k]) ** 2
    return math.sqrt(total)


@kernel(taken(f64, 2), taken(boolean, 2), filled(i32, 2), returns=boolean)
def smallest_area(points: Floats, taken_edge: npt.NDArray[np.bool_], triangles: Ints) -> bool:
    """The triangulation of the loop with the smallest area that uses no taken edge.

    points (n, 3), taken_edge (n, n), triangles (n - 2, 3) written. False if there is none. O(n^3):
    Barequet and Sharir, Filling gaps in the boundary of a polyhedron, 1995.
    """
    n = len(points)
    cost = np.zeros((n, n))
    split = np.full((n, n), -1, np.int32)
    for span in range(2, n):
        for i in range(n - span):
            j = i + span
            best, chosen = math.inf, -1
            if span == n - 1 or not taken_edge[i, j]:
                for m in range(i + 1, j):
                    total = cost[i, m] + cost[m, j]
                    if total < best:
                        total += area(points, i, m, j)
                        if total < best:
                            best, chosen = total, m
            cost[i, j], split[i, j] = best, chosen
    if not cost[0, n - 1] < math.inf:
        return False
    stack = [(0, n - 1)]
    count = 0
    while len(stack):
        i, j = stack.pop()
        if j - i < 2:
            continue
        m = split[i, j]
        triangles[count, 0], triangles[count, 1], triangles[count, 2] = i, m, j
        count += 1
        stack.append((i, m))
        stack.append((m, j))
    return True


@kernel(taken(f64, 2), taken(boolean, 2), filled(i32, 2), returns=boolean)
def shortest_ears(points: Floats, taken_edge: npt.NDArray[np.bool_], triangles: Ints) -> bool:
    """As `smallest_area` for long loops, in O(n^2): closes the ear with the shortest side first."""
    n = len(points)
    after = np.arange(1, n + 1)
    after[n - 1] = 0
    before = np.arange(-1, n - 1)
    before[0] = n - 1
    length = np.full(n, math.inf)
    for i in range(n):
        if not taken_edge[before[i], after[i]]:
            length[i] = distance(points, before[i], after[i])
    for count in range(n - 2):
        ear = int(length.argmin())
        if count == n - 3:  # the last three: no new side
            while after[ear] < 0:
                ear += 1
        elif length[ear] == math.inf:
            return False
        left, right = before[ear], after[ear]
        triangles[count, 0], triangles[count, 1], triangles[count, 2] = left, ear, right
        after[left], before[right] = right, left
        after[ear], length[ear] = -1, math.inf
        for i in (left, right):
            length[i] = math.inf
            if not taken_edge[before[i], after[i]]:
                length[i] = distance(points, before[i], after[i])
    return True


@inlined
def side_of(triangles: Ints, triangle: int, start: int) -> int:
    for k in range(3):
        if triangles[triangle, k] == start:
            return k
    return -1


@inlined
def joined(triangles: Ints, beyond: Ints, at: int, p: int, q: int) -> bool:
    """Whether p, a corner of triangle `at`, has a side to q anywhere in the patch."""
    for way in range(2):  # around p, one way and then, if the loop stopped it, the other
        triangle = at
        while True:
            k = side_of(triangles, triangle, p)
            if triangles[triangle, (k + 1) % 3] == q or triangles[triangle, (k + 2) % 3] == q:
                return True
            triangle = beyond[triangle, k if way == 0 else (k + 2) % 3]
            if triangle < 0:
                break
            if triangle == at:
                return False
    return False


@inlined
def flip(
    points: Floats, taken_edge: npt.NDArray[np.bool_], triangles: Ints, beyond: Ints, t: int, k: int
) -> bool:
    """Turn side k of triangle t where its opposite angles sum to more than a half turn."""
    s = beyond[t, k]
    if s < 0:
        return False
    a, b, p = triangles[t, k], triangles[t, (k + 1) % 3], triangles[t, (k + 2) % 3]
    j = side_of(triangles, s, b)
    q = triangles[s, (j + 2) % 3]
    if angle_at(points, p, a, b) + angle_at(points, q, a, b) <= math.pi + 1e-6:
        return False
    loop = len(taken_edge)
    if (p < loop and q < loop and taken_edge[p, q]) or joined(triangles, beyond, t, p, q):
        return False
    after_b, after_p = beyond[t, (k + 1) % 3], beyond[t, (k + 2) % 3]  # sides b-p and p-a
    after_a, after_q = beyond[s, (j + 1) % 3], beyond[s, (j + 2) % 3]  # sides a-q and q-b
    triangles[t, 0], triangles[t, 1], triangles[t, 2] = p, a, q
    beyond[t, 0], beyond[t, 1], beyond[t, 2] = after_p, after_a, s
    triangles[s, 0], triangles[s, 1], triangles[s, 2] = q, b, p
    beyond[s, 0], beyond[s, 1], beyond[s, 2] = after_q, after_b, t
    if after_a >= 0:
        beyond[after_a, side_of(triangles, after_a, q)] = t
    if after_b >= 0:
        beyond[after_b, side_of(triangles, after_b, p)] = s
    return True


@kernel(
    *(filled(f64, 2), filled(f64, 1), i64, taken(boolean, 2)),
    *(filled(i32, 2), filled(i32, 2), i64, i64),
    returns=i64,
)
def refine(
    points: Floats,  # (room, 3) the loop first; new vertices written behind
    spacing: Floats,  # (room,) how far apart vertices are around each
    point_count: int,
    taken_edge: npt.NDArray[np.bool_],  # (n, n)
    triangles: Ints,  # (room, 3) new ones written behind
    beyond: Ints,  # (room, 3)
    triangle_count: int,
    rounds: int,
) -> int:
    """Vertices after adding some until the patch is as fine as its loop; stops where room ends.

    Liepa, Filling holes in meshes, 2003, section 4. Each new vertex adds two triangles.
    """
    for _ in range(rounds):
        before = point_count
        for t in range(triangle_count):
            if point_count == len(points) or triangle_count + 2 > len(triangles):
                return point_count
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wanted = (spacing[a] + spacing[b] + spacing[c]) / 3
            for k in range(3):
                points[point_count, k] = (points[a, k] + points[b, k] + points[c, k]) / 3
            near = math.inf
            for corner in (a, b, c):
                there = DENSITY * distance(points, point_count, corner)
                near = min(near, there - max(wanted, spacing[corner]))
            if near <= 0:
                continue
            new, u, v = point_count, triangle_count, triangle_count + 1
            spacing[new] = wanted
            after_b, after_c = beyond[t, 1], beyond[t, 2]
            triangles[t, 2], beyond[t, 1], beyond[t, 2] = new, u, v
            triangles[u, 0], triangles[u, 1], triangles[u, 2] = b, c, new
            beyond[u, 0], beyond[u, 1], beyond[u, 2] = after_b, v, t
            triangles[v, 0], triangles[v, 1], triangles[v, 2] = c, a, new
            beyond[v, 0], beyond[v, 1], beyond[v, 2] = after_c, t, u
            if after_b >= 0:
                beyond[after_b, side_of(triangles, after_b, c)] = u
            if after_c >= 0:
                beyond[after_c, side_of(triangles, after_c, a)] = v
            point_count, triangle_count = point_count + 1, triangle_count + 2
            # The sides of the old triangle now have a thin triangle on them: turn them.
            for triangle in (t, u, v):
                flip(points, taken_edge, triangles, beyond, triangle, 0)
        for _ in range(rounds):
            turned = 0
            for t in range(triangle_count):
                for k in range(3):
                    turned += flip(points, taken_edge, triangles, beyond, t, k)
            if not turned:
                break
        if point_count == before:
            break
    return point_count
