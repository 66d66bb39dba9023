"""Encodes splats as the files of a SOG v2 scene: `encode(splats, options)` is a pure function.

Does not read files, drop splats or bundle: the pipeline does. The steps are free functions over
arrays, in the order in which they run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog import layout
from models.splat_to_sog.codebook import Codebook, build_codebook
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.order import hilbert_order
from models.splat_to_sog.palette import Palette, build_palette, default_size, relabel
from models.splat_to_sog.quantize import quantize_opacities, quantize_positions, quantize_quats
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.webp import encode_webp

MAX_DEGREE = 3
WEBP_THREADS = 2  # libwebp runs outside the interpreter lock; each holds one texture's working set

Texels = NDArray[np.uint8]
OnStage = Callable[[str, float], None]  # (stage, fraction of that stage); may raise to stop


@dataclass(frozen=True)
class Harmonics:
    """The palette as coded: labels [N]; indices [P, K, 3] into book."""

    labels: NDArray[np.intp]
    indices: NDArray[np.uint8]
    book: Codebook
    degree: int


def encode(
    splats: Splats,
    options: SogOptions,
    on_stage: OnStage = lambda stage, fraction: None,
) -> dict[str, bytes]:
    """Files of the scene by name, meta.json last. `splats` must be finite (`drop_non_finite`).

    Same splats and options, same bytes. Raises ValueError for more splats than a texture holds.
    """
    if not 1 <= len(splats) <= layout.MAX_SPLATS:
        raise ValueError(f"{len(splats)} splats; SOG takes 1 to {layout.MAX_SPLATS}")

    # 1. order: neighbours in space become neighbours in the textures
    on_stage("order", 0.0)
    splats = splats.cut_degree(MAX_DEGREE if options.sh_degree is None else options.sh_degree)
    order = hilbert_order(quantize_positions(splats.means).steps)
    splats = splats.take(order)

    # 2. quantise: positions, rotations, opacities to steps; scales and colours to codebooks
    on_stage("quantise", 0.0)
    positions = quantize_positions(splats.means)
    quats = quantize_quats(splats.quats)
    on_stage("quantise", 0.5)
    scale_book = build_codebook(splats.scales)
    on_stage("quantise", 0.75)
    colour_book = build_codebook(splats.sh0)
    colour = np.concatenate(
        [colour_book.encode(splats.sh0), quantize_opacities(splats.opacities)[:, None]], axis=1
    )

    # 3. palette: the harmonics as labels into a table of whole vectors
    on_stage("palette", 0.0)
    harmonics = quantize_harmonics(splats, options, on_stage) if splats.degree else None

    # 4. textures, then the description that names them
    width, height = layout.texture_size(len(splats))
    per_splat = {
        "means_l.webp": positions.low,
        "means_u.webp": positions.high,
        "scales.webp": scale_book.encode(splats.scales),
        "quats.webp": quats,
        "sh0.webp": colour,
    }
    textures = {name: layout.to_texture(rows, width, height) for name, rows in per_splat.items()}
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": "meshpress"},
        "count": len(splats),
        **({} if splats.model == "default" else {"model": splats.model}),
        "means": {
            "mins": positions.mins.tolist(),
            "maxs": positions.maxs.tolist(),
            "files": ["means_l.webp", "means_u.webp"],
        },
        "scales": {"codebook": _numbers(scale_book), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": _numbers(colour_book), "files": ["sh0.webp"]},
    }
    if harmonics:
        textures["shN_centroids.webp"] = _palette_texture(harmonics)
        textures["shN_labels.webp"] = layout.to_texture(_label_bytes(harmonics), width, height)
        meta["shN"] = {
            "count": len(harmonics.indices),
            "bands": harmonics.degree,
            "codebook": _numbers(harmonics.book),
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        }
    files = _compress(textures, on_stage)
    files["meta.json"] = json.dumps(meta, separators=(",", ":"), allow_nan=False).encode()
    return files


def quantize_harmonics(splats: Splats, options: SogOptions, on_stage: OnStage) -> Harmonics:
    """Palette, codebook over its values, and labels that are nearest to the entries as coded."""
    n, _, k = splats.shN.shape
    rows = splats.shN.reshape(n, 3 * k)
    size = options.palette_size or default_size(n)
    palette = build_palette(
        rows, size, options.seed, lambda fraction: on_stage("palette", 0.9 * fraction)
    )
    book = build_codebook(palette.entries)
    indices = book.encode(palette.entries)  # [P, 3K]
    coded = book.decode(indices)
    labels = palette.labels
    if not np.array_equal(coded, palette.entries):
        on_stage("palette", 0.9)
        labels = _better_labels(rows, palette, coded)
    labels, kept = _in_order_of_use(labels)
    pixels = indices[kept].reshape(-1, 3, k).transpose(0, 2, 1)  # entry, coefficient, channel
    return Harmonics(labels, np.ascontiguousarray(pixels), book, splats.degree)


def _better_labels(
    rows: NDArray[np.float32], palette: Palette, coded: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Labels against the coded entries; a row keeps its own where the search finds none closer."""
    found = relabel(rows, coded)
    old = ((rows - coded[palette.labels]) ** 2).sum(axis=1)
    new = ((rows - coded[found]) ** 2).sum(axis=1)
    return np.where(new < old, found, palette.labels)


def _in_order_of_use(labels: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(labels renumbered, the entries that are kept): ordered by the mean position of their splats
    along the curve, so that neighbouring labels are close numbers and their high bytes compress."""
    uses = np.bincount(labels)
    kept = np.flatnonzero(uses)
    centre = np.bincount(labels, np.arange(len(labels)))[kept] / uses[kept]
    kept = kept[np.argsort(centre, kind="stable")]
    renumbered = np.zeros(len(uses), np.intp)
    renumbered[kept] = np.arange(len(kept))
    return renumbered[labels], kept


def _palette_texture(harmonics: Harmonics) -> Texels:
    width, height = layout.palette_size_px(len(harmonics.indices), harmonics.degree)
    return layout.to_texture(harmonics.indices.reshape(-1, 3), width, height)


def _label_bytes(harmonics: Harmonics) -> Texels:  # [N, 3]
    labels = harmonics.labels
    return np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], axis=1).astype(np.uint8)


def _numbers(book: Codebook) -> list[float]:
    """Shortest decimals that read back as the same float32."""
    return [float(str(value)) for value in book.padded()]


def _compress(textures: dict[str, Texels], on_stage: OnStage) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with ThreadPoolExecutor(WEBP_THREADS) as pool:
        pending = {name: pool.submit(encode_webp, texels) for name, texels in textures.items()}
        try:
            for done, (name, future) in enumerate(pending.items()):
                on_stage("textures", done / len(pending))
                files[name] = future.result()
        finally:
            for future in pending.values():
                future.cancel()
    return files
