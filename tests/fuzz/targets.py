"""What is fuzzed: seeds of each format, mutations that reach inside its container, one target.

Does not know the fuzzing engine: atheris drives `run` with its own mutations (`fuzz_*.py`), the
smoke test with a seeded generator.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import formats
import numpy as np
import zstandard
from PIL import Image

from models.context import InvalidInput
from models.splat_to_sog.readers import read
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import ATTRIBUTES, Splats, drop_non_finite

MAX_BYTES = 1 << 16  # of one input
CODES = {
    *("splat_type", "splat_header", "splat_truncated", "splat_empty", "splat_limits"),
    *("splat_archive", "splat_meta", "splat_texture", "splat_unsupported"),
}
MAX_MESSAGE = 2000  # characters; a message repeats no more of a file than helps

Bytes = Callable[[bytes, int], bytes]  # data, most bytes -> the data mutated
Mutate = Callable[[bytes, Bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    name: str
    suffix: str
    seeds: Callable[[], list[bytes]]
    mutate: Mutate


# --- one input ------------------------------------------------------------------------------


class Poisoned(Scratch):
    """Fills every array with one NaN that no reader makes: a row left out shows."""

    POISON = np.uint32(0x7FD0BEEF)

    def empty(self, shape, dtype=np.float32):  # type: ignore[no-untyped-def]
        array = super().empty(shape, dtype)
        if array.dtype == np.float32:
            array.view(np.uint32)[...] = self.POISON
        return array


def run(target: Target, data: bytes) -> Splats | None:
    """Read the bytes as a file: a scene with every row filled, or InvalidInput. Else it raises."""
    path = Path(_folder()) / f"{os.getpid()}{target.suffix}"
    path.write_bytes(data)
    try:
        splats = read(path, path.name, Poisoned(path.parent, 1 << 28))
    except InvalidInput as error:
        if error.code not in CODES or not error.next_step:
            raise AssertionError(f"code {error.code!r}, next step {error.next_step!r}") from error
        if len(error.message) > MAX_MESSAGE or not error.message.startswith(path.name):
            raise AssertionError(f"a message of {len(error.message)}: {error.message}") from error
        return None
    said = Poisoned.POISON.tobytes() in data  # by chance, or because an engine learned it
    for name in ATTRIBUTES:
        if not said and (getattr(splats, name).view(np.uint32) == Poisoned.POISON).any():
            raise AssertionError(f"{name}: rows were left out")
    cleaned = drop_non_finite(splats).splats
    for name in ("means", "quats", "sh0", "shN"):
        if not np.isfinite(getattr(cleaned, name)).all():
            raise AssertionError(f"{name}: not finite after cleaning")
    return splats


def _folder() -> str:
    return "/dev/shm" if Path("/dev/shm").is_dir() else tempfile.gettempdir()


# --- mutations inside containers ------------------------------------------------------------


def plain(data: bytes, mutate: Bytes, rng: random.Random) -> bytes:
    return mutate(data, MAX_BYTES)


def inside_spz(data: bytes, mutate: Bytes, rng: random.Random) -> bytes:
    """The gzip stream's contents, or one zstd stream's; header and lengths kept true or not."""
    if rng.random() < 0.2:
        return mutate(data, MAX_BYTES)
    if data[:2] == b"\x1f\x8b":
        try:
            body = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return mutate(data, MAX_BYTES)
        return gzip.compress(mutate(body, MAX_BYTES), 1, mtime=0)
    parts = _zstd_parts(data)
    if parts is None:
        return mutate(data, MAX_BYTES)
    head, streams = parts
    which = rng.randrange(-1, len(streams))
    if which < 0:
        head = (mutate(head, 64) + bytes(32))[: max(32, len(head))]
    else:
        streams[which] = mutate(streams[which], MAX_BYTES)
    packed = [zstandard.compress(stream) for stream in streams]
    toc = b"".join(struct.pack("<QQ", len(p), len(s)) for p, s in zip(packed, streams, strict=True))
    return head + toc + b"".join(packed)


def _zstd_parts(data: bytes) -> tuple[bytes, list[bytes]] | None:
    if len(data) < 32 or data[:4] != b"NGSP":
        return None
    at = struct.unpack_from("<I", data, 16)[0]
    count = data[15]
    if at > len(data) or at + 16 * count > len(data) or not count:
        return None
    start, streams = at + 16 * count, []
    for index in range(count):
        packed = struct.unpack_from("<Q", data, at + 16 * index)[0]
        unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 20)
        try:
            with unpacker.stream_reader(data[start : start + packed]) as stream:
                streams.append(stream.read(MAX_BYTES))
        except zstandard.ZstdError:
            return None
        start += packed
    return data[:at], streams


def inside_zip(data: bytes, mutate: Bytes, rng: random.Random) -> bytes:
    """A field of the description, a texture's texels or its bytes; then zipped again."""
    if rng.random() < 0.15:
        return mutate(data, MAX_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {
                info.filename: archive.read(info)
                for info in archive.infolist()
                if info.file_size <= MAX_BYTES and not info.is_dir()
            }
    except Exception:  # noqa: BLE001 - whatever a broken archive raises: it is mutated as bytes
        return mutate(data, MAX_BYTES)
    if not files:
        return mutate(data, MAX_BYTES)
    name = rng.choice(sorted(files))
    if rng.random() < 0.05:
        del files[name]
    elif name.endswith(".json") and rng.random() < 0.7:
        files[name] = _json(files[name], mutate, rng)
    elif name.endswith(".webp") and rng.random() < 0.7:
        files[name] = _texels(files[name], mutate, rng)
    else:
        files[name] = mutate(files[name], MAX_BYTES)
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED
    return formats.zipped(files, method)


ODD = (
    *(0, 1, -1, 2, 255, 256, 65535, 65537, 1 << 31, 1 << 64, 10**30, 1.5, -0.0, 1e300, 3e38),
    *(None, True, False, "", "x", "a.webp", "../a.webp", "0_0/meta.json", [], {}, [[]], [None]),
    *(float("nan"), float("inf")),
)


def _json(data: bytes, mutate: Bytes, rng: random.Random) -> bytes:
    """One value of the tree replaced, removed, doubled or moved."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return mutate(data, MAX_BYTES)
    node, key = {"": tree}, ""
    while isinstance(node[key], dict | list) and node[key] and rng.random() < 0.85:
        node = node[key]
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    value = node[key]
    match rng.randrange(5):
        case 0 if isinstance(value, int | float) and not isinstance(value, bool):
            node[key] = value + rng.choice((-1, 1, 7, -value * 2, value))
        case 1 if isinstance(node, dict) and key:
            del node[key]
        case 2 if isinstance(value, list):
            node[key] = value + value[: rng.randrange(3)]
        case 3 if isinstance(value, str):
            node[key] = mutate(value.encode(), 64).decode("latin-1")
        case _:
            node[key] = rng.choice(ODD)
    return json.dumps(tree.get("", tree) if isinstance(tree, dict) else tree).encode()


def _texels(data: bytes, mutate: Bytes, rng: random.Random) -> bytes:
    """The same picture with other texels, or of another size."""
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            texels = np.asarray(image)
    except Exception:  # noqa: BLE001 - whatever a broken picture raises: it is mutated as bytes
        return mutate(data, MAX_BYTES)
    if texels.size > MAX_BYTES or rng.random() < 0.2:
        height, width = rng.choice(((1, 1), (7, 3), (64, 192), (1, 960), (40, 40)))
        return formats.webp(np.zeros((height, width, 3)))
    body = (mutate(texels.tobytes(), texels.size) + bytes(texels.size))[: texels.size]
    return formats.webp(np.frombuffer(body, np.uint8).reshape(texels.shape))


# --- seeds ----------------------------------------------------------------------------------


def _rng() -> np.random.Generator:
    return np.random.default_rng(1)


def ply_seeds() -> list[bytes]:
    rng = _rng()
    seeds = []
    for degree, form in ((0, "binary_little_endian"), (1, "ascii"), (3, "binary_big_endian")):
        columns = formats.ply_columns(degree)
        table = rng.normal(size=(3, len(columns)))
        seeds.append(formats.ply(table, columns, form, {"x": "double"}, ("antialiased 1",)))
    columns = [c for c in formats.ply_columns(0) if c != "scale_2"]
    table = rng.integers(0, 9, (4, len(columns)))
    lists = "element face 1\nproperty list uchar int vertex_indices\n"
    seeds.append(formats.ply(table, columns, "ascii", {"nx": "uchar"}, (), lists, b"3 0 1 2\n"))
    return seeds


def compressed_ply_seeds() -> list[bytes]:
    rng = _rng()

    def seed(columns: int, n: int, width: int) -> bytes:
        bounds = np.sort(rng.normal(size=(-(-n // 256), columns)), axis=1)
        words = rng.integers(0, 1 << 32, (n, 4))
        harmonics = rng.integers(0, 256, (n, width)) if width else None
        return formats.compressed_ply(bounds, words, harmonics)

    return [seed(12, 3, 0), seed(18, 5, 9), seed(18, 257, 45)]


def splat_seeds() -> list[bytes]:
    rng = _rng()
    quats = rng.normal(size=(20, 4))
    quats = quats / np.linalg.norm(quats, axis=1, keepdims=True) * 127 + 128
    rgba = rng.integers(0, 256, (20, 4))
    return [formats.splat(rng.normal(size=(20, 3)), rng.random((20, 3)), rgba, quats)]


def ksplat_seeds() -> list[bytes]:
    rng = _rng()
    seeds = []
    for level in (0, 1, 2):
        sections = [
            formats.ksplat_section(
                level,
                rng.normal(size=(12, 3)),
                rng.random((12, 3)),
                rng.normal(size=(12, 4)),
                rng.integers(0, 256, (12, 4)),
                rng.uniform(-1, 1, (12, 3, k)),
                full=2,
                capacity=4,
                partial=(3, 1),
                room=level,
            )
            for k in (0, 3, 8)
        ]
        seeds.append(formats.ksplat(level, sections, unused=level))
    return seeds


def spz_seeds() -> list[bytes]:
    rng = _rng()
    return [
        formats.spz(
            formats.spz_parts(rng, 6, degree, version), 6, degree, version, flags,
            extensions=bytes(8 * (flags >> 1)),
        )
        for version, degree, flags in (
            (1, 0, 0), (2, 1, 1), (3, 3, 2), (3, 4, 0), (4, 0, 0), (4, 3, 3), (4, 4, 0),
        )
    ]  # fmt: skip


def sog_seeds() -> list[bytes]:
    rng = _rng()
    scenes = [formats.sog_v2(rng, 4), formats.sog_v2(rng, 5, 1), formats.sog_v1(rng, 4)]
    scenes += [formats.sog_v1(rng, 4, 1), formats.sog_v1(rng, 4, 1, draft=True)]
    return [formats.zipped(scene) for scene in scenes]


def streamed_seeds() -> list[bytes]:
    rng = _rng()
    chunks = {"0_0": formats.sog_v2(rng, 4), "1_0": formats.sog_v1(rng, 2)}
    chunks["env"] = formats.sog_v2(rng, 2)

    def leaf(offset: int, count: int) -> dict[str, object]:
        fine = {"file": 0, "offset": offset, "count": count}
        return {"lods": {"0": fine, "1": {"file": 1, "offset": 0, "count": 0}}}

    description = {
        "lodLevels": 2,
        "environment": "env/meta.json",
        "filenames": ["0_0/meta.json", "1_0/meta.json"],
        "tree": {"children": [leaf(0, 9), leaf(9, 7)]},
    }
    newer = description | {"version": 1, "counts": [16, 0], "environment": None}
    return [formats.zipped(formats.streamed(chunks, d)) for d in (description, newer)]


TARGETS = {
    target.name: target
    for target in (
        Target("ply", ".ply", ply_seeds, plain),
        Target("compressed_ply", ".ply", compressed_ply_seeds, plain),
        Target("splat", ".splat", splat_seeds, plain),
        Target("ksplat", ".ksplat", ksplat_seeds, plain),
        Target("spz", ".spz", spz_seeds, inside_spz),
        Target("sog", ".sog", sog_seeds, inside_zip),
        Target("streamed", ".zip", streamed_seeds, inside_zip),
    )
}


# --- without an engine ----------------------------------------------------------------------


@dataclass
class Random:
    """Byte mutations by a seeded generator: what an engine does, blind."""

    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def __call__(self, data: bytes, most: int) -> bytes:
        out = bytearray(data)
        for _ in range(self.rng.choice((1, 1, 2, 4, 16))):
            at = self.rng.randrange(len(out) + 1)
            match self.rng.randrange(7):
                case 0 if out:
                    out[at % len(out)] ^= 1 << self.rng.randrange(8)
                case 1 if out:
                    out[at % len(out)] = self.rng.choice((0, 1, 127, 128, 255, 32, 45, 57))
                case 2:
                    out[at:at] = self.rng.randbytes(self.rng.choice((1, 4, 32)))
                case 3:
                    del out[at : at + self.rng.choice((1, 4, 32, 512))]
                case 4:
                    value = self.rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000))
                    out[at : at + 4] = struct.pack("<I", value)
                case 5:
                    out[at:at] = out[at : at + 64]
                case _:
                    _number_in_text(out, self.rng)
        return bytes(out[:most])


def _number_in_text(out: bytearray, rng: random.Random) -> None:
    digits = [i for i in range(min(len(out), 2000)) if 48 <= out[i] <= 57]
    if digits:
        at = rng.choice(digits)
        out[at : at + 1] = rng.choice((b"0", b"-1", b"999999999", b"1e9", b"7.5", b""))


def smoke(name: str, rounds: int, seed: int = 0) -> tuple[int, int]:
    """(scenes read, files refused) over all seeds and `rounds` mutations of them."""
    target = TARGETS[name]
    rng = random.Random(f"{name} {seed}")
    mutate = Random(rng)
    pool = target.seeds()
    found = [run(target, data) is not None for data in pool]
    if not all(found):
        raise AssertionError(f"{name}: a seed is refused")
    for _ in range(rounds):
        data = target.mutate(rng.choice(pool), mutate, rng)
        with contextlib.suppress(IndexError):
            if rng.random() < 0.3:
                data = target.mutate(data, mutate, rng)
        try:
            found.append(run(target, data) is not None)
        except BaseException:
            at = Path(tempfile.gettempdir()) / f"crash-{name}{target.suffix}"
            at.write_bytes(data)
            print(f"{name}: the input is kept in {at}")
            raise
    return sum(found), len(found) - sum(found)
