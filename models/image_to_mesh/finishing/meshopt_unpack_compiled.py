"""The loops of `meshopt_unpack`, compiled: both streams, read as the format's pages say.

Knows nothing of files, and shares nothing with the encoders. Import it inside functions only (see
`models.compiled`). Format: Khronos EXT_meshopt_compression, appendix A.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.compiled import filled, i64, inlined, kernel, taken, u8

Bytes = npt.NDArray[np.uint8]
Longs = npt.NDArray[np.int64]


@inlined
def group(data: Bytes, at: int, mode: int, values: Bytes) -> int:
    """Sixteen differences; -> where the next group begins, -1: beyond the stream."""
    if at + 24 > len(data):  # the tail is longer than any group
        return -1
    if mode == 0:
        values[:] = 0
        return at
    if mode == 3:
        values[:] = data[at : at + 16]
        return at + 16
    bits = 2 * mode
    wide, behind = (1 << bits) - 1, at + 2 * bits
    for k in range(16):
        value = data[at + k * bits // 8] >> (8 - bits - k * bits % 8) & wide
        if value == wide:
            value = data[behind]
            behind += 1
        values[k] = value
    return behind


@kernel(taken(u8, 1), filled(u8, 2), returns=i64)
def attributes(data: Bytes, rows: Bytes) -> int:  # (bytes,), (N, S) filled
    """Where the tail begins; -1: the stream is damaged."""
    count, stride = rows.shape
    tail = max(stride, 32)
    if len(data) < 1 + tail or data[0] != 0xA0:
        return -1
    last = data[len(data) - stride :].copy()
    values = np.empty(16, np.uint8)
    most = min((8192 // stride) & ~15, 256)
    at = 1
    for begin in range(0, count, most):
        held = min(count - begin, most)
        groups = (held + 15) // 16
        for byte in range(stride):
            head = at
            at += (groups + 3) // 4
            for number in range(groups):
                if head + number // 4 >= len(data):
                    return -1
                mode = data[head + number // 4] >> 2 * (number % 4) & 3
                at = group(data, at, mode, values)
                if at < 0:
                    return -1
                for k in range(min(16, held - 16 * number)):
                    moved = values[k] >> 1 ^ (255 if values[k] & 1 else 0)
                    last[byte] += moved
                    rows[begin + 16 * number + k, byte] = last[byte]
    return at if at == len(data) - tail else -1


@inlined
def number(data: Bytes, state: Longs, end: int) -> int:
    """A vertex written out; moves the place and `last`. Cut short, the place is beyond the end."""
    value, shift = 0, 0
    while state[0] < end and shift < 35:
        byte: int = data[state[0]]
        state[0] += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    else:
        state[0] = end + 1
    way = -(value >> 1) - 1 if value & 1 else value >> 1
    state[2] = (state[2] + way) & 0xFFFFFFFF
    vertex: int = state[2]
    return vertex


@inlined
def remembered(vertices: Longs, heads: Longs, back: int) -> int:
    vertex: int = vertices[(heads[1] - 1 - back) & 15]
    return vertex


@inlined
def push_edge(edges: Longs, heads: Longs, start: int, end: int) -> None:
    edges[heads[0] & 15, 0], edges[heads[0] & 15, 1] = start, end
    heads[0] += 1


@inlined
def push(vertices: Longs, heads: Longs, vertex: int) -> None:
    vertices[heads[1] & 15] = vertex
    heads[1] += 1


@inlined
def told(data: Bytes, state: Longs, end: int, vertices: Longs, heads: Longs, nibble: int) -> int:
    """A corner of a triangle without a recent edge: new, remembered, or written out."""
    vertex: int = state[1]
    if nibble == 15:
        vertex = number(data, state, end)
    elif nibble:
        vertex = remembered(vertices, heads, nibble - 1)
    else:
        state[1] += 1
    return vertex


@kernel(taken(u8, 1), filled(i64, 2), returns=i64)
def triangles(data: Bytes, faces: Longs) -> int:  # (bytes,), (F, 3) filled
    """Where the tail begins; -1: the stream is damaged."""
    end = len(data) - 16
    if end < 1 + len(faces) or data[0] != 0xE1:
        return -1
    edges, vertices = np.zeros((16, 2), np.int64), np.zeros(16, np.int64)
    heads = np.zeros(2, np.int64)  # edges and vertices ever remembered
    state = np.zeros(3, np.int64)  # place in the data, next, last
    state[0] = 1 + len(faces)
    for face in range(len(faces)):
        code = data[1 + face]
        high, low = code >> 4, np.int64(code & 15)
        if high < 15:
            edge = (heads[0] - 1 - high) & 15
            a, b = edges[edge, 0], edges[edge, 1]
            if low in (13, 14):
                state[2] += 2 * low - 27
                c = state[2]
            else:
                c = told(data, state, end, vertices, heads, low + 1 if 0 < low < 13 else low)
            push_edge(edges, heads, c, b)
            push_edge(edges, heads, a, c)
            if low == 0 or low > 12:
                push(vertices, heads, c)
        else:
            pair = data[end + low] if low < 14 else np.uint8(0)
            if low >= 14:
                if state[0] >= end:
                    return -1
                pair = data[state[0]]
                state[0] += 1
                if pair == 0:
                    state[1] = 0
            z, w = np.int64(pair >> 4), np.int64(pair & 15)
            a = told(data, state, end, vertices, heads, 15 if low == 15 else 0)
            b = told(data, state, end, vertices, heads, z)
            c = told(data, state, end, vertices, heads, w)
            push_edge(edges, heads, b, a)
            push_edge(edges, heads, c, b)
            push_edge(edges, heads, a, c)
            push(vertices, heads, a)
            if z in (0, 15):
                push(vertices, heads, b)
            if w in (0, 15):
                push(vertices, heads, c)
        faces[face, 0], faces[face, 1], faces[face, 2] = a, b, c
    return end if state[0] == end else -1
