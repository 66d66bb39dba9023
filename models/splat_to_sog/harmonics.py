"""Codes spherical harmonics: a palette of whole vectors, and a label of it for every splat.

Does not cluster (`palette`) or choose what error is worth (`importance`). Harmonics hold most of
what a scene stores and most of what coding loses: no palette comes near the finest steps of the
other attributes, and a bit that those save is better spent here. So in scenes that have harmonics
they set the price (`harmonics_price`), for all attributes alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog import layout
from models.splat_to_sog.codebook import Codebook, build_codebook
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.palette import Palettes
from models.splat_to_sog.palette.rounding import step_octaves
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.stages import OnStage
from models.splat_to_sog.threads import in_threads

TRUST = 0.8
"""Exponent of what is made of worth: it is an estimate, and those said to be worth most are mostly
worth less, those said to be worth least more. Measured against 1: 1 to 2 % fewer bytes at the same
PSNR where every splat may have its own entry; of many splats that share entries worth is taken as
it is."""

ROWS = 1 << 15  # a thread's share at a time


@dataclass(frozen=True)
class Harmonics:
    """The palette as coded: labels [N]; indices [P, K, 3] into book."""

    labels: NDArray[np.intp]
    indices: NDArray[np.uint8]
    book: Codebook
    degree: int
    own: bool = False
    octave: NDArray[np.int64] | None = None  # [N] own: of the step of each splat's entry

    def in_runs(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """This order [N], or one in which splats of one step follow each other.

        Entries that follow their splats mix steps of all sizes; in runs of one step they take 10 %
        less, as much as a third of the harmonics in all, for 2 bits a splat more of positions.
        """
        return (
            order if self.octave is None else order[np.argsort(self.octave[order], kind="stable")]
        )

    def along(self, order: NDArray[np.intp]) -> Harmonics:
        """The same for splats that are stored in this order [N].

        Where every splat has an entry of its own, entries follow their splats: a label is the one
        before plus one, and costs nothing.
        """
        if not self.own:
            return self
        first = np.full(len(self.indices), len(order))
        np.minimum.at(first, self.labels[order], np.arange(len(order)))
        follow = np.argsort(first, kind="stable")
        renumbered = np.empty(len(follow), np.intp)
        renumbered[follow] = np.arange(len(follow))
        return replace(self, labels=renumbered[self.labels], indices=self.indices[follow])

    def palette_texture(self) -> NDArray[np.uint8]:
        """Entries as texels [H, W, 3]."""
        width, height = layout.palette_size_px(len(self.indices), self.degree)
        return layout.to_texture(self.indices.reshape(-1, 3), width, height)

    def decoded(self) -> NDArray[np.float32]:  # [N, 3, K]
        """Every splat's harmonics as they are read back."""
        return self.book.decode(self.indices.transpose(0, 2, 1))[self.labels]

    def label_bytes(self) -> NDArray[np.uint8]:  # [N, 3]
        labels = self.labels
        return np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], axis=1).astype(np.uint8)


def harmonics_price(
    splats: Splats,
    worth: NDArray[np.float32],  # [N] squared error of a picture per squared unit of a coefficient
    share: float,
) -> float:
    """Squared error that a bit must save: this share of that of a mean splat without harmonics."""
    return share * _error_without(splats, worth) / len(splats)


def _error_without(splats: Splats, worth: NDArray[np.float32]) -> float:
    """Squared error of a picture without harmonics."""
    rows = splats.shN.reshape(len(splats), -1)

    def error(part: slice) -> float:
        energy = np.einsum("nd,nd->n", rows[part], rows[part], dtype=np.float64)
        return float(energy @ worth[part])

    return sum(in_threads(error, chunks(len(splats), ROWS)))


def trusted(splats: Splats, worth: NDArray[np.float32]) -> NDArray[np.float32]:  # [N] -> [N]
    """What is made of worth: to the power of TRUST, at the same error without harmonics."""
    found = worth**TRUST
    error, before = _error_without(splats, found), _error_without(splats, worth)
    return found * np.float32(before / error) if error > 0 and before > 0 else worth


def palettes_of(
    splats: Splats, worth: NDArray[np.float32], options: SogOptions, device: str
) -> Palettes:
    """Of the scene's harmonics, at any price."""
    rows = splats.shN.reshape(len(splats), splats.shN.shape[1] * splats.shN.shape[2])
    few = len(splats) <= layout.MAX_PALETTE  # each may have an entry of its own
    weights = trusted(splats, worth) if few else worth
    return Palettes(rows, options.palette_size, options.seed, weights=weights, device=device)


def code_harmonics(
    splats: Splats,
    worth: NDArray[np.float32],  # [N] squared error of a picture per squared unit of a coefficient
    price: float,  # squared error per bit
    options: SogOptions,
    device: str,
    on_stage: OnStage,
    palettes: Palettes | None = None,  # of these splats, where a price was tried before
) -> Harmonics:
    """Palette and labels, in the order of the splats.

    The palette's entries are in storing order and on few values: their codebook is exact.
    """
    palettes = palettes or palettes_of(splats, worth, options, device)
    palette = palettes.at(price, lambda fraction: on_stage("palette", fraction))
    book = build_codebook(palette.entries)
    labels, used = _only_used(palette.labels)
    indices = book.encode(palette.entries[used])  # [P, 3K]
    pixels = indices.reshape(len(used), 3, -1).transpose(0, 2, 1)  # entry, coefficient, channel
    octave = _octaves(splats, worth, price) if palette.own else None
    return Harmonics(labels, np.ascontiguousarray(pixels), book, splats.degree, palette.own, octave)


def _octaves(splats: Splats, worth: NDArray[np.float32], price: float) -> NDArray[np.int64] | None:
    """Of the step of each splat's own entry; None where no step is better than another."""
    peak = max(float(np.abs(splats.shN[part]).max()) for part in chunks(len(splats)))
    weights = trusted(splats, worth).astype(np.float64)
    return step_octaves(peak, weights, price)[1] if peak > 0 and weights.any() else None


def _only_used(labels: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(labels renumbered, the entries that are used): in their order."""
    used = np.flatnonzero(np.bincount(labels))
    renumbered = np.zeros(labels.max() + 1, np.intp)
    renumbered[used] = np.arange(len(used))
    return renumbered[labels], used
