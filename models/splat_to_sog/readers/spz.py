"""Reads Niantic .spz, versions 2 and 3 (one gzip stream) and 4 (one zstd stream an attribute).

Does not know the other formats, and turns no axes: the file's coordinates are kept as they are,
as PlayCanvas tools do (files of other tools may be upside down relative to their .ply).
Every size follows from the header's splat count, so a stream is never decompressed past it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.layout import alpha_to_logit
from models.splat_to_sog.splats import COEFFICIENTS, Splats

MAGIC = b"NGSP"
FLAG_ANTIALIASED = 1
FLAG_EXTENSIONS = 2  # vendor data after the arrays; passed over
COLOUR_SCALE = 0.15
FREE_BYTES = 64 << 20  # below this much output any compression ratio is believed
MAX_RATIO = 200  # above it: quantised splats compress 1.5 to 3 times, never this well

STREAMS = ("positions", "alphas", "colours", "scales", "rotations", "harmonics")


@dataclass(frozen=True)
class Header:
    version: int
    count: int
    degree: int
    fractional_bits: int
    antialiased: bool
    extensions: bool

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each attribute's array, in file order."""
        rotation = 3 if self.version == 2 else 4
        sh = 3 * COEFFICIENTS[self.degree]
        return tuple(self.count * width for width in (9, 1, 3, 3, rotation, sh))


def read_spz(path: Path, name: str) -> Splats:
    data = path.read_bytes()
    if data[:4] == MAGIC:
        header, arrays = _read_v4(data, name)
    else:
        header, arrays = _read_gzip(data, name)
    return _decode(header, arrays)


def _read_gzip(data: bytes, name: str) -> tuple[Header, list[bytes]]:
    inflate = zlib.decompressobj(wbits=31)
    try:
        head = inflate.decompress(data, 16)
        header = _parse_header(head, name, versions=(2, 3))
        total = sum(header.sizes)
        _refuse_bomb(len(data), total, name)
        body = inflate.decompress(inflate.unconsumed_tail, total + 1) if total else b""
        # A further call drains what zlib still holds back in its window.
        if len(body) <= total and not inflate.eof:
            body += inflate.decompress(inflate.unconsumed_tail, total + 1 - len(body) or 1)
    except zlib.error as error:
        raise _bad(name, f"its gzip stream is damaged ({error})") from error
    if header.extensions:
        body = body[:total]
    if len(body) != total:
        more = "more than " if len(body) > total else ""
        raise _bad(
            name,
            f"{header.count} splats of degree {header.degree} need {total} bytes, "
            f"the gzip stream holds {more}{min(len(body), total)}",
            code="splat_truncated",
        )
    if not (inflate.eof or header.extensions):
        raise _bad(name, "its gzip stream ends early, without a checksum", code="splat_truncated")
    arrays, start = [], 0
    for size in header.sizes:
        arrays.append(body[start : start + size])
        start += size
    return header, arrays


def _read_v4(data: bytes, name: str) -> tuple[Header, list[bytes]]:
    header = _parse_header(data[:16], name, versions=(4,))
    if len(data) < 32:
        raise _bad(
            name, f"it is {len(data)} bytes long, the header alone takes 32", code="splat_truncated"
        )
    streams, toc = data[15], struct.unpack_from("<I", data, 16)[0]
    sizes = header.sizes
    expected = 6 if header.degree else 5
    if streams != expected:
        raise _bad(name, f"it has {streams} streams, degree {header.degree} takes {expected}")
    start = toc + 16 * streams
    if toc < 32 or start > len(data):
        raise _bad(
            name, f"its table of contents lies at byte {toc}, outside the file of {len(data)} bytes"
        )
    _refuse_bomb(len(data), sum(sizes), name)
    arrays = []
    for index in range(streams):
        packed, size = struct.unpack_from("<QQ", data, toc + 16 * index)
        what = STREAMS[index]
        if size != sizes[index]:
            raise _bad(
                name,
                f"stream '{what}' declares {size} bytes, {header.count} splats need {sizes[index]}",
            )
        if start + packed > len(data):
            raise _bad(
                name, f"stream '{what}' ends past the end of the file", code="splat_truncated"
            )
        arrays.append(_unzstd(data[start : start + packed], size, what, name))
        start += packed
    return header, [*arrays, *([b""] * (6 - streams))]


def _unzstd(packed: bytes, size: int, what: str, name: str) -> bytes:
    """Exactly `size` bytes, read through a counter: the frame's own size field is not believed."""
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed) as stream:
            body = stream.read(size)
            surplus = stream.read(1)
    except zstandard.ZstdError as error:
        raise _bad(name, f"stream '{what}' is damaged ({error})") from error
    if len(body) != size or surplus:
        more = "more than " if surplus else ""
        raise _bad(
            name,
            f"stream '{what}' holds {more}{len(body)} bytes, {size} are needed",
            code="splat_truncated",
        )
    return body


