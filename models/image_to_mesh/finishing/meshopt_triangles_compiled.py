"""The loop of `meshopt_triangles`, compiled: one code for each triangle.

Knows nothing of the stream's frame. Import it inside functions only (see `models.compiled`).
Names follow the format: `next`, the first vertex not seen yet; `last`, the last one written out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.compiled import filled, i32, i64, inlined, kernel, taken, u8

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]

FIFO = 16
NOT_THERE = 15
"""As a nibble: an edge not among the recent ones, or a vertex that is written out."""


@inlined
def write_index(data: Bytes, at: int, index: int, last: int) -> int:
    """The way from `last`, zigzag and seven bits a byte; -> where the next byte goes."""
    way = index - last
    value = 2 * way if way >= 0 else -2 * way - 1
    while value > 127:
        data[at] = value & 127 | 128
        value >>= 7
        at += 1
    data[at] = value
    return at + 1


@inlined
def push(vertices: Longs, vertex: int) -> None:
    """The newest first: short enough to move."""
    for k in range(FIFO - 1, 0, -1):
        vertices[k] = vertices[k - 1]
    vertices[0] = vertex


@inlined
def push_edge(edges: Longs, start: int, end: int) -> None:
    for k in range(FIFO - 1, 0, -1):
        edges[k, 0], edges[k, 1] = edges[k - 1, 0], edges[k - 1, 1]
    edges[0, 0], edges[0, 1] = start, end


@inlined
def third(vertices: Longs, c: int, next_: int, last: int) -> int:
    """How the vertex beyond a recent edge is told: new, recent, beside `last`, or written out."""
    if c == next_:
        return 0
    for k in range(1, 13):
        if vertices[k] == c:
            return k
    if c == last - 1:
        return 13
    return 14 if c == last + 1 else NOT_THERE


@inlined
def corner(vertices: Longs, vertex: int, next_: int) -> int:
    """How a vertex of a triangle without a recent edge is told."""
    if vertex == next_:
        return 0
    for k in range(14):
        if vertices[k] == vertex:
            return k + 1
    return NOT_THERE


@kernel(taken(i32, 2), taken(i64, 1), filled(u8, 1), filled(u8, 1), filled(i64, 1), returns=i64)
def encode(
    faces: Ints,  # (F, 3)
    table: Longs,  # (256,) place of a pair of nibbles in the table, -1: not there
    codes: Bytes,  # (F,) filled
    data: Bytes,  # (16 F,) filled from its begin
    pairs: Longs,  # (256,) counted: pairs of nibbles a table could hold
) -> int:
    """Bytes of `data` that are used."""
    edges = np.full((FIFO, 2), -1, np.int64)
    vertices = np.full(FIFO, -1, np.int64)
    next_, last, at = 0, 0, 0
    for face in range(len(faces)):
        near, turn, way = NOT_THERE, 0, NOT_THERE
        for k in range(15):
            for side in range(3):
                if (
                    edges[k, 0] == faces[face, side]
                    and edges[k, 1] == faces[face, (side + 1) % 3]
                    and (near == NOT_THERE or way == NOT_THERE)
                ):
                    told = third(vertices, faces[face, (side + 2) % 3], next_, last)
                    if near == NOT_THERE or told != NOT_THERE:
                        near, turn, way = k, side, told
        if near != NOT_THERE:
            a, b = faces[face, turn], faces[face, (turn + 1) % 3]
            c = faces[face, (turn + 2) % 3]
            codes[face] = near << 4 | way
            if way == 0:
                next_ += 1
            elif way > 12:
                if way == NOT_THERE:
                    at = write_index(data, at, c, last)
                last = c
            push_edge(edges, c, b)
            push_edge(edges, a, c)
            if way == 0 or way > 12:
                push(vertices, c)
            continue
        if faces[face, 1] == next_:
            turn = 1
        elif faces[face, 2] == next_:
            turn = 2
        a, b = faces[face, turn], faces[face, (turn + 1) % 3]
        c = faces[face, (turn + 2) % 3]
        new = a == next_
        next_ += new
        z = corner(vertices, b, next_)
        next_ += z == 0
        w = corner(vertices, c, next_)
        next_ += w == 0
        pair = z << 4 | w
        if new and z != NOT_THERE and w != NOT_THERE:
            pairs[pair] += 1
        if new and table[pair] >= 0:
            codes[face] = 0xF0 | table[pair]
        else:
            codes[face] = 0xFE if new else 0xFF
            data[at] = pair
            at += 1
        if not new:
            at = write_index(data, at, a, last)
            last = a
        if z == NOT_THERE:
            at = write_index(data, at, b, last)
            last = b
        if w == NOT_THERE:
            at = write_index(data, at, c, last)
            last = c
        push_edge(edges, b, a)
        push_edge(edges, c, b)
        push_edge(edges, a, c)
        push(vertices, a)
        if z == 0 or z == NOT_THERE:
            push(vertices, b)
        if w == 0 or w == NOT_THERE:
            push(vertices, c)
    return at
