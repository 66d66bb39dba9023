"""Writes small files of every format that is read, straight from the formats' pages.

Does not know the readers, nor our writers: tests and fuzz seeds need files that neither of them
had a hand in. Needs numpy, Pillow and zstandard only.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import zstandard
from numpy.typing import NDArray
from PIL import Image

K = (0, 3, 8, 15, 24)
Array = NDArray


def ply_columns(degree: int) -> list[str]:
    return [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(3 * K[degree])),
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]


def ply(
    table: Array,  # [N, C] values
    columns: Sequence[str],
    form: str = "binary_little_endian",
    kinds: Mapping[str, str] | None = None,  # column -> "double", "uchar", ...; others are float
    comments: Sequence[str] = (),
    more_header: str = "",
    more_data: bytes = b"",
) -> bytes:
    numpy_kinds = {"float": "f4", "double": "f8", "uchar": "u1", "short": "i2", "int": "i4"}
    chosen = {column: (kinds or {}).get(column, "float") for column in columns}
    text = f"ply\nformat {form} 1.0\n" + "".join(f"comment {c}\n" for c in comments)
    text += f"element vertex {len(table)}\n"
    text += "".join(f"property {kind} {column}\n" for column, kind in chosen.items())
    text += f"{more_header}end_header\n"
    order = ">" if form == "binary_big_endian" else "<"
    records = np.empty(len(table), [(c, order + numpy_kinds[k]) for c, k in chosen.items()])
    for index, column in enumerate(columns):
        records[column] = table[:, index]
    if form == "ascii":
        lines = "\n".join(" ".join(repr(v.item()) for v in row) for row in records)
        return (text + lines + "\n").encode() + more_data
    return text.encode() + records.tobytes() + more_data


def compressed_ply(
    bounds: Array,  # [chunks, 12 or 18]
    words: Array,  # [N, 4] uint32: position, rotation, scale, colour
    harmonics: Array | None = None,  # [N, 3K] bytes
) -> bytes:
    names = [f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"]
    names += [f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"]
    names += [f"{end}_{c}" for end in ("min", "max") for c in "rgb"]
    text = f"ply\nformat binary_little_endian 1.0\nelement chunk {len(bounds)}\n"
    text += "".join(f"property float {name}\n" for name in names[: bounds.shape[1]])
    text += f"element vertex {len(words)}\n"
    for name in ("position", "rotation", "scale", "color"):
        text += f"property uint packed_{name}\n"
    body = bounds.astype("<f4").tobytes() + words.astype("<u4").tobytes()
    if harmonics is not None:
        text += f"element sh {len(harmonics)}\n"
        text += "".join(f"property uchar f_rest_{i}\n" for i in range(harmonics.shape[1]))
        body += harmonics.astype(np.uint8).tobytes()
    return text.encode() + b"end_header\n" + body


def splat(
    means: Array,  # [N, 3]
    scales: Array,  # [N, 3] standard deviations
    rgba: Array,  # [N, 4] bytes
    rotations: Array,  # [N, 4] bytes w, x, y, z
) -> bytes:
    floats = np.concatenate([means, scales], axis=1).astype("<f4").view(np.uint8)
    return np.concatenate(
        [floats.reshape(len(means), 24), rgba.astype(np.uint8), rotations.astype(np.uint8)], axis=1
    ).tobytes()


def ksplat_section(
    level: int,
    centres: Array,  # [N, 3] scene units, in bucket order
    scales: Array,  # [N, 3] standard deviations
    rotations: Array,  # [N, 4] w, x, y, z
    rgba: Array,  # [N, 4] bytes
    harmonics: Array,  # [N, 3, K]
    *,
    full: int = 0,  # buckets of `capacity` splats, which come first
    capacity: int = 256,
    partial: Sequence[int] = (),  # splats of each further bucket
    block: float = 5.0,
    room: int = 0,  # records beyond those in use
    sh_range: float = 1.5,
) -> tuple[bytes, bytes]:
    """(section header, section data)"""
    n, k = len(centres), harmonics.shape[2]
    steps = (1, 32767, 32767)[level]
    members = np.repeat(np.arange(full + len(partial)), [*[capacity] * full, *partial])
    buckets = np.array(
        [centres[members == b].mean(axis=0) for b in range(full + len(partial))], "<f4"
    ).reshape(-1, 3)
    header = bytearray(1024)
    struct.pack_into("<IIIIf", header, 0, n, n + room, capacity, len(buckets), block)
    struct.pack_into("<H", header, 20, 12)
    struct.pack_into("<III", header, 24, 0 if level else 1, 0, full)
    struct.pack_into("<I", header, 36, len(partial))
    struct.pack_into("<H", header, 40, K.index(k))
    number = ("<f4", "<f2", "<f2")[level]
    if level:
        offsets = (centres - buckets[members]) / (block / 2) * steps + steps
        centre_bytes = np.clip(np.round(offsets), 0, 2 * steps + 1).astype("<u2")
    else:
        centre_bytes = centres.astype("<f4")
    bands = [
        harmonics[:, :, first:last].reshape(n, -1) for first, last in ((0, 3), (3, 8)) if last <= k
    ]
    flat = np.concatenate([*bands, np.zeros((n, 0))], axis=1)
    if level == 2:
        sh = np.clip(np.floor((flat + sh_range) / (2 * sh_range) * 255), 0, 255).astype(np.uint8)
    else:
        sh = flat.astype(number)
    parts = [centre_bytes, scales.astype(number), rotations.astype(number), rgba.astype(np.uint8)]
    rows = [np.ascontiguousarray(part).view(np.uint8).reshape(n, -1) for part in [*parts, sh]]
    records = np.concatenate(rows, axis=1)
    records = np.concatenate([records, np.zeros((room, records.shape[1]), np.uint8)])
    sizes = np.array(partial, "<u4").tobytes()
    return bytes(header), sizes + buckets.tobytes() + records.tobytes()


def ksplat(level: int, sections: Sequence[tuple[bytes, bytes]], unused: int = 0) -> bytes:
    """unused: section headers reserved but empty."""
    counts = [struct.unpack_from("<I", header)[0] for header, _ in sections]
    head = bytearray(4096)
    most = len(sections) + unused
    struct.pack_into("<BB", head, 0, 0, 1)
    struct.pack_into("<IIII", head, 4, most, len(sections), sum(counts), sum(counts))
    struct.pack_into("<H", head, 20, level)
    headers = b"".join(header for header, _ in sections) + bytes(1024 * unused)
    return bytes(head) + headers + b"".join(data for _, data in sections)


def spz(
    parts: Sequence[bytes],  # positions, alphas, colours, scales, rotations, harmonics
    count: int,
    degree: int,
    version: int,
    flags: int = 0,
    bits: int = 12,
    extensions: bytes = b"",
) -> bytes:
    if version < 4:
        head = struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, bits, flags, 0)
        return gzip.compress(head + b"".join(parts) + extensions, 6, mtime=0)
    parts = [part for part in parts if part]
    toc_at = 32 + len(extensions)
    head = struct.pack("<4sIIBBBBI12x", b"NGSP", 4, count, degree, bits, flags, len(parts), toc_at)
    packed = [zstandard.compress(part) for part in parts]
    toc = b"".join(struct.pack("<QQ", len(p), len(q)) for p, q in zip(packed, parts, strict=True))
    return head + extensions + toc + b"".join(packed)


def spz_parts(rng: np.random.Generator, n: int, degree: int, version: int) -> list[bytes]:
    """Random bytes of each attribute, in file order; no half float of version 1 is odd."""
    position = 6 if version == 1 else 9
    sizes = [position * n, n, 3 * n, 3 * n, (3 if version < 3 else 4) * n, 3 * n * K[degree]]
    parts = [rng.integers(0, 256, size, dtype=np.uint8).tobytes() for size in sizes]
    if version == 1:
        parts[0] = rng.normal(size=3 * n).astype("<f2").tobytes()
    return parts


def webp(texels: Array) -> bytes:  # [H, W] or [H, W, C] bytes
    out = io.BytesIO()
    Image.fromarray(texels.astype(np.uint8)).save(out, "WEBP", lossless=True, exact=True, method=0)
    return out.getvalue()


def _texture(rng: np.random.Generator, side: int, channels: int) -> Array:
    shape = (side, side, channels) if channels > 1 else (side, side)
    return rng.integers(0, 256, shape, dtype=np.uint8)


def sog_v2(rng: np.random.Generator, side: int, degree: int = 0) -> dict[str, bytes]:
    """The files of side * side splats with random texels."""
    book = np.sort(rng.normal(size=256)).tolist()
    quats = _texture(rng, side, 4)
    quats[..., 3] = 252 + quats[..., 3] % 4
    files = {
        "means_l.webp": webp(_texture(rng, side, 3)),
        "means_u.webp": webp(_texture(rng, side, 3)),
        "quats.webp": webp(quats),
        "scales.webp": webp(_texture(rng, side, 3)),
        "sh0.webp": webp(_texture(rng, side, 4)),
    }
    meta = {
        "version": 2,
        "count": side * side,
        "means": {"mins": [-2, -2, -2], "maxs": [2, 2, 2], "files": list(files)[:2]},
        "scales": {"codebook": book, "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": book, "files": ["sh0.webp"]},
    }
    if degree:
        files["shN_centroids.webp"] = webp(
            rng.integers(0, 256, (2, 64 * K[degree], 3), dtype=np.uint8)
        )
        labels = np.zeros((side, side, 3), np.uint8)
        labels[..., 0] = rng.integers(0, 110, (side, side))
        files["shN_labels.webp"] = webp(labels)
        meta["shN"] = {
            "count": 100,
            "bands": degree,
            "codebook": book,
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        }
    return files | {"meta.json": json.dumps(meta).encode()}


def sog_v1(
    rng: np.random.Generator, side: int, degree: int = 0, draft: bool = False
) -> dict[str, bytes]:
    """draft: rotations of three bytes, opacities and label bytes in textures of their own."""
    n = side * side

    def section(name: str, channels: int, low: float, high: float) -> dict[str, object]:
        files[f"{name}.webp"] = webp(_texture(rng, side, channels))
        mins = rng.uniform(low, (low + high) / 2, channels).tolist()
        maxs = rng.uniform((low + high) / 2, high, channels).tolist()
        return {"shape": [n, channels], "mins": mins, "maxs": maxs, "files": [f"{name}.webp"]}

    files: dict[str, bytes] = {}
    means = section("means_l", 3, -3, 3) | {"files": ["means_l.webp", "means_u.webp"]}
    section("means_u", 3, -3, 3)
    meta = {"means": means, "scales": section("scales", 3, -9, -2)}
    if draft:
        meta["quats"] = section("quats", 3, -0.5, 0.5)
        meta["sh0"] = section("sh0", 3, -3, 3)
        meta["opacities"] = section("opacities", 1, -9, 9)
    else:
        quats = _texture(rng, side, 4)
        quats[..., 3] = 252 + quats[..., 3] % 4
        files["quats.webp"] = webp(quats)
        meta["quats"] = {
            "shape": [n, 4],
            "dtype": "uint8",
            "encoding": "quaternion_packed",
            "files": ["quats.webp"],
        }
        meta["sh0"] = section("sh0", 4, -3, 3) | {"shape": [n, 1, 4]}
    if degree:
        centroids = rng.integers(0, 256, (2, 64 * K[degree], 3), dtype=np.uint8)
        files["shN_centroids.webp"] = webp(centroids)
        low, high = rng.integers(0, 100, (side, side)), rng.integers(0, 2, (side, side)) * 0
        names = ["shN_centroids.webp", "shN_labels.webp"]
        if draft:
            names = ["shN_centroids.webp", "shN_labels_l.webp", "shN_labels_u.webp"]
            files[names[1]], files[names[2]] = webp(low), webp(high)
        else:
            files[names[1]] = webp(np.stack([low, high, 0 * low], axis=2))
        meta["shN"] = {
            "shape": [n, 3 * K[degree]],
            "mins": -0.75,
            "maxs": 0.5,
            "quantization": 8,
            "files": names,
        }
    return files | {"meta.json": json.dumps(meta, indent=2).encode()}


def streamed(
    chunks: Mapping[str, Mapping[str, bytes]],  # "0_0" -> its files
    description: Mapping[str, object],
) -> dict[str, bytes]:
    """The files of a streamed SOG by their paths."""
    files = {}
    for folder, inside in chunks.items():
        files |= {f"{folder}/{file}": data for file, data in inside.items()}
    return files | {"lod-meta.json": json.dumps(description).encode()}


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return out.getvalue()
