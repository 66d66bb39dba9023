"""What an error of each attribute of each splat costs in a picture: squared error, in closed form.

Does not know quantisers, files or real cameras. A splat draws the blob a T G: opacity a, the light
T that what lies before it lets through, a Gaussian G of which a picture shows the projection. The
squared change of the picture under a small error of one attribute, summed over pixels, is an
integral over G^2 with a closed form (area pi sqrt|S| times a factor an attribute), here averaged
over directions. Cameras are not known: they are taken to look at the scene's middle from ORBIT
radii, with a picture ORBIT radii wide. The factors in SHARE were fitted once to pictures of real
scenes in which one attribute at a time was disturbed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import SH_C0, Splats
from models.splat_to_sog.threads import in_threads
from models.splat_to_sog.visibility import visibility

Float32 = NDArray[np.float32]

ATTRIBUTES = {"position": 3, "scale": 3, "rotation": 3, "colour": 3, "opacity": 1}
"""Numbers a splat has of each."""

ROWS = 1 << 16  # a thread's share at a time

ORBIT = 1.5  # distance of the cameras, in radii of the scene (80 % of the splats are inside one)
PIXELS = 768  # of a picture's side: splats below a pixel blur to one
BLUR_PX = 0.55  # renderers add 0.3 px^2 to each blob's variance
SCREEN = 0.25  # no blob covers more of the picture than this
FAINT = 1 / 255  # renderers skip what is fainter
CONTRAST_FLOOR = 0.02  # a black splat hides light: its shape is seen too
SHARE = {"position": 0.33, "scale": 0.4, "rotation": 0.25, "colour": 0.6, "opacity": 0.4}
FARTHEST2 = 1e20  # squared scene units: beyond, all is equally far
BRIGHTEST = 10.0  # of a colour: no display shows a tenth of it
NEEDLE = 1e4  # a thinner splat leaves its old place at once: the error grows no more
THOMSEN = 1.6075  # exponent of the mean projected area of an ellipsoid


@dataclass(frozen=True)
class Importance:
    """worth[attribute] [N]: mean squared error of a picture (0..1) per squared unit of error.

    Units: position: the log domain of `layout.log_position`; scale: natural log; rotation: radians
    about each axis; colour: a harmonics coefficient; opacity: alpha 0..1. Errors of one splat's
    numbers and of several splats add up.
    """

    worth: dict[str, Float32]

    def __len__(self) -> int:
        return len(self.worth["colour"])


def importance(splats: Splats, hidden: bool = True) -> Importance:
    """Of every splat of a finite scene. hidden: estimate what lies behind others (`visibility`), or
    take every splat to be seen."""
    n = len(splats)
    centre, radius = frame(splats.means)
    distance2 = np.empty(n, np.float32)
    area = np.empty(n, np.float32)
    worth = {name: np.empty(n, np.float32) for name in ATTRIBUTES}

    def shape(rows: slice) -> None:
        distance2[rows] = _distance2(splats.means[rows], centre, radius)
        area[rows] = _shape(splats, rows, distance2[rows], worth)

    in_threads(shape, chunks(n, ROWS))
    alpha = alphas(splats.opacities)
    seen = visibility(splats, alpha, area) if hidden else np.ones(n, np.float32)

    def weigh(rows: slice) -> None:
        a = alpha[rows]
        covered = np.minimum(np.pi * area[rows] / distance2[rows], SCREEN)
        covered *= np.maximum(1 - (FAINT / np.maximum(a, FAINT / 4)) ** 2, 0.01)
        light = covered * seen[rows] / 3  # the mean over three channels
        drawn = light * a**2
        colour = np.clip(SH_C0 * splats.sh0[rows] + 0.5, 0, BRIGHTEST)
        contrast = np.einsum("ni,ni->n", colour, colour) + CONTRAST_FLOOR
        for name in ("position", "scale", "rotation"):
            worth[name][rows] *= SHARE[name] * drawn * contrast
        worth["colour"][rows] = SHARE["colour"] * SH_C0**2 * drawn
        worth["opacity"][rows] = SHARE["opacity"] * light * contrast

    in_threads(weigh, chunks(n, ROWS))
    return Importance(worth)


def frame(means: Float32) -> tuple[Float32, float]:
    """(middle of the scene [3], radius of 80 % of it); medians, which floaters cannot move."""
    sample = means[:: max(1, len(means) // 100_000)].astype(np.float64)
    centre = np.quantile(sample, 0.5, axis=0).astype(np.float32)
    radius = float(np.sqrt(np.quantile(((sample - centre) ** 2).sum(axis=1), 0.8)))
    return centre, min(max(radius, 1e-6), 1e9)


def alphas(logits: Float32) -> Float32:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def _distance2(means: Float32, centre: Float32, radius: float) -> Float32:
    """Squared distance of the cameras from each splat, [N]; far outliers stay within float32."""
    offset = means.astype(np.float64) - centre
    distance2 = (ORBIT * radius) ** 2 + np.einsum("ni,ni->n", offset, offset)
    return np.asarray(np.minimum(distance2, FARTHEST2), np.float32)


def axis_shares(means: Float32, scales: Float32) -> Float32:  # [N, 3], [N, 3] log -> [N, 3]
    """Of the worth of a splat's scales, each axis' share, 1 on average: thinner than a pixel is
    nothing."""
    centre, radius = frame(means)
    distance2 = _distance2(means, centre, radius)
    own = np.exp(2 * np.clip(scales, -20, 20))
    share = (own / (own + (BLUR_PX / PIXELS) ** 2 * distance2[:, None])) ** 2
    return np.asarray(share / np.maximum(share.mean(axis=1, keepdims=True), 1e-12), np.float32)


def _shape(splats: Splats, rows: slice, distance2: Float32, worth: dict[str, Float32]) -> Float32:
    """Mean projected area over pi [n]; factors of position, scale and rotation go to `worth`."""
    pixel2 = (BLUR_PX / PIXELS) ** 2 * distance2
    own = np.exp(2 * np.clip(splats.scales[rows], -20, 20)).T  # [3, n] variances
    seen = own + pixel2
    a, b, c = seen
    stretch = np.minimum(
        1 + np.abs(splats.means[rows]), FARTHEST2**0.5
    )  # scene units per unit of the log domain
    worth["position"][rows] = (1 / seen).mean(axis=0) * (stretch**2).mean(axis=1)
    worth["scale"][rows] = ((own / seen) ** 2).mean(axis=0) / 2
    turned = (a - b) ** 2 / (a * b) + (b - c) ** 2 / (b * c) + (a - c) ** 2 / (a * c)
    worth["rotation"][rows] = turned / (24 * (1 + turned / NEEDLE))
    power = THOMSEN / 2
    mean = ((a * b) ** power + (b * c) ** power + (a * c) ** power) / 3
    return np.asarray(mean ** (1 / THOMSEN), np.float32)
