"""Rows of bytes in fewer bytes: mode 0, ATTRIBUTES, of EXT_meshopt_compression.

Knows nothing of what the rows mean. Each byte of a row is stored as its difference from the row
before, sixteen rows at a time in 0, 2, 4 or 8 bits: what changes little from row to row is small.
Format: Khronos EXT_meshopt_compression, appendix A, mode 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

HEADER = b"\xa0"
GROUP = 16
"""Rows whose differences share one width."""
BLOCK_BYTES, BLOCK_ROWS = 8192, 256
TAIL_BYTES = 32
WIDTHS = (2, 4)
"""Bits that can hold a difference, beside none and eight; all ones: a whole byte follows."""
ROOM = 24
"""Bytes of the largest group worth having: eight, and sixteen that did not fit."""


def encode_attributes(rows: Bytes) -> bytes:  # (N, S): S bytes each, a multiple of 4, up to 256
    """The rows as a stream, exactly."""
    count, stride = rows.shape
    first = rows[:1] if count else np.zeros((1, stride), np.uint8)
    moved = np.diff(rows, axis=0, prepend=first).view(np.int8)
    zigzag = ((moved << 1) ^ (moved >> 7)).view(np.uint8)
    block = min((BLOCK_BYTES // stride) & ~(GROUP - 1), BLOCK_ROWS)
    whole = count // block * block
    rest = np.pad(zigzag[whole:], ((0, -count % GROUP), (0, 0)))
    parts = [HEADER, _blocks(zigzag[:whole].reshape(-1, block, stride))]
    if len(rest):
        parts.append(_blocks(rest[None]))
    return b"".join((*parts, bytes(max(TAIL_BYTES - stride, 0)), first.tobytes()))


def _blocks(zigzag: Bytes) -> bytes:
    """(B, R, S) differences, R a multiple of 16, as B blocks: byte 0 of all rows, byte 1, ..."""
    number, rows, stride = zigzag.shape
    if not number:
        return b""
    groups = rows // GROUP
    values = zigzag.transpose(0, 2, 1).reshape(-1, GROUP)
    body = np.zeros((4, len(values), ROOM), np.uint8)
    length = np.zeros((4, len(values)), np.int64)
    for mode, bits in enumerate(WIDTHS, start=1):
        body[mode], length[mode] = _narrow(values, bits)
    body[3, :, :GROUP], length[3] = values, GROUP
    length[0] = np.where(values.any(axis=1), ROOM + 1, 0)
    mode = length.argmin(axis=0)
    every = np.arange(len(values))
    taken = np.arange(ROOM) < length[mode, every, None]
    runs = number * stride
    head = _header(mode.astype(np.uint8).reshape(runs, groups))
    stream = np.hstack((head, body[mode, every].reshape(runs, -1)))
    kept = np.hstack((np.ones(head.shape, bool), taken.reshape(runs, -1)))
    data: bytes = stream[kept].tobytes()
    return data


def _header(mode: Bytes) -> Bytes:
    """(R, G) widths -> (R, G / 4): two bits for each group, the first lowest."""
    padded = np.pad(mode, ((0, 0), (0, -mode.shape[1] % 4)))
    moved = padded.reshape(len(mode), -1, 4) << np.arange(0, 8, 2, dtype=np.uint8)
    header: Bytes = moved.sum(axis=2, dtype=np.uint8)
    return header


def _narrow(values: Bytes, bits: int) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """(n, 16) in so many bits, the first highest in its byte -> (n, 24) and bytes used (n,)."""
    most = np.uint8((1 << bits) - 1)
    wide = values >= most
    each = 8 // bits
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    small = np.minimum(values, most).reshape(len(values), -1, each) << shifts
    packed = small.sum(axis=2, dtype=np.uint8)
    behind = np.take_along_axis(values, np.argsort(~wide, axis=1, kind="stable"), axis=1)
    body = np.hstack((packed, behind))
    room = np.pad(body, ((0, 0), (0, ROOM - body.shape[1])))
    return room, packed.shape[1] + wide.sum(axis=1)
