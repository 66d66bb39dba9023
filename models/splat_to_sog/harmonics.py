"""Codes spherical harmonics: a palette of whole vectors, and a label of it for every splat.

Does not cluster (`palette`) or choose what error is worth (`importance`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog import layout
from models.splat_to_sog.codebook import Codebook, build_codebook
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.palette import build_palette
from models.splat_to_sog.splats import Splats

OnStage = Callable[[str, float], None]  # (stage, fraction of that stage); may raise to stop


@dataclass(frozen=True)
class Harmonics:
    """The palette as coded: labels [N]; indices [P, K, 3] into book."""

    labels: NDArray[np.intp]
    indices: NDArray[np.uint8]
    book: Codebook
    degree: int

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


def code_harmonics(
    splats: Splats,
    worth: NDArray[np.float32],  # [N] squared error of a picture per squared unit of a coefficient
    price: float,  # squared error per bit
    options: SogOptions,
    device: str,
    on_stage: OnStage,
) -> Harmonics:
    """Palette and labels, in the order of the splats.

    The palette's entries are in storing order and on few values: their codebook is exact.
    """
    n, _, k = splats.shN.shape
    palette = build_palette(
        splats.shN.reshape(n, 3 * k),
        options.palette_size,
        options.seed,
        lambda fraction: on_stage("palette", fraction),
        weights=worth,
        price=price,
        device=device,
    )
    book = build_codebook(palette.entries)
    labels, used = _only_used(palette.labels)
    indices = book.encode(palette.entries[used])  # [P, 3K]
    pixels = indices.reshape(-1, 3, k).transpose(0, 2, 1)  # entry, coefficient, channel
    return Harmonics(labels, np.ascontiguousarray(pixels), book, splats.degree)


def _only_used(labels: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(labels renumbered, the entries that are used): in their order."""
    used = np.flatnonzero(np.bincount(labels))
    renumbered = np.zeros(labels.max() + 1, np.intp)
    renumbered[used] = np.arange(len(used))
    return renumbered[labels], used
