"""Measures what the order of splats and the effort of libwebp do to a scene's textures.

Does not write files or measure quality: the same bytes are coded in each order, so that only
sizes differ. Harmonics are left out: their labels depend on the order.

    python benchmarks/order.py scene.ply ... [--spans 0 256 1024] [--efforts] [--device cuda:0]
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.splat_to_sog import layout
from models.splat_to_sog.codebook import build_codebook
from models.splat_to_sog.order import arrange, hilbert_order
from models.splat_to_sog.quantize import (
    quantize_opacities,
    quantize_positions,
    quantize_quats,
)
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.webp import FAST, THOROUGH, Effort, encode_webp

Bytes = NDArray[np.uint8]
PAIRS: Effort = ((20, 0), (20, 1), (20, 2), (20, 3), (50, 3), (20, 4), (75, 4), (90, 4), (75, 6))
SETS: dict[str, Effort] = {
    "(20, 1)": ((20, 1),),
    "FAST": FAST,
    "(20, 3) (75, 4)": ((20, 3), (75, 4)),
    "THOROUGH": THOROUGH,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--spans", nargs="+", type=int, default=[0, 256, 1024])
    parser.add_argument("--efforts", action="store_true", help="also every (quality, method)")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    for path in arguments.files:
        splats = read(path, path.name)
        steps = quantize_positions(splats.means).steps
        textures = coded_bytes(splats, steps)
        print(f"\n{path.name}: {len(splats):,} splats")
        orders = compare_orders(steps, textures, arguments.spans, arguments.device)
        if arguments.efforts:
            compare_efforts(textures, orders)


def coded_bytes(splats: Splats, steps: NDArray[np.uint16]) -> dict[str, Bytes]:
    """What SOG stores of each splat but its harmonics."""
    colour = build_codebook(splats.sh0).encode(splats.sh0)
    opacity = quantize_opacities(splats.opacities)
    return {
        "means_l": (steps & 255).astype(np.uint8),
        "means_u": (steps >> 8).astype(np.uint8),
        "scales": build_codebook(splats.scales).encode(splats.scales),
        "quats": quantize_quats(splats.quats),
        "sh0": np.concatenate([colour, opacity[:, None]], axis=1),
    }


def compare_orders(
    steps: NDArray[np.uint16], textures: dict[str, Bytes], spans: list[int], device: str
) -> dict[int, NDArray[np.intp]]:
    """A row a span; 0 is the Hilbert curve."""
    print("| blocks | order CPU s | textures CPU s |", " | ".join(textures), "| all | less |")
    print("|---" * (len(textures) + 5) + "|")
    orders, first = {}, 0
    for span in spans:
        start = time.process_time()
        orders[span] = arrange(textures, hilbert_order(steps), span, device).order
        ordered = time.process_time() - start
        sizes = [len(encode_webp(texels)) for texels in as_textures(textures, orders[span], span)]
        coded = time.process_time() - start - ordered
        first = first or sum(sizes)
        cells = [f"{span or 'curve'}", f"{ordered:.2f}", f"{coded:.2f}"]
        cells += [f"{size:,}" for size in (*sizes, sum(sizes))]
        print("|", " | ".join(cells), f"| {100 * (1 - sum(sizes) / first):.2f} % |", flush=True)
    return orders


def compare_efforts(textures: dict[str, Bytes], orders: dict[int, NDArray[np.intp]]) -> None:
    """A row a span and set of efforts: bytes of all textures, and CPU seconds."""
    print("\n| blocks |", " | ".join(map(str, [*PAIRS, *SETS])), "|")
    print("|---" * (1 + len(PAIRS) + len(SETS)) + "|")
    for span, order in orders.items():
        every = {pair for pairs in (PAIRS, *SETS.values()) for pair in pairs}
        found = {pair: [] for pair in every}
        for texels in as_textures(textures, order, span):
            for pair in every:
                found[pair].append(one_webp(texels, *pair))
        cells = []
        for pairs in (*((pair,) for pair in PAIRS), *SETS.values()):
            size = sum(min(sizes)[0] for sizes in zip(*(found[p] for p in pairs), strict=True))
            seconds = sum(seconds for pair in pairs for _, seconds in found[pair])
            cells.append(f"{size:,} ({seconds:.2f})")
        print(f"| {span or 'curve'} |", " | ".join(cells), "|", flush=True)


def as_textures(textures: dict[str, Bytes], order: NDArray[np.intp], span: int) -> list[Bytes]:
    width, height = layout.texture_size(len(order), span)
    return [layout.to_texture(values[order], width, height) for values in textures.values()]


def one_webp(texels: Bytes, quality: int, method: int) -> tuple[int, float]:
    """(bytes, CPU seconds)"""
    start = time.process_time()
    out = io.BytesIO()
    image = Image.fromarray(texels)
    image.save(out, "WEBP", lossless=True, quality=quality, method=method, exact=True)
    return out.tell(), time.process_time() - start


if __name__ == "__main__":
    main()
