"""Reads SOG v2: a bundled .sog (ZIP) or its loose files beside a meta.json.

Does not trust the archive: only the names that belong there, bounded counts, sizes and ratios,
texture dimensions checked against the splat count before anything is decoded.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog import layout
from models.splat_to_sog.splats import COEFFICIENTS, Model, Splats
from models.splat_to_sog.webp import WebpError, decode_webp

META = "meta.json"
MAX_ENTRIES = 16
MAX_META_BYTES = 4 << 20
MAX_TEXTURE_BYTES = 1 << 30
MAX_RATIO = 20  # WebP does not deflate: a real entry's ratio is close to 1
FREE_BYTES = 1 << 16  # below this size any ratio is believed
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}\.webp")

Opener = Callable[[str], bytes]  # file name -> its bytes


def read_bundle(path: Path, name: str) -> Splats:
    """A .sog file."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked_entries(archive, name)

            def opener(file: str) -> bytes:
                if file not in entries:
                    raise _bad(name, f"'{file}' is not in the archive")
                return _read_entry(archive, entries[file], name)

            return _read(opener, name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _bad(name, f"the ZIP archive is damaged ({error})", code="splat_truncated") from error


def read_loose(files: Mapping[str, Path], name: str) -> Splats:
    """Loose files by their names in the scene: meta.json and the textures that it names."""

    def opener(file: str) -> bytes:
        path = files.get(file)
        if path is None:
            raise _bad(
                name, f"'{file}', which meta.json names, is missing (present: {', '.join(files)})"
            )
        limit = MAX_META_BYTES if file == META else MAX_TEXTURE_BYTES
        if path.stat().st_size > limit:
            raise _bad(name, f"'{file}' is larger than {limit} bytes", code="splat_limits")
        return path.read_bytes()

    return _read(opener, name)


def _checked_entries(archive: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise _bad(
            name, f"the archive has {len(infos)} entries; at most {MAX_ENTRIES} belong in a .sog"
        )
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        file = info.filename
        if file != META and not NAME.fullmatch(file):
            raise _bad(
                name,
                f"the archive has an entry {file[:80]!r}; "
                "only meta.json and *.webp at the root belong in a .sog",
                code="splat_archive",
            )
        if file in entries:
            raise _bad(name, f"the archive has two entries '{file}'", code="splat_archive")
        if info.flag_bits & 1:
            raise _bad(name, f"'{file}' is encrypted", code="splat_archive")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _bad(
                name,
                f"'{file}' uses ZIP method {info.compress_type}; "
                "allowed are 0 (stored) and 8 (deflate)",
                code="splat_archive",
            )
        limit = MAX_META_BYTES if file == META else MAX_TEXTURE_BYTES
        ratio_limit = None if file == META else max(FREE_BYTES, MAX_RATIO * info.compress_size)
        if info.file_size > limit or (ratio_limit is not None and info.file_size > ratio_limit):
            raise _bad(
                name,
                f"'{file}' claims to unpack from {info.compress_size} to {info.file_size} bytes; "
                f"allowed are {min(limit, ratio_limit or limit)}",
                code="splat_limits",
            )
        entries[file] = info
    if META not in entries:
        raise _bad(
            name,
            "the archive has no meta.json at its root: it is not a SOG bundle",
            code="splat_type",
        )
    return entries


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bytes:
    with archive.open(info) as stream:
        data = stream.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise _bad(name, f"'{info.filename}' does not unpack to its {info.file_size} bytes")
    return data


def _read(opener: Opener, name: str) -> Splats:
    meta = _Meta(opener(META), name)
    count = meta.integer("count", 1, layout.MAX_SPLATS)

    def texture(file: str, texels: int) -> NDArray[np.uint8]:  # [texels, 4]
        try:
            # Padding up to a square of twice the size is odd but harmless; more is an attack.
            pixels = decode_webp(opener(file), max_texels=4 * texels + 4096)
        except WebpError as error:
            raise _bad(name, f"texture '{file}': {error}", code="splat_texture") from error
        if pixels.shape[0] * pixels.shape[1] < texels:
            raise _bad(
                name,
                f"texture '{file}' is {pixels.shape[1]} x {pixels.shape[0]} pixels, "
                f"too small for {texels} splats",
                code="splat_texture",
            )
        return pixels.reshape(-1, 4)[:texels]

    low, high = (texture(file, count) for file in meta.files("means", 2))
    steps = low[:, :3].astype(np.float64) + 256.0 * high[:, :3]
    mins, maxs = meta.floats("means", "mins", 3), meta.floats("means", "maxs", 3)
    means = layout.linear_position(mins + (maxs - mins) * (steps / layout.POSITION_STEPS))

    scales = meta.codebook("scales")[texture(meta.files("scales", 1)[0], count)[:, :3]]
    quats = layout.quats_from_texels(texture(meta.files("quats", 1)[0], count))
    colour = texture(meta.files("sh0", 1)[0], count)
    return Splats(
        means=means.astype(np.float32),
        scales=scales,
        quats=quats.astype(np.float32),
        opacities=layout.alpha_to_logit(colour[:, 3]).astype(np.float32),
        sh0=meta.codebook("sh0")[colour[:, :3]],
        shN=_harmonics(meta, texture, opener, count, name),
        model=meta.model(),
    )


def _harmonics(
    meta: _Meta,
    texture: Callable[[str, int], NDArray[np.uint8]],
    opener: Opener,
    count: int,
    name: str,
) -> NDArray[np.float32]:  # [N, 3, K]
    if not meta.has("shN"):
        return np.zeros((count, 3, 0), np.float32)
    entries = meta.integer("shN.count", 1, layout.MAX_PALETTE)
    degree = meta.integer("shN.bands", 1, 3)
    k = COEFFICIENTS[degree]
    centroids_file, labels_file = meta.files("shN", 2)
    width, height = layout.palette_size_px(entries, degree)
    try:
        pixels = decode_webp(opener(centroids_file), max_texels=4 * width * height + 4096)
    except WebpError as error:
        raise _bad(name, f"texture '{centroids_file}': {error}", code="splat_texture") from error
    if pixels.shape[1] != width or pixels.shape[0] < height:
        raise _bad(
            name,
            f"texture '{centroids_file}' is {pixels.shape[1]} x {pixels.shape[0]} pixels; "
            f"{entries} entries of {degree} bands take {width} x {height}",
            code="splat_texture",
        )
    book = meta.codebook("shN")
    indices = pixels[:height, :, :3].reshape(-1, k, 3)[:entries]  # entry, coefficient, channel
    # A label past the palette decodes as zeros: one more entry, all zero.
    palette = np.zeros((entries + 1, 3, k), np.float32)
    palette[:entries] = book[indices].transpose(0, 2, 1)
    bytes_ = texture(labels_file, count)
    labels = bytes_[:, 0].astype(np.intp) + 256 * bytes_[:, 1].astype(np.intp)
    harmonics: NDArray[np.float32] = palette[np.minimum(labels, entries)]
    return harmonics


class _Meta:
    """meta.json, each field checked as it is asked for."""

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        try:
            self.tree: Any = json.loads(data)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise _bad(name, f"meta.json is not valid JSON ({error})", code="splat_meta") from error
        if not isinstance(self.tree, dict):
            raise self._bad("the whole file", "not a JSON object")
        if "tree" in self.tree and "lodLevels" in self.tree:
            raise _bad(
                name,
                "this is the lod-meta.json of a streamed SOG; "
                "give one of its chunks (a folder with a meta.json)",
                code="splat_unsupported",
            )
        version = self.tree.get("version")
        if version != 2 or isinstance(version, bool):
            said = "missing (SOG version 1?)" if version is None else repr(version)
            raise _bad(
                name, f"meta.json: 'version' is {said}; version 2 is read", code="splat_unsupported"
            )

    def has(self, key: str) -> bool:
        return self.tree.get(key) is not None

    def model(self) -> Model:
        model = self.tree.get("model")
        if model is None and self.tree.get("antialias") is True:  # as the public page has it
            return "antialiased"
        return model if model in ("antialiased", "2dgs") else "default"

    def _get(self, dotted: str) -> Any:
        value: Any = self.tree
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def integer(self, dotted: str, low: int, high: int) -> int:
        value = self._get(dotted)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._bad(
                dotted, f"{_short(value)}; allowed is a whole number of {low} to {high}"
            )
        return value

    def floats(self, section: str, key: str, length: int) -> NDArray[np.float64]:
        value = self._get(f"{section}.{key}")
        ok = isinstance(value, list) and len(value) == length and all(map(_is_number, value))
        if not ok:
            raise self._bad(
                f"{section}.{key}", f"{_short(value)}; {length} finite numbers are needed"
            )
        return np.array(value, np.float64)

    def codebook(self, section: str) -> NDArray[np.float32]:
        """256 values. Old writers left null (a NaN) in entry 0: continued from its neighbours."""
        value = self._get(f"{section}.codebook")
        if isinstance(value, list) and len(value) == layout.BOOK and value[0] is None:
            rest = value[1:]
            if all(map(_is_number, rest)):
                value = [rest[0] + (rest[0] - rest[-1]) / (layout.BOOK - 1), *rest]
        ok = isinstance(value, list) and len(value) == layout.BOOK and all(map(_is_number, value))
        if not ok:
            raise self._bad(f"{section}.codebook", f"not a list of {layout.BOOK} finite numbers")
        return np.array(value, np.float64).astype(np.float32)

    def files(self, section: str, length: int) -> list[str]:
        value = self._get(f"{section}.files")
        ok = isinstance(value, list) and len(value) == length
        if not ok or not all(isinstance(file, str) and NAME.fullmatch(file) for file in value):
            raise self._bad(
                f"{section}.files",
                f"{_short(value)}; {length} plain name(s) like 'means_l.webp' are needed, "
                "without folders",
            )
        return list(value)

    def _bad(self, field: str, problem: str) -> InvalidInput:
        return _bad(self.name, f"meta.json: '{field}' is {problem}", code="splat_meta")


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= float(np.finfo(np.float32).max)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _bad(name: str, problem: str, code: str = "splat_archive") -> InvalidInput:
    return InvalidInput(
        f"{name}: SOG: {problem}.",
        code=code,
        next_step="Upload the complete .sog, or export the scene again as SOG v2, .ply or .spz.",
    )
