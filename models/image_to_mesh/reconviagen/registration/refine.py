"""Gauss-Newton: outlines are drawn onto outlines and colours onto colours, sub-pixel.

The mesh's placement moves, and where asked each camera a little. Knows nothing of how a first guess
was found. Residuals are pixels of the photos' squares: from the mesh's outline to the photo's, from
the photo's to the mesh's, and of colours along their slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from models.cores import usable_cores
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.reconviagen.registration.differences import differences
from models.image_to_mesh.reconviagen.registration.drawing import Drawing, Fit, draw, fit
from models.image_to_mesh.reconviagen.registration.photos import Photo, Square, square
from models.image_to_mesh.reconviagen.registration.placement import Placement, turned

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

EVIDENCE = 100.0
"""Each photo's outline counts as so many independent pixels, and so do its colours."""
CAMERA_SPREAD = np.array([0.03, 0.03, 0.03, 0.06, 0.06, 0.1])
"""How far a camera may be wrong: turns about the object, radians; shifts, in object sizes."""
DAMPING = 1e-3
POOR, GOOD, LEAST_TRUST = 0.5, 0.85, 0.02
"""Outlines that agree less than the first hardly count, from the second on they count in full."""


@dataclass(frozen=True)
class Guess:
    """cameras: (3, 4) of each photo, from the world. strayed: (N, 6), how far each was moved from
    what the network said: a turn about the object, radians, and a shift, in object sizes."""

    placement: Placement
    cameras: list[Doubles]
    strayed: Doubles


class Refinement:
    """One mesh among photos, at one resolution; `step` moves it, `fits` judges it."""

    def __init__(self, mesh: ColouredMesh, photos: Sequence[Photo], side_px: int) -> None:
        self.mesh, self.side_px = mesh, side_px
        self.squares = [square(photo, side_px) for photo in photos]

    def fits(self, guess: Guess) -> list[Fit]:
        drawings = self._draw(guess)
        return [fit(*pair) for pair in zip(drawings, self.squares, strict=True)]

    def step(self, guess: Guess, free: bool) -> Guess:
        """One step of the placement, and where `free` of every camera too."""
        count = len(guess.cameras)
        normal, right = self._equations(guess)
        size = len(normal) if free else 7
        normal, right = normal[:size, :size], right[:size]
        normal[np.diag_indices(size)] *= 1 + DAMPING
        normal[np.diag_indices(size)] += 1e-6  # where nothing is drawn
        step = _limited(np.asarray(np.linalg.solve(normal, right), np.float64))
        placement = guess.placement.stepped(step[:7])
        if not free:
            return replace(guess, placement=placement)
        own = step[7:].reshape(count, 6)
        cameras = [
            _stepped(camera, part, placement)
            for camera, part in zip(guess.cameras, own, strict=True)
        ]
        return Guess(placement, cameras, guess.strayed + own)

    def _equations(self, guess: Guess) -> tuple[Doubles, Doubles]:
        """Normal matrix and right side: seven unknowns of the placement, six of each camera."""
        size = 7 + 6 * len(guess.cameras)
        normal, right = np.zeros((size, size)), np.zeros(size)
        drawings = self._draw(guess)
        for index, (camera, drawing, target) in enumerate(
            zip(guess.cameras, drawings, self.squares, strict=True)
        ):
            agreement = fit(drawing, target).iou
            trust = float(np.clip((agreement - POOR) / (GOOD - POOR), LEAST_TRUST, 1))
            to_camera = guess.placement.to_camera(camera)
            own = 7 + 6 * index + np.arange(6)
            mine = np.concatenate([np.arange(7), own])
            for points, slope, rest in differences(drawing, target):
                jacobian = _jacobian(points, slope, to_camera, camera, target.intrinsics)
                weight = trust * EVIDENCE / max(len(rest), 1)
                normal[np.ix_(mine, mine)] += weight * jacobian.T @ jacobian
                right[mine] -= weight * jacobian.T @ rest
            normal[own, own] += trust / CAMERA_SPREAD**2
            right[own] -= trust / CAMERA_SPREAD**2 * guess.strayed[index]
        return normal, right

    def _draw(self, guess: Guess) -> list[Drawing]:
        def one(camera: Doubles, target: Square) -> Drawing:
            to_camera = guess.placement.to_camera(camera)
            return draw(self.mesh, to_camera, target.intrinsics, self.side_px)

        with ThreadPoolExecutor(usable_cores()) as pool, threadpool_limits(1, user_api="blas"):
            return list(pool.map(one, guess.cameras, self.squares))


def _limited(step: Doubles) -> Doubles:
    """A fifth at most: of a radian, of the object's size."""
    return np.asarray(step * min(1.0, 0.2 / max(float(np.abs(step).max()), 1e-12)))


def _stepped(camera: Doubles, step: Doubles, placement: Placement) -> Doubles:
    """A turn about the object's centre and a shift in object sizes, in the camera's axes."""
    turn = turned(step[:3])
    centre = camera[:, :3] @ placement.centre + camera[:, 3]
    shift = turn @ (camera[:, 3] - centre) + centre + placement.scale * step[3:]
    return np.concatenate([turn @ camera[:, :3], shift[:, None]], axis=1)


def _jacobian(
    points: Array, slope: Doubles, to_camera: Doubles, camera: Doubles, intrinsics: Doubles
) -> Doubles:  # (K, 13)
    """How each rest grows with the placement's seven unknowns and the camera's six."""
    moves = _pixel_moves(points, to_camera, intrinsics)
    along = np.einsum("kc,kci->ki", slope, moves)  # with a shift of the point, camera's axes
    about = points @ to_camera[:, :3].T  # from the object's centre, camera's axes
    turning = np.cross(about, along)
    growing = (about * along).sum(axis=1, keepdims=True)
    world = camera[:, :3]
    return np.concatenate([turning @ world, along @ world, growing, turning, along], axis=1)


def _pixel_moves(points: Array, to_camera: Doubles, intrinsics: Doubles) -> Doubles:
    """(K, 2, 3): how a point's pixel moves with the point, along the camera's axes."""
    x, y, z = (points @ to_camera[:, :3].T + to_camera[:, 3]).T
    z = np.maximum(z, 1e-9)
    moves = np.zeros((len(points), 2, 3))
    moves[:, 0, 0], moves[:, 0, 2] = intrinsics[0, 0] / z, -intrinsics[0, 0] * x / z**2
    moves[:, 1, 1], moves[:, 1, 2] = intrinsics[1, 1] / z, -intrinsics[1, 1] * y / z**2
    return moves
