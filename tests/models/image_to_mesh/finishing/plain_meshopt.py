"""Streams of EXT_meshopt_compression read in plain Python, straight from the format's pages.

Shares nothing with the encoders or the decoder under test. Khronos EXT_meshopt_compression,
appendix A (modes 0 and 1) and B (filter 1).
"""

from __future__ import annotations

import math

HEADERS = {"ATTRIBUTES": 0xA0, "TRIANGLES": 0xE1}


def read_deltas(data: bytes, at: int, mode: int) -> tuple[list[int], int]:
    """One group of 16, still zigzag, and where the next one begins."""
    if mode == 0:
        return [0] * 16, at
    if mode == 3:
        return list(data[at : at + 16]), at + 16
    bits = {1: 2, 2: 4}[mode]
    size = 16 * bits // 8
    all_bits = int.from_bytes(data[at : at + size], "big")
    small = [all_bits >> bits * (15 - k) & ((1 << bits) - 1) for k in range(16)]
    at += size
    deltas = []
    for value in small:
        if value == (1 << bits) - 1:
            value = data[at]
            at += 1
        deltas.append(value)
    return deltas, at


def unzigzag(value: int) -> int:
    return -(value >> 1) - 1 if value & 1 else value >> 1


def read_attributes(data: bytes, count: int, stride: int) -> bytes:
    assert data[0] == HEADERS["ATTRIBUTES"]
    current = list(data[len(data) - stride :])
    rows = [[0] * stride for _ in range(count)]
    at, done = 1, 0
    while done < count:
        held = min(count - done, min((8192 // stride) & ~15, 256))
        groups = math.ceil(held / 16)
        for byte in range(stride):
            header = data[at : at + math.ceil(groups / 4)]
            at += len(header)
            deltas: list[int] = []
            for group in range(groups):
                more, at = read_deltas(data, at, header[group // 4] >> 2 * (group % 4) & 3)
                deltas += more
            for row in range(held):
                current[byte] = (current[byte] + unzigzag(deltas[row])) & 255
                rows[done + row][byte] = current[byte]
        done += held
    assert at == len(data) - max(stride, 32), "the tail begins where the blocks end"
    return bytes(byte for row in rows for byte in row)


def read_triangles(data: bytes, count: int) -> list[tuple[int, int, int]]:
    """count: of triangles."""
    assert data[0] == HEADERS["TRIANGLES"]
    codes, rest, table = data[1 : 1 + count], iter(data[1 + count : -16]), data[-16:]
    assert table[14:] == b"\0\0"
    assert all(byte >> 4 < 15 and byte & 15 < 15 for byte in table[:14])
    edges: list[tuple[int, int]] = []  # the newest last
    vertices: list[int] = []
    following, last = 0, 0
    triangles = []

    def new() -> int:
        nonlocal following
        following += 1
        return following - 1

    def explicit() -> int:
        nonlocal last
        value, shift, byte = 0, 0, 128
        while byte & 128:
            byte = next(rest)
            value |= (byte & 127) << shift
            shift += 7
        last = (last + unzigzag(value)) & 0xFFFFFFFF
        return last

    def corner(nibble: int) -> int:
        if nibble == 0:
            return new()
        return explicit() if nibble == 15 else vertices[-nibble]

    for code in codes:
        x, y = code >> 4, code & 15
        if x < 15:
            a, b = edges[-1 - x]
            if y == 0:
                c = new()
            elif y < 13:
                c = vertices[-1 - y]
            elif y < 15:
                c = last = last + (1 if y == 14 else -1)
            else:
                c = explicit()
            edges += [(c, b), (a, c)]
            vertices += [c] if y == 0 or y >= 13 else []
        else:
            pair = table[y] if y < 14 else next(rest)
            if y >= 14 and pair == 0:
                following = 0
            a = explicit() if y == 15 else new()
            b = corner(pair >> 4)
            c = corner(pair & 15)
            edges += [(b, a), (c, b), (a, c)]
            vertices += [a]
            vertices += [b] if pair >> 4 in (0, 15) else []
            vertices += [c] if pair & 15 in (0, 15) else []
        edges, vertices = edges[-16:], vertices[-16:]
        triangles.append((a, b, c))
    assert next(rest, None) is None, "bytes are left over"
    return triangles


def turn_back(row: tuple[int, int, int, int], most: int) -> tuple[float, ...]:
    """The OCTAHEDRAL filter's x, y, z before rounding, and the fourth. most: 127 or 32767."""
    x, y = row[0] / row[2], row[1] / row[2]
    z = 1 - abs(x) - abs(y)
    below = min(z, 0.0)
    x, y = x - math.copysign(below, x), y - math.copysign(below, y)
    length = math.sqrt(x * x + y * y + z * z)
    return x / length * most, y / length * most, z / length * most, row[3]
