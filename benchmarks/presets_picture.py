"""Draws what each preset loses: a crop of a scene, of its three presets, and ten times the loss.

python benchmarks/presets_picture.py scene.ply --out docs/presets.webp [--view 0]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.splat_to_sog.bundle import bundle
from models.splat_to_sog.encode import encode
from models.splat_to_sog.metrics.cameras import orbit
from models.splat_to_sog.metrics.image import mean_squared_error, psnr_db
from models.splat_to_sog.metrics.renderer import renderer
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.readers import read

PRESETS = ("quality", "small", "tiny")
RENDERED_PX = 768
CROP_PX = 320
GAP_PX = 4
LABEL_PX = 18
AMPLIFIED = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--view", type=int, default=0, help="of the eight of the report")
    arguments = parser.parse_args()

    scene = read(arguments.scene, arguments.scene.name)
    camera = orbit(scene, 8, RENDERED_PX)[arguments.view]
    source = np.minimum(renderer(scene).render(camera), 1)
    panels = [(f"source, {arguments.scene.stat().st_size / 1e6:.1f} MB", source)]
    for preset in PRESETS:
        data = bundle(encode(scene, SogOptions(preset=preset)).files)
        with tempfile.NamedTemporaryFile(suffix=".sog") as file:
            Path(file.name).write_bytes(data)
            decoded = read(Path(file.name), "scene.sog")
        drawn = np.minimum(renderer(decoded).render(camera), 1)
        loss = psnr_db(mean_squared_error(source, drawn))
        panels.append((f"{preset}, {len(data) / 1e6:.2f} MB, {loss:.1f} dB", drawn))
    sheet(panels, source).save(arguments.out, quality=88)


def sheet(panels: list[tuple[str, np.ndarray]], source: np.ndarray) -> Image.Image:
    """Pictures above, their difference from the source below, each under its name."""
    width = len(panels) * (CROP_PX + GAP_PX) - GAP_PX
    height = 2 * CROP_PX + GAP_PX + LABEL_PX
    out = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(out)
    for column, (label, picture) in enumerate(panels):
        left = column * (CROP_PX + GAP_PX)
        draw.text((left + 2, 3), label, fill="black")
        out.paste(image(picture), (left, LABEL_PX))
        difference = np.minimum(AMPLIFIED * np.abs(picture - source), 1)
        if column:
            out.paste(image(difference), (left, LABEL_PX + CROP_PX + GAP_PX))
        else:
            draw.text((left + 2, LABEL_PX + CROP_PX + 9), "below: 10x the difference", fill="black")
    return out


def image(picture: np.ndarray) -> Image.Image:  # [H, W, 3] of 0..1 -> the middle of it
    top, left = ((side - CROP_PX) // 2 for side in picture.shape[:2])
    crop = picture[top : top + CROP_PX, left : left + CROP_PX]
    return Image.fromarray(np.rint(255 * crop).astype(np.uint8))


if __name__ == "__main__":
    main()
