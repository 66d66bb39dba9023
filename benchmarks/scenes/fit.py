"""Fit a Gaussian scene with harmonics of degree 3 to photographs of a procedural scene.

    python -m benchmarks.scenes.fit still_life still_life.ply --seed 0

Makes honest input for compressors: float32 values that were never quantised. Needs a CUDA device,
torch and cupy. Photographs, first points and order of views follow from the seed; the fit's
gradients are summed by atomic additions, so two runs agree closely but not in the last bits.
Losses and rates: Kerbl et al., "3D Gaussian Splatting", 2023.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.scenes import gaussians
from benchmarks.scenes.garden import garden
from benchmarks.scenes.gaussians import Parameters
from benchmarks.scenes.stage import Scene, Stage, viewpoints
from benchmarks.scenes.still_life import still_life
from benchmarks.scenes.zbuffer import View
from models.splat_to_sog.metrics.rasterise import Camera
from models.splat_to_sog.splats import SH_C0, Splats

SCENES: dict[str, Callable[[int], Scene]] = {"still_life": still_life, "garden": garden}

SIZE_PX = 800
HELD_OUT = 8
DOME_SHARE = 0.05  # of the first Gaussians, where the scene has a sky
RATES = {
    "means": 1.6e-4,  # times the scene's size; falls to a hundredth by the end
    "scales": 5e-3,
    "quats": 1e-3,
    "opacities": 2.5e-2,
    "sh0": 2.5e-3,
    "shN": 2.5e-3 / 20,
}
SIMILARITY_WEIGHT = 0.2  # of 1 - SSIM beside the mean absolute error
OPACITY_WEIGHT = 0.01  # pull towards transparent and small: what is not needed fades
SCALE_WEIGHT = 0.01
MOVE_EVERY = 100  # steps between relocations of faded Gaussians
MOVES = (0.06, 0.85)  # share of the steps between which they happen
DEGREES = (0.08, 0.16, 0.24)  # share of the steps after which degree 1, 2, 3 joins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scene", choices=sorted(SCENES))
    parser.add_argument("ply", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=280_000, help="Gaussians during the fit")
    parser.add_argument("--views", type=int, default=200, help="photographs to fit to")
    parser.add_argument("--steps", type=int, default=14_000)
    parser.add_argument("--pictures", type=Path, help="folder for held-out views, truth beside fit")
    options = parser.parse_args()
    from benchmarks.scenes.blend_gradient import Blend  # needs cupy

    started = time.perf_counter()
    scene = SCENES[options.scene](options.seed)
    stage = Stage(scene, "cuda")
    views = viewpoints(scene, options.views, SIZE_PX, 0.0, "cuda")
    # 1. photographs, stored as a camera would: 8 bits a channel
    photographs = [(stage.photograph(view) * 255).round().byte() for view in views]
    torch.cuda.synchronize()
    photographed = time.perf_counter()
    # 2. points on the surfaces, 3. descent
    first = first_points(stage, options.count, options.seed)
    size = scene.distances[1]
    fit(first, views, photographs, options.steps, size, options.seed, Blend.apply)
    torch.cuda.synchronize()
    fitted = time.perf_counter()
    # 4. the file, and how well it shows what it never saw
    splats = gaussians.export(first)
    write_ply(options.ply, splats)
    held_out = viewpoints(scene, HELD_OUT, SIZE_PX, options.views + 0.5, "cuda")
    report = {
        "scene": options.scene,
        "splats": len(splats),
        "steps": options.steps,
        "seconds_photographs": round(photographed - started, 1),
        "seconds_fit": round(fitted - photographed, 1),
        "held_out_psnr_db": judge(stage, splats, held_out, options.pictures),
        **statistics(splats),
    }
    print(json.dumps(report))


def first_points(stage: Stage, count: int, seed: int) -> Parameters:
    """Gaussians scattered over the surfaces and, where there is one, the sky."""
    generator = torch.Generator().manual_seed(seed)
    dome = stage.scene.dome
    far = int(count * DOME_SHARE) if dome is not None else 0
    points, colours = stage.scatter(count - far, generator)
    if dome is not None:
        directions = torch.randn(far, 3, generator=generator).to(stage.device)
        directions = torch.nn.functional.normalize(directions, dim=1)
        sharp = torch.zeros(far, device=stage.device)
        points = torch.cat([points, directions * dome])
        colours = torch.cat([colours, stage.sky_colours(directions, sharp)])
    return gaussians.first_guess(points, colours)


def fit(
    parameters: Parameters,
    views: list[View],
    photographs: list[Tensor],  # each [H, W, 3] uint8
    steps: int,
    size: float,  # scene units: what the step length of the means is relative to
    seed: int,
    blend: Callable[..., Tensor],  # as `blend_gradient.Blend.apply`
) -> None:
    """Gradient descent, one photograph a step; `parameters` are changed in place."""
    generator = torch.Generator().manual_seed(seed)
    groups = [{"params": [parameters[name]], "lr": rate} for name, rate in RATES.items()]
    optimiser = torch.optim.Adam(groups, eps=1e-15, fused=True)
    queue: list[int] = []
    for step in range(steps):
        share = step / steps
        optimiser.param_groups[0]["lr"] = RATES["means"] * size * 0.01**share
        if not queue:
            queue = torch.randperm(len(views), generator=generator).tolist()
        index = queue.pop()
        view, truth = views[index], photographs[index].float() / 255
        degree = sum(share >= mark for mark in DEGREES)
        flat = gaussians.project(parameters, view, degree)
        picture = blend(
            flat.means2d,
            flat.conics,
            flat.colours,
            flat.opacities,
            flat.radii,
            flat.depths,
            view.width,
            view.height,
        )
        loss = (1 - SIMILARITY_WEIGHT) * (picture - truth).abs().mean()
        loss = loss + SIMILARITY_WEIGHT * (1 - similarity(picture, truth))
        loss = loss + OPACITY_WEIGHT * flat.opacities.mean()
        loss = loss + SCALE_WEIGHT * parameters["scales"].exp().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % MOVE_EVERY == 0 and MOVES[0] < share < MOVES[1]:
            gaussians.relocate(parameters, optimiser, generator)


def similarity(a: Tensor, b: Tensor) -> Tensor:  # [H, W, 3] 0..1 each -> scalar
    """Mean SSIM over an 11 x 11 Gaussian window (Wang et al., 2004)."""
    taps = torch.arange(11, device=a.device, dtype=a.dtype) - 5
    window = torch.exp(-(taps**2) / (2 * 1.5**2))
    window = window / window.sum()
    stacked = torch.cat([a, b, a * a, b * b, a * b], dim=2).permute(2, 0, 1)[:, None]
    blurred = torch.nn.functional.conv2d(stacked, window.view(1, 1, 11, 1), padding=(5, 0))
    blurred = torch.nn.functional.conv2d(blurred, window.view(1, 1, 1, 11), padding=(0, 5))
    ma, mb, aa, bb, ab = blurred.squeeze(1).split(3)
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * ma * mb + c1) * (2 * (ab - ma * mb) + c2)
    return (top / ((ma**2 + mb**2 + c1) * (aa - ma**2 + bb - mb**2 + c2))).mean()


def judge(stage: Stage, splats: Splats, views: list[View], pictures: Path | None) -> list[float]:
    """PSNR of each view, drawn by the product's rasteriser from what the file holds."""
    from PIL import Image

    from models.splat_to_sog.metrics.rasterise_cuda import DeviceScene

    drawn = DeviceScene(splats)
    values = []
    for number, view in enumerate(views):
        truth = stage.photograph(view).cpu().numpy()
        picture = np.clip(drawn.render(camera(view)), 0, 1)
        values.append(round(-10 * math.log10(float(np.mean((truth - picture) ** 2))), 2))
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            pair = np.concatenate([truth, picture], axis=1)
            image = Image.fromarray((pair * 255 + 0.5).astype(np.uint8))
            image.save(pictures / f"{number}.png")
    return values


