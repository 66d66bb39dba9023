"""Reads Niantic .spz, versions 1 to 3 (one gzip stream) and 4 (one zstd stream an attribute).

Does not know the other formats, and turns no axes: the file's coordinates are kept as they are,
as PlayCanvas tools do (files of other tools may be upside down relative to their .ply).
Every size follows from the header's splat count, so a stream is never decompressed past it; it is
decompressed chunk by chunk, straight into the scene's arrays.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import zstandard
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.layout import alpha_to_logit
from models.splat_to_sog.layout_spz import COLOUR_SCALE, FLAG_ANTIALIASED, FLAG_EXTENSIONS, MAGIC
from models.splat_to_sog.scratch import Scratch, chunks
from models.splat_to_sog.splats import COEFFICIENTS, Model, Splats

FREE_BYTES = 64 << 20  # below this much output any compression ratio is believed
MAX_WINDOW_BYTES = 1 << 27
CHUNK_ROWS = 1 << 16
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
    def model(self) -> Model:
        return "antialiased" if self.antialiased else "default"

    @property
    def widths(self) -> tuple[int, ...]:
        """Bytes a splat of each attribute's array, in file order; version 1 has half floats."""
        position = 6 if self.version == 1 else 9
        rotation = 3 if self.version < 3 else 4
        return (position, 1, 3, 3, rotation, 3 * COEFFICIENTS[self.degree])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each attribute's array."""
        return tuple(self.count * width for width in self.widths)


def read_spz(path: Path, name: str, scratch: Scratch | None = None) -> Splats:
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        read = _read_v4 if magic == MAGIC else _read_gzip
        return read(file, path.stat().st_size, name, scratch)


def _read_gzip(file: IO[bytes], size: int, name: str, scratch: Scratch | None) -> Splats:
    with gzip.GzipFile(fileobj=file, mode="rb") as stream:  # closing it leaves `file` open

        def pull(wanted: int) -> bytes:
            try:
                return stream.read(wanted)
            except EOFError as error:
                raise _bad(
                    name, "its gzip stream ends early, without a checksum", code="splat_truncated"
                ) from error
            except (zlib.error, OSError) as error:
                raise _bad(name, f"its gzip stream is damaged ({error})") from error

        header = _parse_header(pull(16), name, versions=(1, 2, 3))
        total = sum(header.sizes)
        _refuse_bomb(size, total, name)
        splats = Splats.empty(header.count, header.degree, scratch=scratch, model=header.model)
        done = 0
        for what, attribute_size in zip(STREAMS, header.sizes, strict=True):
            got = _drain(pull, header, what, splats)
            done += got
            if got < attribute_size:
                break
        surplus = b"" if header.extensions else pull(1)
    if done != total or surplus:
        raise _bad(
            name,
            f"{header.count} splats of degree {header.degree} need {total} bytes, "
            f"the gzip stream holds {'more than ' if surplus else ''}{done}",
            code="splat_truncated",
        )
    return splats


def _read_v4(file: IO[bytes], size: int, name: str, scratch: Scratch | None) -> Splats:
    head = file.read(32)
    header = _parse_header(head, name, versions=(4,))
    if len(head) < 32:
        raise _bad(
            name, f"it is {size} bytes long, the header alone takes 32", code="splat_truncated"
        )
    streams, toc = head[15], struct.unpack_from("<I", head, 16)[0]
    expected = 6 if header.degree else 5
    if streams != expected:
        raise _bad(name, f"it has {streams} streams, degree {header.degree} takes {expected}")
    start = toc + 16 * streams
    if toc < 32 or start > size:
        raise _bad(
            name, f"its table of contents lies at byte {toc}, outside the file of {size} bytes"
        )
    _refuse_bomb(size, sum(header.sizes), name)
    file.seek(toc)
    entries = list(struct.iter_unpack("<QQ", file.read(16 * streams)))
    for what, attribute_size, (packed, unpacked) in zip(
        STREAMS, header.sizes, entries, strict=False
    ):
        if unpacked != attribute_size:
            raise _bad(
                name,
                f"stream '{what}' declares {unpacked} bytes, {header.count} splats need "
                f"{attribute_size}",
            )
        if start + packed > size:
            raise _bad(
                name, f"stream '{what}' ends past the end of the file", code="splat_truncated"
            )
        start += packed
    splats = Splats.empty(header.count, header.degree, scratch=scratch, model=header.model)
    file.seek(toc + 16 * streams)
    for what, (packed, unpacked) in zip(STREAMS, entries, strict=False):
        _read_stream(_Part(file, packed), header, what, unpacked, splats, name)
    return splats


