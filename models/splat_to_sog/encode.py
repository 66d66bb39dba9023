"""Encodes splats as the files of a SOG v2 scene: `encode(splats, options)` is a pure function.

Does not read files, drop splats or bundle: the pipeline does. The steps are free functions over
arrays, in the order in which they run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import JsonValue
from models.cores import usable_cores
from models.splat_to_sog import layout
from models.splat_to_sog.bundle import bundle
from models.splat_to_sog.codebook import Codebook
from models.splat_to_sog.columns import Columns, Texels
from models.splat_to_sog.filenames import META
from models.splat_to_sog.harmonics import (
    Harmonics,
    code_harmonics,
    harmonics_price,
    palettes_of,
)
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.order import arrange
from models.splat_to_sog.palette import Palettes
from models.splat_to_sog.prediction import Prediction
from models.splat_to_sog.presets import (
    FEW_WITH_HARMONICS,
    FINEST,
    PLANS,
    WITH_HARMONICS,
    Plan,
)
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.stages import OnStage, OnStep
from models.splat_to_sog.targets import fit_bytes, fit_loss, fit_psnr
from models.splat_to_sog.threads import Beside, threads_are_ours
from models.splat_to_sog.webp import ENTRIES, start_webp

MAX_DEGREE = 3
ENTRIES_FILE = "shN_centroids.webp"


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


@threads_are_ours()
def encode(
    splats: Splats,
    options: SogOptions,
    on_stage: OnStage = lambda stage, fraction: None,
    order: NDArray[np.intp] | None = None,  # [N] rows in the order to store; default: our own
    device: str = "cpu",
) -> Encoded:
    """The scene's files. `splats` must be finite (`drop_non_finite`).

    Same splats, options and device, same bytes. Raises ValueError for more splats than a texture
    holds, InvalidInput where a target is out of reach.
    """
    if not 1 <= len(splats) <= layout.MAX_SPLATS:
        raise ValueError(f"{len(splats)} splats; SOG takes 1 to {layout.MAX_SPLATS}")

    # 1. what each number is worth, and the order: classes of like worth, each along the curve
    on_stage("order", 0.0)
    splats = splats.cut_degree(MAX_DEGREE if options.sh_degree is None else options.sh_degree)
    few = len(splats) <= layout.MAX_PALETTE
    plans = (FEW_WITH_HARMONICS if few else WITH_HARMONICS) if splats.degree else PLANS
    plan = plans["small" if options.targeted else options.preset]
    coder = _Coder(splats, options, plan, order, device, on_stage)

    # 2. the price of a bit: a size that is met, a loss that is seen, what the preset says
    if options.target_bytes is not None:
        return fit_bytes(coder.sized, options.target_bytes, coder.prediction.bytes)[1]
    if options.target_psnr is not None:
        price, made = fit_psnr(coder.seen, options.target_psnr, coder.prediction.psnr_db)
        coder.adopt(made)
    elif splats.degree:
        price = harmonics_price(splats, coder.columns.importance.worth["colour"], plan.share)
    elif plan.loss_db:
        finest = coder.seen(FINEST)
        loss_db = (
            min(plan.loss_db, finest[0] - coder.truncated_db()) if plan.matches else plan.loss_db
        )
        price, made = fit_loss(coder.seen, finest, max(loss_db, 0.0), coder.prediction.psnr_db)
        coder.adopt(made)
    else:
        price = FINEST

    # 3. the files at this price
    return coder.encoded(price)


@dataclass(frozen=True)
class _Made:
    """What a price gives, in the order of the input."""

    price: float
    texels: dict[str, Texels]
    harmonics: Harmonics | None


class _Coder:
    """One scene at any price. What is made at the last price is kept, since it is asked for again
    when that price proves right."""

    def __init__(
        self,
        splats: Splats,
        options: SogOptions,
        plan: Plan,
        order: NDArray[np.intp] | None,
        device: str,
        on_stage: OnStage,
    ) -> None:
        self.splats, self.options, self.plan = splats, options, plan
        self.device, self.on_stage = device, on_stage
        self.given = order is not None
        self.columns = Columns(splats, plan.classes, plan.turns, on_stage, order, device)
        self._price = -1.0
        self._texels: dict[str, Texels] = {}
        self._harmonics: Harmonics | None = None

    @cached_property
    def palettes(self) -> Palettes | None:
        """Of the scene's harmonics; what one price needs is there for the next."""
        if not self.splats.degree:
            return None
        worth = self.columns.importance.worth["colour"]
        return palettes_of(self.splats, worth, self.options, self.device)

    @cached_property
    def trial(self) -> Any:
        from models.splat_to_sog.trial import Trial  # its renderer is slow to import

        return Trial(self.splats, self.device)

    @cached_property
    def prediction(self) -> Prediction:
        return Prediction(self.columns, self.palettes)

    def seen(self, price: float) -> tuple[float, _Made]:
        """(PSNR in dB of pictures of the scene as it would be read back, what that is)."""
        with self._made(price) as harmonics:
            coded = harmonics()
        decoded = self.columns.decoded(self._texels)
        if coded is not None:
            decoded = replace(decoded, shN=coded.decoded())
        self.on_stage("quantise", 0.9)
        psnr: float = self.trial.psnr_db(decoded)
        return psnr, _Made(price, self._texels, coded)

    def truncated_db(self) -> float:
        """PSNR of the scene with its numbers cut off instead of rounded; with its own harmonics."""
        psnr: float = self.trial.psnr_db(self.columns.decoded(self.columns.truncated()))
        return psnr

    def sized(self, price: float) -> tuple[float, Encoded]:
        """(bytes of the bundle, what is in it)."""
        made = self.encoded(price)
        return len(bundle(made.files)), made

    def adopt(self, made: _Made) -> None:
        """Take what was made at an earlier price to be the last."""
        self._price, self._texels, self._harmonics = made.price, made.texels, made.harmonics

    def encoded(self, price: float) -> Encoded:
        """The scene at this price: each texture is compressed as soon as it is known."""
        with ThreadPoolExecutor(usable_cores()) as pool, self._made(price) as harmonics:
            try:
                return self._encoded(price, pool, harmonics)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _encoded(
        self, price: float, pool: Executor, harmonics: Callable[[], Harmonics | None]
    ) -> Encoded:
        size = layout.texture_size(len(self.splats), self.plan.span)
        started: dict[str, Callable[[], bytes]] = {}

        def start(rows: dict[str, Texels]) -> None:  # of each splat, in the order of the input
            textures = pool.map(
                lambda values: layout.to_texture(values[order], *size), rows.values()
            )
            for name, texels in zip(rows, textures, strict=True):
                started[name] = start_webp(texels, self.plan.effort, pool)

        order, arranged = self.columns.order, {"method": "given" if self.given else "curve"}
        few = len(self.splats) <= layout.MAX_PALETTE  # entries may be the splats' own
        coded = harmonics() if few else None
        if coded is not None and not self.given:
            order = coded.in_runs(order)
        if self.plan.span and not self.given:
            found = arrange(self._texels, order, self.plan.span, self.device)
            order, arranged = found.order, found.report
        start(self._texels)
        if not few:
            coded = harmonics()
        if coded is not None:
            coded = coded.along(order)
            entries = start_webp(coded.palette_texture(), ENTRIES, pool)  # takes longest
            start({"shN_labels.webp": coded.label_bytes()})
            started[ENTRIES_FILE] = entries
        files = {}
        for done, (name, file) in enumerate(started.items()):
            self.on_stage("textures", done / len(started))
            files[name] = file()
        meta = _description(self.columns, coded)
        files[META] = json.dumps(meta, separators=(",", ":"), allow_nan=False).encode()
        choices: dict[str, JsonValue] = {
            "preset": self.options.preset,
            "price": price,
            "classes": self.columns.classes.count,
            "order": arranged,
            "palette_entries": 0 if coded is None else len(coded.indices),
        }
        return Encoded(files, order, choices)

    @contextmanager
    def _made(self, price: float) -> Iterator[Callable[[], Harmonics | None]]:
        """Texels at this price are there; the function given waits for the harmonics.

        On a GPU these are coded meanwhile, beside whatever the block does. On the CPU they take
        every core themselves, so they are coded when they are asked for.
        """
        if price == self._price:
            yield lambda: self._harmonics
            return

        def on_step(fraction: float) -> None:
            self.on_stage("palette", fraction)

        def keep(coded: Harmonics | None) -> Harmonics | None:
            self._harmonics, self._price = coded, price
            return coded

        def code(on_step: OnStep) -> Harmonics:
            worth = self.columns.importance.worth["colour"]
            return code_harmonics(
                self.splats,
                worth,
                price,
                self.options,
                self.device,
                lambda _, done: on_step(done),
                self.palettes,
            )

        self._price = -1.0
        if not self.splats.degree:
            self._quantise(price)
            yield lambda: keep(None)
        elif self.device == "cpu":
            self._quantise(price)
            yield lambda: keep(code(on_step))
        else:
            with Beside(code) as beside:
                self._quantise(price)
                yield lambda: keep(beside.result(on_step))

    def _quantise(self, price: float) -> None:
        self.on_stage("quantise", 0.8)
        self._texels = self.columns.textures(price)


def _description(columns: Columns, harmonics: Harmonics | None) -> dict[str, Any]:
    """The meta.json that names the textures."""
    model = columns.splats.model
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": "meshpress"},
        "count": len(columns.splats),
        **({} if model == "default" else {"model": model}),
        "means": {
            "mins": columns.grid.mins.tolist(),
            "maxs": columns.grid.maxs.tolist(),
            "files": ["means_l.webp", "means_u.webp"],
        },
        "scales": {"codebook": _numbers(columns.scale_book), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": _numbers(columns.colour_book), "files": ["sh0.webp"]},
    }
    if harmonics is not None:
        meta["shN"] = {
            "count": len(harmonics.indices),
            "bands": harmonics.degree,
            "codebook": _numbers(harmonics.book),
            "files": [ENTRIES_FILE, "shN_labels.webp"],
        }
    return meta


def _numbers(book: Codebook) -> list[float]:
    """Shortest decimals that read back as the same float32."""
    return [float(str(value)) for value in book.padded()]
