"""Decodes SOG version 1 of 2025: every channel a byte between its own bounds.

Does not know where the files come from. Two drafts came before it and are read as well: opacities
in a texture of their own, labels in two textures, and rotations as three bytes with the fourth
component left out. Format: the code of playcanvas/sogs and of the engine that read each of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog import layout
from models.splat_to_sog.readers.blocks import MAX_THREADS
from models.splat_to_sog.readers.container import Container, refuse
from models.splat_to_sog.readers.sog_meta import Description, short
from models.splat_to_sog.readers.sog_textures import (
    ROWS,
    Texels,
    check_count,
    image_size,
    palette_bytes,
    palette_image,
    read_labels,
    read_means,
    read_quats,
    texels,
)
from models.splat_to_sog.scratch import Scratch, chunks
from models.splat_to_sog.splats import COEFFICIENTS, Float32, Splats
from models.splat_to_sog.threads import in_threads


def measure_v1(container: Container, meta: Description) -> tuple[int, int]:
    """Splats and spherical-harmonics degree, which only the width of the palette tells."""
    if not meta.has("shN"):
        return _count(container, meta), 0
    file = _harmonics_files(meta)[0]
    return _count(container, meta), _degree(container, file, image_size(container, file)[0])


def read_v1(container: Container, meta: Description, scratch: Scratch | None = None) -> Splats:
    count = _count(container, meta)
    palette, labels = _harmonics(container, meta, count)
    degree = COEFFICIENTS.index(palette.shape[2])
    splats = Splats.empty(count, degree, scratch=scratch)
    read_means(container, meta, count, splats.means)
    _read_quats(container, meta, count, splats.quats)

    scales = texels(container, meta.files("scales", 1)[0], count)
    _lerp(meta, "scales", scales[:, :3], splats.scales)
    colour = texels(container, meta.files("sh0", 1)[0], count)
    if meta.has("opacities"):
        _lerp(meta, "sh0", colour[:, :3], splats.sh0)
        opacity = texels(container, meta.files("opacities", 1)[0], count)
        low, high = meta.number("opacities.mins"), meta.number("opacities.maxs")
        splats.opacities[:] = low + (high - low) * (opacity[:, 0] / 255)
    else:
        _lerp(meta, "sh0", colour, splats.sh0, splats.opacities[:, None])
    if degree:
        read_labels(palette, labels, splats.shN)
    return splats


def _count(container: Container, meta: Description) -> int:
    shape = meta.get("means.shape")
    count = shape[0] if isinstance(shape, list) and shape else None
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= layout.MAX_SPLATS:
        raise meta.bad(
            "means.shape", f"{short(shape)}; [splats, 3] with 1 to {layout.MAX_SPLATS} is needed"
        )
    check_count(container, meta, count)
    return count


def _lerp(meta: Description, section: str, texture: Texels, *targets: Float32) -> None:
    """Fill the targets [count, ...] from the texture's channels, each between its own bounds."""
    channels = texture.shape[1]
    mins, maxs = (meta.floats(section, end, channels) for end in ("mins", "maxs"))

    def decode(rows: slice) -> None:
        values = mins + (maxs - mins) * (texture[rows] / 255)
        first = 0
        for target in targets:
            target[rows] = values[:, first : first + target.shape[1]]
            first += target.shape[1]

    in_threads(decode, chunks(len(texture), ROWS), MAX_THREADS)


def _read_quats(container: Container, meta: Description, count: int, quats: Float32) -> None:
    file = meta.files("quats", 1)[0]
    if not meta.has("quats.mins"):
        read_quats(container, file, count, quats)
        return
    # The first draft: w, x and y; z is never negative.
    _lerp(meta, "quats", texels(container, file, count)[:, :3], quats[:, :3])
    for rows in chunks(count):
        rest = 1 - np.square(quats[rows, :3], dtype=np.float64).sum(axis=1)
        quats[rows, 3] = np.sqrt(np.maximum(0, rest))


def _harmonics(
    container: Container, meta: Description, count: int
) -> tuple[Float32, NDArray[np.uint8]]:
    """The palette [P + 1, 3, K], its last entry zero, and the labels [count, 2] low, high byte."""
    if not meta.has("shN"):
        return np.zeros((1, 3, 0), np.float32), np.zeros((count, 2), np.uint8)
    palette_file, *label_files = _harmonics_files(meta)
    pixels = palette_image(container, palette_file)
    degree = _degree(container, palette_file, pixels.shape[1])
    entries = min(layout.PALETTE_COLUMNS * pixels.shape[0], layout.MAX_PALETTE)
    low, high = meta.number("shN.mins"), meta.number("shN.maxs")
    palette = np.zeros((entries + 1, 3, COEFFICIENTS[degree]), np.float32)
    bytes_ = palette_bytes(container, palette_file, pixels, entries, degree)
    palette[:entries] = low + (high - low) * (bytes_ / 255)
    labels = [texels(container, file, count) for file in label_files]
    if len(labels) == 2:
        return palette, np.stack([labels[0][:, 0], labels[1][:, 0]], axis=1)
    return palette, labels[0][:, :2]


def _harmonics_files(meta: Description) -> list[str]:
    """The palette and its labels; the drafts have a file each for their low and high bytes."""
    names = meta.get("shN.files")
    return meta.files("shN", 3 if isinstance(names, list) and len(names) == 3 else 2)


def _degree(container: Container, file: str, width: int) -> int:
    for degree, k in enumerate(COEFFICIENTS[:4]):
        if k and width == layout.PALETTE_COLUMNS * k:
            return degree
    raise refuse(
        container.name,
        f"texture '{file}' is {width} pixels wide; a palette has 192, 512 or 960",
        code="splat_texture",
    )