def _parse_header(head: bytes, name: str, versions: tuple[int, ...]) -> Header:
    if len(head) < 16:
        raise _bad(name, f"the header is {len(head)} bytes long, not 16", code="splat_truncated")
    magic, version, count, degree, bits, flags, _ = struct.unpack("<4sIIBBBB", head[:16])
    if magic != MAGIC:
        raise _bad(name, f"it begins with {magic!r}, an .spz with {MAGIC!r}")
    if version not in versions:
        raise _bad(
            name, f"version {version} in this container; read are 2 and 3 (gzip) and 4 (zstd)"
        )
    if degree > (4 if version == 4 else 3):
        raise _bad(
            name,
            f"spherical-harmonics degree {degree}; allowed are 0 to {4 if version == 4 else 3}",
        )
    if bits > 23:
        raise _bad(name, f"{bits} fractional bits; allowed are 0 to 23")
    return Header(
        version,
        count,
        degree,
        fractional_bits=bits,
        antialiased=bool(flags & FLAG_ANTIALIASED),
        extensions=bool(flags & FLAG_EXTENSIONS),
    )


def _refuse_bomb(packed: int, size: int, name: str) -> None:
    if size > FREE_BYTES and size > MAX_RATIO * packed:
        raise _bad(
            name,
            f"{packed} bytes claim to unpack to {size}; allowed above {FREE_BYTES} bytes is a "
            f"ratio of {MAX_RATIO}",
            code="splat_limits",
        )


def _decode(header: Header, arrays: list[bytes]) -> Splats:
    n, k = header.count, COEFFICIENTS[header.degree]
    positions, alphas, colours, scales, rotations, harmonics = (
        np.frombuffer(array, np.uint8) for array in arrays
    )
    p = positions.reshape(n, 3, 3).astype(np.int32)
    fixed = (
        (p[..., 0] | p[..., 1] << 8 | p[..., 2] << 16) ^ 0x800000
    ) - 0x800000  # sign of 24 bits
    decode_quats = _quats_v2 if header.version == 2 else _quats_v3
    sh = (harmonics.reshape(n, k, 3).astype(np.float32) - 128) / 128  # coefficient, channel
    return Splats(
        means=(fixed / (1 << header.fractional_bits)).astype(np.float32),
        scales=(scales.reshape(n, 3) / 16 - 10).astype(np.float32),
        quats=decode_quats(rotations.reshape(n, -1)),
        opacities=alpha_to_logit(alphas).astype(np.float32),
        sh0=((colours.reshape(n, 3) / 255 - 0.5) / COLOUR_SCALE).astype(np.float32),
        shN=np.ascontiguousarray(sh.transpose(0, 2, 1)),
        model="antialiased" if header.antialiased else "default",
    )


def _quats_v2(bytes_: NDArray[np.uint8]) -> NDArray[np.float32]:  # [N, 3] -> [N, 4] w, x, y, z
    xyz = bytes_ / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(axis=1, keepdims=True)))
    return np.concatenate([w, xyz], axis=1).astype(np.float32)


def _quats_v3(bytes_: NDArray[np.uint8]) -> NDArray[np.float32]:  # [N, 4] -> [N, 4] w, x, y, z
    """The largest of x, y, z, w is left out; the others are sign and 9-bit magnitude each."""
    words = np.ascontiguousarray(bytes_).view("<u4")[:, 0]
    largest = (words >> 30).astype(np.intp)
    xyzw = np.zeros((len(words), 4))
    shift = np.zeros(len(words), np.uint32)
    for component in (3, 2, 1, 0):  # the highest remaining component has the lowest bits
        rows = largest != component
        field = words[rows] >> shift[rows]
        magnitude = (field & 511) / 511 * np.sqrt(0.5)
        xyzw[rows, component] = np.where(field & 512, -magnitude, magnitude)
        shift[rows] += 10
    left_out = np.sqrt(np.maximum(0, 1 - (xyzw**2).sum(axis=1)))
    xyzw[np.arange(len(words)), largest] = left_out
    return xyzw[:, [3, 0, 1, 2]].astype(np.float32)


def _bad(name: str, problem: str, code: str = "splat_header") -> InvalidInput:
    return InvalidInput(
        f"{name}: .spz: {problem}.",
        code=code,
        next_step="Upload the complete file, or export it again (spz version 2, 3 or 4).",
    )
