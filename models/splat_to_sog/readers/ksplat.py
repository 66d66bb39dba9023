"""Reads .ksplat of GaussianSplats3D: sections of buckets, at compression levels 0, 1 and 2.

The format is described only by its code (SplatBuffer.js, version 0.1); sections of one file may
differ in their spherical-harmonics degree, and the scene takes the highest of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.layout import alpha_to_logit
from models.splat_to_sog.readers.blocks import each_block
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import COEFFICIENTS, SH_C0, Splats

HEADER_BYTES = 4096
SECTION_BYTES = 1024
MAX_DEGREE = 2
MAX_SECTIONS = 4096  # writers make one, or one for each part of a scene
HALF_RANGE = 1.5  # of 8-bit harmonics, where the header gives none

HEADER = np.dtype(
    {
        "names": ["major", "minor", "max_sections", "count", "level", "sh_min", "sh_max"],
        "formats": ["u1", "u1", "<u4", "<u4", "<u2", "<f4", "<f4"],
        "offsets": [0, 1, 4, 16, 20, 36, 40],
        "itemsize": HEADER_BYTES,
    }
)
SECTION = np.dtype(
    {
        "names": [
            *("count", "max_count", "bucket_splats", "buckets", "block_size", "bucket_bytes"),
            *("steps", "full_buckets", "partial_buckets", "degree"),
        ],
        "formats": ["<u4", "<u4", "<u4", "<u4", "<f4", "<u2", "<u4", "<u4", "<u4", "<u2"],
        "offsets": [0, 4, 8, 12, 16, 20, 24, 32, 36, 40],
        "itemsize": SECTION_BYTES,
    }
)
LEVELS = (  # (type of centres, type of scales and rotations, type of harmonics, default steps)
    ("<f4", "<f4", "<f4", 1),
    ("<u2", "<f2", "<f2", 32767),
    ("<u2", "<f2", "u1", 32767),
)


def read_ksplat(path: Path, name: str, scratch: Scratch | None = None) -> Splats:
    header, sections = _sections(path, name)
    degree = max((section.degree for section in sections), default=0)
    splats = Splats.empty(sum(section.count for section in sections), degree, scratch=scratch)
    start = 0
    for section in sections:
        _read_section(path, header, section, splats, start, name)
        start += section.count
    return splats


def looks_like_ksplat(path: Path) -> bool:
    """Whether a header of version 0.1 or later fits the file and its sections' counts."""
    try:
        return bool(_sections(path, path.name)[1])
    except InvalidInput:
        return False


@dataclass(frozen=True)
class _Header:
    level: int
    sh_min: float
    sh_max: float


@dataclass(frozen=True)
class _Section:
    count: int
    record: np.dtype[Any]
    degree: int
    data_offset: int
    bucket_of_first: NDArray[np.int64]  # [B + 1] first splat of each bucket, and the end
    centres: NDArray[np.float32]  # [B, 3]
    half_steps: int  # a stored centre of this value is the bucket's own
    step: float  # scene units


