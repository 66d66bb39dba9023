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

from models.context import JsonValue
from models.splat_to_sog import layout
from models.splat_to_sog.canonical import canonical
from models.splat_to_sog.codebook import Codebook, build_codebook
from models.splat_to_sog.harmonics import code_harmonics
from models.splat_to_sog.importance import alphas, axis_shares, importance
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.order import hilbert_keys
from models.splat_to_sog.presets import (
    fit_bytes,
    predicted_psnr,
    price_of_preset,
    price_of_psnr,
)
from models.splat_to_sog.quantize import (
    QUAT_SCALE,
    grid_of,
    quantize_opacities,
    quantize_positions,
    quantize_quats,
)
from models.splat_to_sog.rate import classify, position_limit
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.webp import encode_webp

MAX_DEGREE = 3
BUNDLE_BYTES = 1100  # of an archive's directory around seven files
ERROR_SAMPLE = 20_000
QUANTISE_ROWS = 1 << 15  # temporaries stay in cache
WEBP_THREADS = 2  # libwebp runs outside the interpreter lock; each holds one texture's working set

Texels = NDArray[np.uint8]
OnStage = Callable[[str, float], None]  # (stage, fraction of that stage); may raise to stop


@dataclass(frozen=True)
class Encoded:
    """files by name, meta.json last; order [N]: the splat stored at each place; choices: what was
    decided, for the report."""

    files: dict[str, bytes]
    order: NDArray[np.intp]
    choices: dict[str, JsonValue]

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.files.values()))


