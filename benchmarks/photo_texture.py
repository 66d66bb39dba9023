"""Measure textures from photos: does a mesh find its place among its photos, and do they help?

    python benchmarks/photo_texture.py fit [--data ../shared] [--photos 8] [--bend 0.02] [--wrong]
    python benchmarks/photo_texture.py texture [--data ../shared] [--photos 8] [--exposure 0.1]

Knows nothing of networks: meshes of the evaluation set are made as a network would decode them,
photographed from known places, and the cameras are told with errors of a degree and a percent.
`fit` prints what the gate sees; `--wrong` gives each object's photos the next object's mesh.
`texture` compares colours with the true object, printed with a fine pattern that the mesh shows
blurred, from places that no photo was taken from.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.photo_scene import Paint, decoded, load, pattern, render, shoot  # noqa: E402
from models.image_to_mesh.finishing.bake import look_up  # noqa: E402
from models.image_to_mesh.finishing.coloured import ColouredMesh  # noqa: E402
from models.image_to_mesh.finishing.finish import FinishOptions, finish  # noqa: E402
from models.image_to_mesh.finishing.mesh import TexturedMesh  # noqa: E402
from models.image_to_mesh.finishing.rasterize import rasterize  # noqa: E402
from models.image_to_mesh.reconviagen.photo_texture import fits, photo_texture  # noqa: E402
from models.image_to_mesh.reconviagen.registration.placement import degrees_between  # noqa: E402
from models.image_to_mesh.reconviagen.registration.register import register  # noqa: E402

Array = npt.NDArray[Any]
HELD_OUT = 6


def measure_fit(paths: list[Path], photos: int, bend: float, wrong: bool, exposure: float) -> None:
    print(f"{'object':28s} {'s':>5s} {'turn':>6s}  outlines mean, least   colours mean, most  fit")
    rows = []
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        scene = shoot(load(path), photos, rng, shaded=True, exposure=exposure)
        other = paths[(number + 1) % len(paths)] if wrong else path
        mesh = decoded(load(other), rng, bend=bend)
        begin = time.perf_counter()
        found = register(mesh, scene.photos)
        seconds = time.perf_counter() - begin
        turn = float(degrees_between(found.placement.rotation, scene.placement.rotation))
        outlines = [fit.iou for fit in found.fits]
        colours = [fit.colour_error for fit in found.fits]
        fitting = sum(map(fits, found.fits))
        rows.append((seconds, np.mean(outlines), min(outlines), np.mean(colours), fitting))
        print(
            f"{path.stem:28s} {seconds:5.2f} {turn:6.1f}  {np.mean(outlines):13.3f} "
            f"{min(outlines):7.3f}  {np.mean(colours):17.3f} {max(colours):6.3f}  {fitting}",
            flush=True,
        )
    columns = np.array(rows)
    print(
        f"median {np.median(columns[:, 0]):.2f} s; outlines, means: {columns[:, 1].min():.3f} to "
        f"{columns[:, 1].max():.3f}, middle {np.median(columns[:, 1]):.3f}; objects with half of "
        f"their photos fitting: {(columns[:, 4] >= photos / 2).sum()} of {len(rows)}"
    )


def measure_texture(paths: list[Path], photos: int, bend: float, exposure: float) -> None:
    print(f"{'object':28s} dB, network   photos   share    s")
    rows = []
    options = FinishOptions(faces=20_000, texture_size=1024, normal_map=False)
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        truth = load(path)
        paint = pattern(rng)
        scene = shoot(truth, photos, rng, exposure=exposure, paint=paint)
        held = shoot(truth, HELD_OUT, np.random.default_rng(1000 + number), paint=paint)
        mesh = decoded(truth, rng, bend=bend, paint=paint)
        begin = time.perf_counter()
        painted = photo_texture(mesh, scene.photos, [str(k) for k in range(photos)])
        seconds = time.perf_counter() - begin
        plain = finish(mesh, options)
        better = finish(painted.mesh, options, views=painted.views)
        before, after = (psnr(one.mesh, truth, paint, held.truth) for one in (plain, better))
        share = float(better.facts["texture_from_views"])
        rows.append((before, after))
        print(
            f"{path.stem:28s} {before:11.2f} {after:8.2f} {share:7.2f} {seconds:4.1f}", flush=True
        )
    before, after = np.mean(rows, axis=0)
    print(f"mean {before:.2f} dB from the network's colours, {after:.2f} dB with the photos'")


def psnr(mesh: TexturedMesh, truth: ColouredMesh, paint: Paint, cameras: list[Array]) -> float:
    """Of the colours where both are seen, over all held-out views."""
    side = 384
    intrinsics = np.array([[1.1 * side, 0, side / 2], [0, 1.1 * side, side / 2], [0, 0, 1]])
    total, count = 0.0, 0
    for camera in cameras:
        shown = render(truth, camera, intrinsics, side, side, paint=paint)
        drawn, covered = draw_textured(mesh, camera, intrinsics, side)
        both = covered & (shown[..., 3] > 0.99)
        total += float(((drawn - shown[..., :3])[both] ** 2).sum())
        count += 3 * int(both.sum())
    return float(-10 * np.log10(max(total, 1e-9) / max(count, 1)))


def draw_textured(
    mesh: TexturedMesh, camera: Array, intrinsics: Array, side: int
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The picture (S, S, 3) and where it shows the mesh."""
    at = mesh.positions[mesh.source] @ camera[:, :3].T + camera[:, 3]
    pixels = at[:, :2] / at[:, 2:] * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2] - 0.5
    raster = rasterize(pixels, 1 / at[:, 2], mesh.faces, side, side)
    places = raster.interpolate(mesh.uv, mesh.faces) * len(mesh.texture) - 0.5
    picture = np.zeros((side, side, 3), np.float32)
    texture = mesh.texture.astype(np.float32) / 255
    picture[raster.covered] = look_up(texture, places.astype(np.float64))
    return picture, raster.covered


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("fit", "texture"))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--bend", type=float, default=0.01)
    parser.add_argument("--exposure", type=float, default=0.0)
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="every so many of the objects")
    given = parser.parse_args()
    paths = sorted((given.data / "data/meshes/meshes").glob("*.npz"))[:: given.every]
    if given.what == "fit":
        measure_fit(paths, given.photos, given.bend, given.wrong, given.exposure)
    else:
        measure_texture(paths, given.photos, given.bend, given.exposure)


if __name__ == "__main__":
    main()