def _sections(path: Path, name: str) -> tuple[_Header, list[_Section]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        data = file.read(HEADER_BYTES)
        if len(data) < HEADER_BYTES:
            raise _bad(
                name,
                f"it has {size} bytes, the header takes {HEADER_BYTES}",
                code="splat_truncated",
            )
        head = np.frombuffer(data, HEADER)[0]
        if head["major"] != 0 or head["minor"] < 1:
            raise _bad(name, f"version {head['major']}.{head['minor']}; 0.1 and later 0.x are read")
        if head["level"] >= len(LEVELS):
            raise _bad(name, f"compression level {head['level']}; allowed are 0, 1 and 2")
        count = int(head["max_sections"])
        if count > MAX_SECTIONS:
            raise _bad(name, f"{count} sections; allowed are {MAX_SECTIONS}")
        offset = HEADER_BYTES + count * SECTION_BYTES
        if offset > size:
            raise _bad(
                name,
                f"{count} section headers do not fit into {size} bytes",
                code="splat_truncated",
            )
        header = _Header(
            int(head["level"]),
            float(head["sh_min"]) or -HALF_RANGE,
            float(head["sh_max"]) or HALF_RANGE,
        )
        sections = []
        for index in range(count):
            file.seek(HEADER_BYTES + index * SECTION_BYTES)
            fields = np.frombuffer(file.read(SECTION_BYTES), SECTION)[0]
            section, offset = _section(file, fields, header.level, index, offset, size, name)
            if section.count:
                sections.append(section)
    total = sum(section.count for section in sections)
    if total != head["count"]:
        raise _bad(name, f"its header says {head['count']} splats, its sections hold {total}")
    return header, sections


def _section(
    file: Any, fields: Any, level: int, index: int, offset: int, size: int, name: str
) -> tuple[_Section, int]:
    """The section whose data begin at byte `offset`, and where they end."""
    where = f"section {index}"
    count, max_count = int(fields["count"]), int(fields["max_count"])
    degree = int(fields["degree"])
    if degree > MAX_DEGREE:
        raise _bad(name, f"{where}: spherical-harmonics degree {degree}; allowed are 0, 1 and 2")
    if count > max_count:
        raise _bad(name, f"{where}: {count} splats in room for {max_count}")
    record = _record(level, degree)
    buckets, partial = int(fields["buckets"]), int(fields["partial_buckets"])
    full = int(fields["full_buckets"])
    storage = int(fields["bucket_bytes"]) * buckets
    data_offset = offset + 4 * partial + storage
    end = data_offset + record.itemsize * max_count
    if end > size:
        raise _bad(name, f"{where} ends at byte {end} of a file of {size}", code="splat_truncated")
    if level and (full + partial > buckets or storage < 12 * buckets):
        raise _bad(
            name,
            f"{where}: {full} full and {partial} partial buckets with {storage} bytes of centres; "
            f"{buckets} buckets of 12 bytes are declared",
        )
    file.seek(offset)
    sizes = np.frombuffer(file.read(4 * partial), "<u4").astype(np.int64)
    whole = np.full(full if level else 0, int(fields["bucket_splats"]))
    per_bucket = np.concatenate([whole, sizes])
    firsts = np.concatenate([[0], np.cumsum(per_bucket)])
    if level and firsts[-1] < count:
        raise _bad(name, f"{where}: its buckets hold {firsts[-1]} splats, it has {count}")
    centres = np.frombuffer(file.read(12 * buckets if level else 0), "<f4").reshape(-1, 3)
    steps = int(fields["steps"]) or LEVELS[level][3]
    step = float(fields["block_size"]) / 2 / steps
    return _Section(count, record, degree, data_offset, firsts, centres, steps, step), end


def _record(level: int, degree: int) -> np.dtype[Any]:
    centre, number, harmonic, _ = LEVELS[level]
    fields: list[Any] = [
        ("centre", centre, 3),
        ("scale", number, 3),
        ("rotation", number, 4),  # w, x, y, z
        ("rgba", "u1", 4),
    ]
    for band in range(1, degree + 1):  # inside a band: channel by channel
        fields.append((f"band{band}", harmonic, (3, 2 * band + 1)))
    return np.dtype(fields)


def _read_section(
    path: Path, header: _Header, section: _Section, splats: Splats, start: int, name: str
) -> None:
    def decode(rows: slice, records: NDArray[Any]) -> None:
        out = slice(start + rows.start, start + rows.stop)
        centres = records["centre"]
        if header.level:
            index = np.arange(rows.start, rows.stop)
            bucket = np.searchsorted(section.bucket_of_first, index, side="right") - 1
            offsets = (centres.astype(np.float64) - section.half_steps) * section.step
            splats.means[out] = offsets + section.centres[bucket]
        else:
            splats.means[out] = centres
        with np.errstate(divide="ignore"):
            splats.scales[out] = np.log(records["scale"].astype(np.float32))
        splats.quats[out] = records["rotation"]
        rgba = records["rgba"]
        splats.sh0[out] = (rgba[:, :3] / 255 - 0.5) / SH_C0
        splats.opacities[out] = alpha_to_logit(rgba[:, 3])
        splats.shN[out] = 0
        for band in range(1, section.degree + 1):
            values = records[f"band{band}"]
            if header.level == 2:
                values = header.sh_min + values / 255 * (header.sh_max - header.sh_min)
            splats.shN[out, :, COEFFICIENTS[band - 1] : COEFFICIENTS[band]] = values

    each_block(path, section.data_offset, section.count, section.record, decode, name)


def _bad(name: str, problem: str, code: str = "splat_header") -> InvalidInput:
    return InvalidInput(
        f"{name}: .ksplat: {problem}.",
        code=code,
        next_step="Upload the complete file, or export the scene as .ply, .spz or .sog.",
    )