class _Part:
    """The next `size` bytes of a file, as a file that ends there; leaves the file behind them."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size

    def read(self, wanted: int = -1) -> bytes:
        data = self.file.read(min(wanted, self.left) if wanted >= 0 else self.left)
        self.left -= len(data)
        return data


def _read_stream(
    part: _Part, header: Header, what: str, size: int, splats: Splats, name: str
) -> None:
    """One attribute, through a counter: the frame's own size field is not believed."""
    try:
        unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        with unpacker.stream_reader(part, closefd=False) as stream:  # type: ignore[arg-type]
            done = _drain(stream.read, header, what, splats)
            surplus = stream.read(1) if done == size else b""
    except zstandard.ZstdError as error:
        raise _bad(name, f"stream '{what}' is damaged ({error})") from error
    if done != size or surplus:
        raise _bad(
            name,
            f"stream '{what}' holds {'more than ' if surplus else ''}{done} bytes, "
            f"{size} are needed",
            code="splat_truncated",
        )
    while part.left and part.read(1 << 20):  # what follows the frame is not ours to judge
        pass


def _drain(pull: Callable[[int], bytes], header: Header, what: str, splats: Splats) -> int:
    """Decode one attribute chunk by chunk; bytes found, fewer than needed where it ends early.

    pull: bytes wanted -> that many, or fewer where the stream ends.
    """
    width, done = header.widths[STREAMS.index(what)], 0
    for rows in chunks(header.count if width else 0, CHUNK_ROWS):
        wanted = (rows.stop - rows.start) * width
        data = pull(wanted)
        done += len(data)
        if len(data) < wanted:
            break
        with np.errstate(invalid="ignore"):  # a half float may be a signalling NaN
            _decode(header, what, np.frombuffer(data, np.uint8).reshape(-1, width), rows, splats)
    return done


def _parse_header(head: bytes, name: str, versions: tuple[int, ...]) -> Header:
    if len(head) < 16:
        raise _bad(name, f"the header is {len(head)} bytes long, not 16", code="splat_truncated")
    magic, version, count, degree, bits, flags, _ = struct.unpack("<4sIIBBBB", head[:16])
    if magic != MAGIC:
        raise _bad(name, f"it begins with {magic!r}, an .spz with {MAGIC!r}")
    if version not in versions:
        raise _bad(
            name, f"version {version} in this container; read are 1 to 3 (gzip) and 4 (zstd)"
        )
    if degree > (highest := 3 if version < 3 else 4):
        raise _bad(
            name,
            f"spherical-harmonics degree {degree}; allowed are 0 to {highest}",
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


def _decode(
    header: Header,
    what: str,
    data: NDArray[np.uint8],  # [n, width]
    rows: slice,
    splats: Splats,
) -> None:
    match what:
        case "positions" if header.version == 1:
            splats.means[rows] = np.ascontiguousarray(data).view("<f2")
        case "positions":
            splats.means[rows] = _fixed_point(data) / (1 << header.fractional_bits)
        case "alphas":
            splats.opacities[rows] = alpha_to_logit(data[:, 0])
        case "colours":
            splats.sh0[rows] = (data / 255 - 0.5) / COLOUR_SCALE
        case "scales":
            splats.scales[rows] = data / 16 - 10
        case "rotations":
            splats.quats[rows] = (_quats_v2 if header.version < 3 else _quats_v3)(data)
        case _:  # harmonics: coefficient by coefficient, its three channels together
            values = data.reshape(len(data), -1, 3).transpose(0, 2, 1)
            splats.shN[rows] = (values.astype(np.float32) - 128) / 128


def _fixed_point(data: NDArray[np.uint8]) -> NDArray[np.int32]:  # [n, 9] -> [n, 3]
    """Little-endian integers of 24 bits with a sign."""
    p = data.reshape(-1, 3, 3).astype(np.int32)
    return ((p[..., 0] | p[..., 1] << 8 | p[..., 2] << 16) ^ 0x800000) - 0x800000


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
        next_step="Upload the complete file, or export it again (spz version 1 to 4).",
    )
