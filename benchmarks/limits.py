"""Measures what SOG's number formats alone lose: some attributes as stored, all others exact.

Does not write files: the finest steps of the coder, in memory, against the source from the report's
cameras. "cut off" is plain truncation, as other tools store it; "drawn in the source's order" sorts
the stored splats by where they were before: what is left is not the order's fault.

    python benchmarks/limits.py scene.ply ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.splat_to_sog.columns import Columns
from models.splat_to_sog.metrics.cameras import orbit
from models.splat_to_sog.metrics.image import mean_squared_error, psnr_db
from models.splat_to_sog.metrics.project_numba import visible
from models.splat_to_sog.metrics.rasterise import Camera, Float32
from models.splat_to_sog.metrics.rasterise_numba import draw
from models.splat_to_sog.presets import FINEST
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import Splats

VIEWS, SIZE_PX = 8, 512
SHAPE = ("scales", "quats")
REST = (*SHAPE, "sh0", "opacities")
ROWS: tuple[tuple[str, Sequence[str]], ...] = (
    ("positions", ("means",)),
    ("scales, rotations", SHAPE),
    ("colours", ("sh0",)),
    ("opacities", ("opacities",)),
    ("all but positions", REST),
    ("all", ("means", *REST)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args().files:
        splats = read(path, path.name).cut_degree(0)
        print(f"\n{path.name}, PSNR dB\n\n| as stored | rounded | cut off |\n|---|---|---|")
        for name, *figures in losses(splats):
            print(f"| {name} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")


def losses(splats: Splats) -> list[tuple[str, float, float]]:
    """(what is as stored, PSNR rounded, PSNR cut off)."""
    cameras = orbit(splats, VIEWS, SIZE_PX)
    pictures = [picture(splats, camera) for camera in cameras]

    def psnr(scene: Splats, order: Splats | None = None) -> float:
        errors = (
            mean_squared_error(truth, picture(scene, camera, order))
            for camera, truth in zip(cameras, pictures, strict=True)
        )
        return float(np.mean([psnr_db(error) for error in errors]))

    columns = Columns(splats, 1, 6, lambda stage, fraction: None)
    stored = [columns.decoded(texels) for texels in (columns.textures(FINEST), columns.truncated())]
    found = []
    for name, attributes in ROWS:
        scenes = [replace(splats, **{a: getattr(s, a) for a in attributes}) for s in stored]
        found.append((name, psnr(scenes[0]), psnr(scenes[1])))
        if attributes == ("means",):
            ordered = (psnr(scene, splats) for scene in scenes)
            found.append((f"{name}, drawn in the source's order", *ordered))
    return found


def picture(splats: Splats, camera: Camera, order: Splats | None = None) -> Float32:
    """[H, W, 3], clipped; sorted by the depths of `order` where that is given."""
    seen = visible(splats, camera)
    if order is not None:
        depths = (order.means[seen.rows] - camera.position) @ camera.rotation[2]
        depths = np.maximum(depths, np.float32(1e-30))  # bits of positive floats sort as they do
        seen = replace(seen, depths=depths.astype(np.float32).view(np.uint32))
    return np.minimum(draw(seen, camera.width, camera.height), 1)


if __name__ == "__main__":
    main()
