"""Decodes SOG version 2: codebooks for scales, colours and harmonics.

Does not know where the files come from. Format: developer.playcanvas.com, "SOG format", where it
agrees with the code that reads it.
"""

from __future__ import annotations

import numpy as np

from models.splat_to_sog import layout
from models.splat_to_sog.readers.blocks import MAX_THREADS
from models.splat_to_sog.readers.container import Container
from models.splat_to_sog.readers.sog_meta import Description
from models.splat_to_sog.readers.sog_textures import (
    ROWS,
    check_count,
    palette_bytes,
    palette_image,
    read_labels,
    read_means,
    read_quats,
    texels,
)
from models.splat_to_sog.scratch import Scratch, chunks
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.threads import in_threads


def measure_v2(container: Container, meta: Description) -> tuple[int, int]:
    """Splats and spherical-harmonics degree; nothing is decoded."""
    count = meta.integer("count", 1, layout.MAX_SPLATS)
    check_count(container, meta, count)
    return count, meta.integer("shN.bands", 1, 3) if meta.has("shN") else 0


def read_v2(container: Container, meta: Description, scratch: Scratch | None = None) -> Splats:
    count, degree = measure_v2(container, meta)
    splats = Splats.empty(count, degree, scratch=scratch, model=meta.model())
    read_means(container, meta, count, splats.means)
    read_quats(container, meta.files("quats", 1)[0], count, splats.quats)

    scale_book, sh0_book = meta.codebook("scales"), meta.codebook("sh0")
    scales = texels(container, meta.files("scales", 1)[0], count)
    colour = texels(container, meta.files("sh0", 1)[0], count)

    def look_up(rows: slice) -> None:
        splats.scales[rows] = scale_book[scales[rows, :3]]
        splats.sh0[rows] = sh0_book[colour[rows, :3]]
        splats.opacities[rows] = layout.alpha_to_logit(colour[rows, 3])

    in_threads(look_up, chunks(count, ROWS), MAX_THREADS)
    if degree:
        entries = meta.integer("shN.count", 1, layout.MAX_PALETTE)
        book = meta.codebook("shN")
        palette_file, labels_file = meta.files("shN", 2)
        pixels = palette_image(container, palette_file)
        palette = np.zeros((entries + 1, 3, splats.shN.shape[2]), np.float32)
        palette[:entries] = book[palette_bytes(container, palette_file, pixels, entries, degree)]
        read_labels(palette, texels(container, labels_file, count)[:, :2], splats.shN)
    return splats
