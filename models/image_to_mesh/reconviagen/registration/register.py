"""Find where a mesh lies among the cameras of its photos. Read `register` from top to bottom.

Knows nothing of networks, nor of what the answer is used for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.reconviagen.registration.drawing import Fit
from models.image_to_mesh.reconviagen.registration.photos import Photo
from models.image_to_mesh.reconviagen.registration.placement import Placement
from models.image_to_mesh.reconviagen.registration.proxy import proxy, sampled
from models.image_to_mesh.reconviagen.registration.refine import Guess, Refinement
from models.image_to_mesh.reconviagen.registration.search import Search

Doubles = npt.NDArray[np.float64]

POINTS = 1500
CANDIDATES, TURNS = 4, 2
COARSE_PX, FINE_PX = 64, 128
COARSE_STEPS, FINE_STEPS, FREE_STEPS = 4, 4, 6
LEAST_GAIN = 0.002
"""Cameras are moved only if the fit gains this much: else they are what the network said."""


@dataclass(frozen=True)
class Registration:
    """to_camera: of each photo (3, 4), from the mesh's frame, in its unit. cameras: (3, 4) each, of
    the world, moved a little where that fits better. fits: of each photo."""

    placement: Placement
    cameras: list[Doubles]
    fits: list[Fit]
    moved: bool

    @property
    def to_camera(self) -> list[Doubles]:
        return [self.placement.to_camera(camera) for camera in self.cameras]


def register(
    mesh: ColouredMesh,  # centred, its longest side 1
    photos: Sequence[Photo],
    on_part: Callable[[], None] = lambda: None,
) -> Registration:
    """on_part: called often; what it raises ends the work. The same input gives the same answer."""
    rng = np.random.default_rng(0)
    light = proxy(mesh)

    # 1. Rotations all around, scored by points.
    search = Search(*sampled(light, POINTS, rng), photos)
    found = search.best(CANDIDATES, rng)
    on_part()

    # 2. The best few, drawn onto the outlines coarsely: which of them is it?
    coarse = Refinement(light, photos, COARSE_PX)
    cameras, still = [photo.to_camera for photo in photos], np.zeros((len(photos), 6))
    tried: list[tuple[float, Guess]] = []

    def attempt(placement: Placement) -> None:
        guess = Guess(placement, cameras, still)
        for _ in range(COARSE_STEPS):
            guess = coarse.step(guess, free=False)
        tried.append((score(coarse.fits(guess)), guess))
        on_part()

    for _, placement in found:
        attempt(placement)
    for placement in search.turned_about(_best(tried).placement, TURNS):
        attempt(placement)
    guess = _best(tried)

    # 3. It alone, finely; then each camera too, as far as that helps.
    fine = Refinement(light, photos, FINE_PX)
    for _ in range(FINE_STEPS):
        guess = fine.step(guess, free=False)
        on_part()
    best = Registration(guess.placement, guess.cameras, fine.fits(guess), False)
    if len(photos) == 1:
        return best  # to move its camera is to move the mesh
    for _ in range(FREE_STEPS):
        guess = fine.step(guess, free=True)
        on_part()
    freed = Registration(guess.placement, guess.cameras, fine.fits(guess), True)
    return freed if score(freed.fits) > score(best.fits) + LEAST_GAIN else best


def _best(tried: Sequence[tuple[float, Guess]]) -> Guess:
    return max(tried, key=lambda one: one[0])[1]


def score(fits: Sequence[Fit]) -> float:
    """Larger is better."""
    return float(np.mean([one.iou - one.colour_error for one in fits]))