def camera(view: View) -> Camera:
    """The same camera as the product describes it."""
    return Camera(
        view.position.cpu().numpy().astype(np.float32),
        view.rotation.cpu().numpy().astype(np.float32),
        view.focal_px,
        view.width,
        view.height,
        view.near,
    )


def statistics(splats: Splats) -> dict[str, object]:
    """Spread of the values: what tells a fitted scene from an invented one."""
    bands = np.split(splats.shN, [3, 8], axis=2)
    marks = [1, 10, 50, 90, 99]
    spread = splats.scales.max(axis=1) - splats.scales.min(axis=1)
    opacity = 1 / (1 + np.exp(-splats.opacities.astype(np.float64)))

    def percentiles(values: np.ndarray) -> list[float]:
        return [round(float(value), 4) for value in np.percentile(values, marks)]

    return {
        "finite": all(
            bool(np.isfinite(v).all())
            for v in vars(splats).values()
            if v is not None and isinstance(v, np.ndarray)
        ),
        "sh_rms": [round(float(np.sqrt((splats.sh0**2).mean())), 4)]
        + [round(float(np.sqrt((band**2).mean())), 4) for band in bands],
        "display_rms": round(float(SH_C0 * np.std(splats.sh0)), 4),
        "percentiles": marks,
        "ln_scale": percentiles(splats.scales),
        "ln_anisotropy": percentiles(spread),
        "opacity": percentiles(opacity),
    }


def write_ply(path: Path, splats: Splats) -> None:
    """The layout every 3DGS tool reads: 59 floats a splat, f_rest channel by channel."""
    rest = splats.shN.reshape(len(splats), -1)
    names = ["x", "y", "z", *(f"f_dc_{k}" for k in range(3))]
    names += [f"f_rest_{k}" for k in range(rest.shape[1])]
    names += ["opacity", *(f"scale_{k}" for k in range(3)), *(f"rot_{k}" for k in range(4))]
    columns = [
        splats.means,
        splats.sh0,
        rest,
        splats.opacities[:, None],
        splats.scales,
        splats.quats,
    ]
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            f"element vertex {len(splats)}",
            *(f"property float {name}" for name in names),
            "end_header\n",
        ]
    )
    table = np.concatenate(columns, axis=1).astype("<f4")
    path.write_bytes(header.encode("ascii") + table.tobytes())


if __name__ == "__main__":
    main()
