"""Every number of a scene as bytes, at any price: what the per-splat textures hold.

Does not order, compress or choose the price. Made once a scene; `textures` and `decoded` may then
be asked for at many prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog import layout
from models.splat_to_sog.canonical import QUAT_SCALE, canonical
from models.splat_to_sog.codebook import Codebook, build_codebook
from models.splat_to_sog.importance import alphas, axis_shares, importance
from models.splat_to_sog.order import hilbert_keys
from models.splat_to_sog.order.device import hilbert_order_on_device
from models.splat_to_sog.quantize import (
    grid_of,
    quantize_opacities,
    quantize_positions,
    quantize_quats,
    smallest_three,
)
from models.splat_to_sog.rate import classify, position_limit
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.stages import OnStage
from models.splat_to_sog.threads import in_threads

ERROR_SAMPLE = 20_000
PRECIOUS_SHARE = 0.2
"""Of the splats: the few whose rotations are worth most make up nearly all of the error."""
QUANTISE_ROWS = 1 << 15  # temporaries stay in cache
BOOK_ROWS = 1 << 17  # a codebook makes a table first

Texels = NDArray[np.uint8]


class Columns:
    """The texels of each splat in the order of the input, whatever the price.

    max_classes: of like worth, each with steps of its own; 1 needs no estimate of what is hidden.
    turns: ways of writing a rotation of which the one that is stored best is taken, for splats
    where that is worth its bytes. order: rows in the order to store; by default class after class,
    each along the curve.
    """

    def __init__(
        self,
        splats: Splats,
        max_classes: int,
        turns: int,
        on_stage: OnStage,
        order: NDArray[np.intp] | None = None,
        device: str = "cpu",
    ) -> None:
        self.splats = splats
        self.turns, self.on_stage, self.device = turns, on_stage, device
        self.grid = grid_of(splats.means)
        on_stage("quantise", 0.0)
        self.importance = importance(splats, hidden=max_classes > 1)
        self.classes = classify(self.importance, max_classes if order is None else 1)
        self._given = order
        on_stage("quantise", 0.3)

    @cached_property
    def order(self) -> NDArray[np.intp]:  # [N]
        return self._along_curve() if self._given is None else self._given

    @cached_property
    def rotations(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(scales [N, 3], quats [N, 4]) as they are written: see `canonical`."""
        n = len(self.splats)
        found = np.empty((n, 3), np.float32), np.empty((n, 4), np.float32)
        self._write_rotations(*found)
        self.on_stage("quantise", 0.5)
        return found

    @cached_property
    def books(self) -> tuple[Codebook, Codebook]:
        """(of scales, of colours)."""
        worth = self.importance.worth
        scales, colours = in_threads(
            lambda part: build_codebook(part[0], worth=part[1], device=self.device),
            [(self.rotations[0], worth["scale"]), (self.splats.sh0, worth["colour"])],
        )
        self.on_stage("quantise", 0.7)
        return scales, colours

    @property
    def scales(self) -> NDArray[np.float32]:
        return self.rotations[0]

    @property
    def quats(self) -> NDArray[np.float32]:
        return self.rotations[1]

    @property
    def scale_book(self) -> Codebook:
        return self.books[0]

    @property
    def colour_book(self) -> Codebook:
        return self.books[1]

    def _write_rotations(
        self, all_scales: NDArray[np.float32], all_quats: NDArray[np.float32]
    ) -> None:
        """`canonical` forms of all; a choice among `turns` of them for the precious."""
        turns = self.turns
        splats, flat = self.splats, self.splats.model == "2dgs"
        worth = self.importance.worth["rotation"]
        sample = worth[:: max(1, len(worth) // ERROR_SAMPLE)]
        precious = np.quantile(sample, 1 - PRECIOUS_SHARE)

        def one(rows: slice) -> None:
            scales, quats = canonical(splats.scales[rows], splats.quats[rows], flat)
            if turns > 1:
                chosen = np.flatnonzero(worth[rows] > precious)
                source = chosen + rows.start
                scales[chosen], quats[chosen] = canonical(
                    splats.scales[source], splats.quats[source], flat, turns
                )
            all_scales[rows], all_quats[rows] = scales, quats

        in_threads(one, chunks(len(splats), QUANTISE_ROWS))

    @cached_property
    def finest(self) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
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
            "scale": _squared_error(self.scale_book, finite)
            * axis_shares(splats.means[rows], finite),
            "rotation": np.full((len(rows), 3), (2 / QUAT_SCALE) ** 2 / 12),
            "colour": _squared_error(self.colour_book, splats.sh0[rows]),
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

    def _along_curve(self) -> NDArray[np.intp]:
        """Class after class, each along the curve: neighbours in space and of one step."""
        n, of = len(self.splats), self.classes.of
        if self.device != "cpu":
            steps = np.empty((n, 3), np.uint16)

            def place(rows: slice) -> None:
                steps[rows] = quantize_positions(self.splats.means[rows], self.grid).steps

            in_threads(place, chunks(n, QUANTISE_ROWS))
            return hilbert_order_on_device(steps, of, self.device)
        keys = np.empty(n, np.uint64)

        def one(rows: slice) -> None:
            keys[rows] = hilbert_keys(quantize_positions(self.splats.means[rows], self.grid).steps)

        in_threads(one, chunks(n, QUANTISE_ROWS))
        return np.lexsort((keys, of))

    def textures(self, price: float) -> dict[str, Texels]:
        """[N, 3 or 4] bytes of each texture at this price."""
        splats, of = self.splats, self.classes.of
        axes, rotations = self.rotations
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

        def one(rows: slice) -> None:
            group = of[rows]
            positions = quantize_positions(splats.means[rows], self.grid, grid[group])
            low[rows], high[rows] = positions.low, positions.high
            quats[rows] = quantize_quats(rotations[rows], turn[group])
            colour[rows, 3] = quantize_opacities(splats.opacities[rows], alpha[group])

        in_threads(one, chunks(n, QUANTISE_ROWS))
        scale_book, colour_book = self.books

        def of_books(part: tuple[int, slice]) -> None:
            number, rows = part
            members = rows.start + np.flatnonzero(of[rows] == number)
            whole = len(members) == rows.stop - rows.start
            chosen = rows if whole else members  # a slice is not copied
            step = {name: float(each[number]) for name, each in steps.items()}
            scales[chosen] = scale_book.encode_coarse(axes[chosen], step["scale"])
            colour[chosen, :3] = colour_book.encode_coarse(splats.sh0[chosen], step["colour"])

        parts = chunks(n, BOOK_ROWS)
        in_threads(of_books, [(k, rows) for rows in parts for k in range(self.classes.count)])
        return {
            "means_l.webp": low,
            "means_u.webp": high,
            "scales.webp": scales,
            "quats.webp": quats,
            "sh0.webp": colour,
        }

    def truncated(self) -> dict[str, Texels]:
        """The same textures with every number cut off where `textures` rounds it, rotations under
        the names they came with: what other tools store."""
        splats, n = self.splats, len(self.splats)
        steps, quats = np.empty((n, 3), np.uint16), np.empty((n, 4), np.uint8)
        scales, colour = np.empty((n, 3), np.uint8), np.empty((n, 4), np.uint8)

        def one(rows: slice) -> None:
            points = (layout.log_position(splats.means[rows]) - self.grid.mins) / self.grid.unit
            steps[rows] = points.clip(0, layout.POSITION_STEPS)  # conversion cuts off
            quats[rows, :3], _, quats[rows, 3] = smallest_three(splats.quats[rows])
            scales[rows] = self.scale_book.encode(splats.scales[rows])
            colour[rows, :3] = self.colour_book.encode(splats.sh0[rows])
            colour[rows, 3] = alphas(splats.opacities[rows]) * 255

        in_threads(one, chunks(n, QUANTISE_ROWS))
        return {
            "means_l.webp": (steps & 255).astype(np.uint8),
            "means_u.webp": (steps >> 8).astype(np.uint8),
            "scales.webp": scales,
            "quats.webp": quats,
            "sh0.webp": colour,
        }

    def decoded(self, texels: Mapping[str, Texels]) -> Splats:
        """The scene as a reader would find it in these textures, in the order of the input; with
        its own harmonics."""
        steps = texels["means_u.webp"].astype(np.uint16) << 8 | texels["means_l.webp"]
        span = self.grid.maxs - self.grid.mins
        means = layout.linear_position(self.grid.mins + span * (steps / layout.POSITION_STEPS))
        colour = texels["sh0.webp"]
        return replace(
            self.splats,
            means=means.astype(np.float32),
            scales=self.scale_book.decode(texels["scales.webp"]),
            quats=layout.quats_from_texels(texels["quats.webp"]).astype(np.float32),
            opacities=layout.alpha_to_logit(colour[:, 3]).astype(np.float32),
            sh0=self.colour_book.decode(colour[:, :3]),
        )


def _squared_error(book: Codebook, values: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray((book.decode(book.encode(values)) - values.astype(np.float64)) ** 2)