class Columns:
    """The texels of each splat in the order of the input; made from steps, whatever the price."""

    def __init__(
        self, splats: Splats, on_stage: OnStage, order: NDArray[np.intp] | None = None
    ) -> None:
        self.splats = splats
        self.grid = grid_of(splats.means)
        n = len(splats)
        on_stage("quantise", 0.0)
        self.importance = importance(splats)
        self.classes = classify(self.importance, None if order is None else 1)
        on_stage("quantise", 0.3)
        self.scales = np.empty((n, 3), np.float32)
        self.quats = np.empty((n, 4), np.float32)
        for rows in chunks(n, QUANTISE_ROWS):
            self.scales[rows], self.quats[rows] = canonical(
                splats.scales[rows], splats.quats[rows], splats.model == "2dgs"
            )
        on_stage("quantise", 0.5)
        worth = self.importance.worth
        self.scale_book = build_codebook(self.scales, worth=worth["scale"])
        self.colour_book = build_codebook(splats.sh0, worth=worth["colour"])
        self.order = self._order() if order is None else order
        self.finest = self._finest()
        on_stage("quantise", 0.7)

    def _finest(self) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
        """Of each attribute by class [C], from a sample: error at the finest steps; summed worth of
        one number, so that error = worth step^2 / 12 at coarser ones."""
        splats = self.splats
        rows = np.arange(0, len(splats), max(1, len(splats) // ERROR_SAMPLE))
        share = len(splats) / len(rows)
        of = self.classes.of[rows]
        finite = np.nan_to_num(self.scales[rows], neginf=0)
        alpha = alphas(splats.opacities[rows]) * 255
        square = {
            "position": np.broadcast_to(self.grid.unit**2 / 12, (len(rows), 3)),
            "scale": (self.scale_book.decode(self.scale_book.encode(finite)) - finite) ** 2
            * axis_shares(splats.means[rows], finite),
            "rotation": np.full((len(rows), 3), (2 / QUAT_SCALE) ** 2 / 12),
            "colour": (
                self.colour_book.decode(self.colour_book.encode(splats.sh0[rows]))
                - splats.sh0[rows]
            )
            ** 2,
            "opacity": ((np.rint(alpha) - alpha) / 255)[:, None] ** 2,
        }
        finest: dict[str, NDArray[np.float64]] = {}
        worth: dict[str, NDArray[np.float64]] = {}
        for name, value in square.items():
            each = self.importance.worth[name][rows].astype(np.float64) * share
            count = self.classes.count
            finest[name] = np.bincount(of, each * value.sum(axis=1), count).astype(np.float64)
            worth[name] = np.bincount(of, each * value.shape[1], count).astype(np.float64)
        return finest, worth

    def predicted_error(self, price: float) -> float:
        """Mean squared error of a picture (values 0..1), harmonics left out.

        The finest steps of scales and rotations are left out too: they weigh on a few large splats
        whose worth is an upper bound (a shape that is off by its own width cannot get worse).
        """
        steps = self.classes.steps(price)
        finest, worth = self.finest
        total = 0.0
        for name, floor in finest.items():
            coarse = worth[name] * steps[name] ** 2 / 12
            total += float(np.maximum(coarse - floor, 0).sum())
            if name in ("position", "colour", "opacity"):
                total += float(floor.sum())
        return total

    def _order(self) -> NDArray[np.intp]:
        """Class after class, each along the curve: neighbours in space and of one step."""
        keys = np.empty(len(self.splats), np.uint64)
        for rows in chunks(len(self.splats)):
            keys[rows] = hilbert_keys(quantize_positions(self.splats.means[rows], self.grid).steps)
        return np.lexsort((keys, self.classes.of))

    def textures(self, price: float) -> dict[str, Texels]:
        """[N, 3 or 4] bytes of each texture at this price."""
        splats, of = self.splats, self.classes.of
        n = len(splats)
        steps = self.classes.steps(price)
        limit = position_limit(splats.means)
        grid = (
            np.rint(np.minimum(steps["position"][:, None], limit) / self.grid.unit)
            .clip(1, 256)
            .astype(np.int32)
        )
        turn = np.rint(steps["rotation"] / 2 * QUAT_SCALE).clip(1, 64).astype(np.int32)
        alpha = np.rint(steps["opacity"] * 255).clip(1, 64).astype(np.int32)
        low, high = np.empty((n, 3), np.uint8), np.empty((n, 3), np.uint8)
        quats, colour = np.empty((n, 4), np.uint8), np.empty((n, 4), np.uint8)
        scales = np.empty((n, 3), np.uint8)
        for rows in chunks(n, QUANTISE_ROWS):
            group = of[rows]
            positions = quantize_positions(splats.means[rows], self.grid, grid[group])
            low[rows], high[rows] = positions.low, positions.high
            quats[rows] = quantize_quats(self.quats[rows], turn[group])
            colour[rows, 3] = quantize_opacities(splats.opacities[rows], alpha[group])
        for number in range(self.classes.count):
            members = np.flatnonzero(of == number)
            scales[members] = self.scale_book.encode_coarse(
                self.scales[members], float(steps["scale"][number])
            )
            colour[members, :3] = self.colour_book.encode_coarse(
                splats.sh0[members], float(steps["colour"][number])
            )
        return {
            "means_l.webp": low,
            "means_u.webp": high,
            "scales.webp": scales,
            "quats.webp": quats,
            "sh0.webp": colour,
        }


def encode(
    splats: Splats,
    options: SogOptions,
    on_stage: OnStage = lambda stage, fraction: None,
    order: NDArray[np.intp] | None = None,  # [N] rows in the order to store; default: our own
    device: str = "cpu",
) -> Encoded:
    """The scene's files. `splats` must be finite (`drop_non_finite`).

    Same splats and options, same bytes. Raises ValueError for more splats than a texture holds.
    """
    if not 1 <= len(splats) <= layout.MAX_SPLATS:
        raise ValueError(f"{len(splats)} splats; SOG takes 1 to {layout.MAX_SPLATS}")

    # 1. what each number is worth, and the order: classes of like worth, each along the curve
    on_stage("order", 0.0)
    splats = splats.cut_degree(MAX_DEGREE if options.sh_degree is None else options.sh_degree)
    columns = Columns(splats, on_stage, order)
    order = columns.order

    # 2. the price of a bit, then everything at that price
    error = columns.predicted_error
    if options.target_bytes is not None:
        price = price_of_preset(error, "small")
        made, price = fit_bytes(
            lambda price: _at_price(splats, options, columns, price, on_stage, device),
            lambda files: sum(map(len, files.values())),
            options.target_bytes - BUNDLE_BYTES,
            price,
        )
    else:
        price = (
            price_of_preset(error, options.preset)
            if options.target_psnr is None
            else price_of_psnr(error, options.target_psnr)
        )
        made = _at_price(splats, options, columns, price, on_stage, device)
    choices: dict[str, JsonValue] = {
        "preset": options.preset,
        "price": price,
        "classes": columns.classes.count,
        "predicted_psnr_db": round(predicted_psnr(error(price)), 2),
        "finest_psnr_db": round(predicted_psnr(error(0.0)), 2),
    }
    return Encoded(made, order, choices)


def _at_price(
    splats: Splats,
    options: SogOptions,
    columns: Columns,
    price: float,
    on_stage: OnStage,
    device: str,
) -> dict[str, bytes]:
    # 1. bytes of every splat, in the stored order
    on_stage("quantise", 0.8)
    order = columns.order
    width, height = layout.texture_size(len(splats))
    textures = {
        name: layout.to_texture(rows[order], width, height)
        for name, rows in columns.textures(price).items()
    }

    # 2. palette: the harmonics as labels into a table of whole vectors
    on_stage("palette", 0.0)
    harmonics = None
    if splats.degree:
        worth = columns.importance.worth["colour"]
        harmonics = code_harmonics(splats, worth, price, options, device, on_stage)

    # 3. the description that names the textures
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": "meshpress"},
        "count": len(splats),
        **({} if splats.model == "default" else {"model": splats.model}),
        "means": {
            "mins": columns.grid.mins.tolist(),
            "maxs": columns.grid.maxs.tolist(),
            "files": ["means_l.webp", "means_u.webp"],
        },
        "scales": {"codebook": _numbers(columns.scale_book), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": _numbers(columns.colour_book), "files": ["sh0.webp"]},
    }
    if harmonics:
        textures["shN_centroids.webp"] = harmonics.palette_texture()
        labels = harmonics.label_bytes()[order]
        textures["shN_labels.webp"] = layout.to_texture(labels, width, height)
        meta["shN"] = {
            "count": len(harmonics.indices),
            "bands": harmonics.degree,
            "codebook": _numbers(harmonics.book),
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        }
    files = _compress(textures, on_stage)
    files["meta.json"] = json.dumps(meta, separators=(",", ":"), allow_nan=False).encode()
    return files


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
