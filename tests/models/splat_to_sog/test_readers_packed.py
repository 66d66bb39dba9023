"""compressed.ply and .spz: hand-packed values come back; streams are held to their header."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import zstandard

from models.context import InvalidInput
from models.splat_to_sog.readers import read
from models.splat_to_sog.readers import spz as spz_module
from models.splat_to_sog.splats import COEFFICIENTS, SH_C0

# --- compressed.ply -------------------------------------------------------------------------


def compressed(
    path: Path,
    words: list[tuple[int, int, int, int]],
    *,
    colours: bool,
    sh: np.ndarray | None = None,
    chunks: int = 1,
) -> Path:
    bounds = [-1, -2, -3, 1, 2, 3, -8, -8, -8, 0, 0, 0] + [0, 0, 0, 1, 1, 0.5] * colours
    names = [f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"]
    names += [f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"]
    names += [f"{end}_{c}" for end in ("min", "max") for c in "rgb"] * colours
    text = f"ply\nformat binary_little_endian 1.0\nelement chunk {chunks}\n"
    text += "".join(f"property float {name}\n" for name in names)
    text += f"element vertex {len(words)}\n"
    for name in ("position", "rotation", "scale", "color"):
        text += f"property uint packed_{name}\n"
    body = np.array(bounds * chunks, "<f4").tobytes() + np.array(words, "<u4").tobytes()
    if sh is not None:
        text += f"element sh {len(sh)}\n"
        text += "".join(f"property uchar f_rest_{i}\n" for i in range(sh.shape[1]))
        body += sh.astype(np.uint8).tobytes()
    path.write_bytes(text.encode() + b"end_header\n" + body)
    return path


def pack(fields: list[int], bits: list[int]) -> int:
    word = 0
    for field, width in zip(fields, bits, strict=True):
        word = word << width | field
    return word


WORDS = (
    pack([0, 1023, 2047], [11, 10, 11]),
    pack([2, 1023, 0, 512], [2, 10, 10, 10]),  # y left out; w, x, z follow
    pack([2047, 0, 1024], [11, 10, 11]),
    pack([255, 0, 128, 255], [8, 8, 8, 8]),
)


@pytest.mark.parametrize("colours", [False, True])
def test_compressed_ply_fields_land_where_they_belong(tmp_path: Path, colours: bool) -> None:
    sh = np.array([[0, 255, 128, 1, 2, 3, 4, 5, 6]])
    splats = read(compressed(tmp_path / "a", [WORDS], colours=colours, sh=sh), "a")
    np.testing.assert_allclose(splats.means, [[-1, 2, 3]])
    np.testing.assert_allclose(splats.scales, [[0, -8, -8 + 8 * 1024 / 2047]], rtol=1e-6)
    root = np.sqrt(0.5)
    np.testing.assert_allclose(splats.quats[0, [0, 1]], [root, -root], rtol=1e-6)
    assert splats.quats[0, 2] < 0.01  # nothing is left for the one left out
    blue = 128 / 255 * (0.5 if colours else 1)
    np.testing.assert_allclose(splats.sh0 * SH_C0 + 0.5, [[1, 0, blue]], atol=1e-6)
    assert splats.opacities[0] == np.inf
    np.testing.assert_allclose(splats.shN[0, 0], [-4, 4, 4 / 256], atol=1e-6)  # channel-major


def test_compressed_ply_takes_its_chunk(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a", [WORDS] * 257, colours=True, chunks=2)
    assert len(read(path, "a")) == 257
    path = compressed(tmp_path / "b", [WORDS] * 257, colours=True, chunks=1)
    with pytest.raises(InvalidInput, match="257 splats need 2 chunks of 256, the file has 1"):
        read(path, "b")


@pytest.mark.parametrize("width", [0, 3, 10, 72])
def test_compressed_ply_refuses_other_harmonics(tmp_path: Path, width: int) -> None:
    sh = np.zeros((1, width))
    with pytest.raises(InvalidInput, match="element 'sh' has 1 rows of"):
        read(compressed(tmp_path / "a", [WORDS], colours=True, sh=sh), "a")


def test_compressed_ply_names_missing_columns(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a", [WORDS], colours=True)
    path.write_bytes(path.read_bytes().replace(b"float max_b", b"float max_q"))
    with pytest.raises(InvalidInput, match="element 'chunk' lacks max_b"):
        read(path, "a")


def test_the_shipped_sample(samples: Path) -> None:
    splats = read(samples / "playbot.compressed.ply", "playbot")
    assert (len(splats), splats.degree) == (13000, 2)
    np.testing.assert_allclose(np.linalg.norm(splats.quats, axis=1), 1, atol=2e-3)


# --- spz ------------------------------------------------------------------------------------


def arrays(n: int, degree: int, version: int, rng: np.random.Generator) -> list[bytes]:
    """Random bytes of each attribute, in file order."""
    rotation = 3 if version == 2 else 4
    sizes = [9 * n, n, 3 * n, 3 * n, rotation * n, 3 * n * COEFFICIENTS[degree]]
    return [rng.integers(0, 256, size, dtype=np.uint8).tobytes() for size in sizes]


def spz(
    parts: list[bytes], n: int, degree: int, version: int, flags: int = 0, bits: int = 12
) -> bytes:
    if version < 4:
        head = struct.pack("<4sIIBBBB", b"NGSP", version, n, degree, bits, flags, 0)
        return gzip.compress(head + b"".join(parts), mtime=0)
    parts = [part for part in parts if part]
    head = struct.pack("<4sIIBBBBI12x", b"NGSP", 4, n, degree, bits, flags, len(parts), 32)
    packed = [zstandard.compress(part) for part in parts]
    toc = b"".join(struct.pack("<QQ", len(p), len(q)) for p, q in zip(packed, parts, strict=True))
    return head + toc + b"".join(packed)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("version", [2, 3, 4])
def test_spz_values(tmp_path: Path, rng, version: int, degree: int) -> None:
    n = 50
    parts = arrays(n, degree, version, rng)
    path = tmp_path / "a.spz"
    path.write_bytes(spz(parts, n, degree, version, flags=1))
    splats = read(path, "a.spz")
    assert (len(splats), splats.degree, splats.model) == (n, degree, "antialiased")
    triple = parts[0][:3]
    assert splats.means[0, 0] == int.from_bytes(triple, "little", signed=True) / 4096
    np.testing.assert_allclose(splats.scales[0, 2], parts[3][2] / 16 - 10)
    np.testing.assert_allclose(splats.sh0[1, 0], (parts[2][3] / 255 - 0.5) / 0.15, rtol=1e-6)
    alpha = 1 / (1 + np.exp(-splats.opacities.astype(np.float64)))
    np.testing.assert_allclose(alpha, np.frombuffer(parts[1], np.uint8) / 255, atol=2e-6)
    if degree:  # stored colour fastest; held channel first
        assert splats.shN[0, 2, 1] == (parts[5][5] - 128) / 128


def test_spz_v2_and_v3_say_the_same_rotation(tmp_path: Path) -> None:
    """x = 0.6, y = -0.48, z = 0.36, w = 0.53 by both encodings, by hand."""
    x, y, z = 0.6, -0.48, 0.36
    w = np.sqrt(1 - x * x - y * y - z * z)
    v2 = bytes(round((c + 1) * 127.5) for c in (x, y, z))
    word = 0  # x (index 0) is the largest; w, z, y from the lowest bits up
    for shift, c in ((0, w), (10, z), (20, y)):
        word |= (round(abs(c) / np.sqrt(0.5) * 511) | (512 if c < 0 else 0)) << shift
    for version, rotation in ((2, v2), (3, struct.pack("<I", word))):
        parts = [bytes(9), bytes(1), bytes(3), bytes(3), rotation, b""]
        path = tmp_path / f"{version}.spz"
        path.write_bytes(spz(parts, 1, 0, version))
        # Tolerance: half a step of 8 bits (2 / 255 / 2), more for the one that is left out.
        np.testing.assert_allclose(read(path, "a").quats, [[w, x, y, z]], atol=0.01)


def test_spz_rejects_each_damage(tmp_path: Path, rng) -> None:
    good = spz(arrays(40, 1, 3, rng), 40, 1, 3)
    v4 = spz(arrays(40, 1, 4, rng), 40, 1, 4)
    body = gzip.decompress(good)

    def edited(data: bytes, at: int, new: bytes) -> bytes:
        return data[:at] + new + data[at + len(new) :]

    cases = {
        "gzip stream is damaged": edited(good, 60, b"\0" * 40),
        "ends early": good[:-6],
        "need 1160 bytes, the gzip stream holds 1159": gzip.compress(body[:-1]),
        "holds more than 1160": gzip.compress(body + b"x"),
        "version 5 in this container": gzip.compress(edited(body, 4, b"\5")),
        "degree 5; allowed are 0 to 4": gzip.compress(edited(body, 12, b"\5")),
        "fractional bits": gzip.compress(edited(body, 13, b"\x20")),
        "it begins with": gzip.compress(b"hello, this is not a splat at all"),
        "header is 5 bytes long": gzip.compress(b"hello"),
        "claim to unpack": gzip.compress(edited(body, 8, b"\xff\xff\xff\xff")),
        "5 streams, degree 1 takes 6": edited(v4, 15, b"\5"),
        "table of contents lies at byte 9": edited(v4, 16, b"\x09\0\0\0"),
        "stream 'positions' declares 1 bytes, 40 splats need 360": edited(
            v4, 40, b"\1" + b"\0" * 7
        ),
        "stream 'harmonics' ends past the end": v4[:-5],
        "stream 'positions' is damaged": edited(v4, 128, b"\xff" * 8),
        "alone takes 32": v4[:20],
    }
    for says, data in cases.items():
        path = tmp_path / "bad.spz"
        path.write_bytes(data)
        if says.startswith("need 4294967295"):
            says = "claim to unpack|need .* bytes"
        with pytest.raises(InvalidInput, match=says):
            read(path, "bad.spz")


def test_spz_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    """Zeros that claim to be 100 million splats; streams that hold more than they declare."""
    path = tmp_path / "bomb.spz"
    head = struct.pack("<4sIIBBBB", b"NGSP", 3, 100_000_000, 3, 12, 0, 0)
    path.write_bytes(gzip.compress(head + bytes(1 << 20)))
    with pytest.raises(InvalidInput, match="claim to unpack") as error:
        read(path, "bomb.spz")
    assert error.value.code == "splat_limits"

    sizes = (9, 1, 3, 3, 4)
    packed = [zstandard.compress(bytes(1 << 24)) for _ in sizes]
    head = struct.pack("<4sIIBBBBI12x", b"NGSP", 4, 1, 0, 12, 0, 5, 32)
    toc = b"".join(struct.pack("<QQ", len(p), size) for p, size in zip(packed, sizes, strict=True))
    path.write_bytes(head + toc + b"".join(packed))
    with pytest.raises(InvalidInput, match="'positions' holds more than 9 bytes"):
        read(path, "bomb.spz")
    assert spz_module.MAX_RATIO < 1000  # zlib's own limit: a higher one would never bite


def test_spz_v3_extensions_are_passed_over(tmp_path: Path, rng) -> None:
    parts = arrays(3, 0, 3, rng)
    path = tmp_path / "a.spz"
    path.write_bytes(spz([*parts, b"vendor data"], 3, 0, 3, flags=2))
    assert len(read(path, "a.spz")) == 3
