"""Grass, leaves, flowers, pebbles and wet rocks under a cloudy sky: the outdoor capture."""

from __future__ import annotations

import numpy as np

from benchmarks.scenes.mesh import (
    Array,
    Material,
    Mesh,
    Pattern,
    ball,
    blades,
    grid_faces,
    joined,
    moved,
    shape,
)
from benchmarks.scenes.shading import Lamp, Sky
from benchmarks.scenes.stage import Scene

HALF_SIDE = 3.4  # of the patch of ground, scene units


def garden(seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    pieces = [_ground(), _grass(rng, 5500), *_plants(rng, 70), *_flowers(rng, 60)]
    pieces += _stones(rng, 420, (0.02, 0.07)) + _stones(rng, 14, (0.14, 0.34))
    steel = Material((0.9, 0.93, 0.95), 0.2, 1.0)
    pieces.append(moved(ball(0.3, steel), (0.35, height(0.35, -0.5) - 0.27, -0.5)))
    glass = Material((0.02, 0.1, 0.3), 0.08)
    pieces.append(moved(ball(0.2, glass), (-0.9, height(-0.9, 0.5) - 0.18, 0.5)))
    return Scene(
        joined(pieces),
        sun=Lamp((-0.6, -0.9, 0.5), (3.4, 3.1, 2.6), 2000.0),
        sky=Sky(
            zenith=(0.16, 0.32, 0.75),
            horizon=(0.7, 0.78, 0.88),
            ground=(0.1, 0.11, 0.06),
            lamps=(Lamp((-0.6, -0.9, 0.5), (4.0, 3.7, 3.0), 300.0),),
            clouds=0.9,
        ),
        radius=5.0,
        middle=(0.0, -0.15, 0.0),
        distances=(1.5, 4.4),
        elevations=(10.0, 62.0),
        clearance=0.55,
        dome=24.0,
    )


def height(x: Array | float, z: Array | float) -> Array:
    """y of the ground; it sinks towards the edge of the patch."""
    x, z = np.asarray(x), np.asarray(z)
    hills = 0.16 * np.sin(1.1 * x + 0.4) * np.cos(1.3 * z) + 0.06 * np.sin(2.9 * x - 1.7 * z)
    fine = 0.012 * np.sin(17 * x + 3 * np.sin(9 * z)) * np.cos(15 * z + 2 * np.sin(11 * x))
    edge = np.maximum(np.hypot(x, z) / HALF_SIDE, 0.75) - 0.75
    return -(hills + fine) + 1.6 * edge**2


def _ground() -> Mesh:
    side = np.linspace(-HALF_SIDE, HALF_SIDE, 420)
    x, z = np.meshgrid(side, side, indexing="ij")
    points = np.stack([x, height(x, z), z], -1).reshape(-1, 3)
    material = Material((0.2, 0.13, 0.075), 0.7, 0, Pattern.SOIL)
    return shape(points, grid_faces(420, 420, False, False)[:, ::-1], material)


def _places(rng: np.random.Generator, count: int, reach: float) -> Array:  # [count, 3]
    """On the ground, in loose clumps."""
    centres = rng.uniform(-reach, reach, (max(count // 25, 1), 2))
    flat = centres[rng.integers(len(centres), size=count)] + rng.normal(0, 0.28, (count, 2))
    flat = np.clip(flat, -reach, reach)
    return np.stack([flat[:, 0], height(flat[:, 0], flat[:, 1]), flat[:, 1]], 1)


def _grass(rng: np.random.Generator, count: int) -> Mesh:
    green = np.array([0.1, 0.3, 0.035])
    straw = np.array([0.45, 0.38, 0.14])
    dry = rng.beta(1.2, 4, (count, 1))
    return blades(
        _places(rng, count, 2.9),
        rng.uniform(0, 2 * np.pi, count),
        rng.gamma(6, 0.055, count),
        rng.uniform(0.011, 0.03, count),
        rng.uniform(0.15, 1.6, count),
        (green + (straw - green) * dry) * rng.uniform(0.6, 1.3, (count, 1)),
        Material((0, 0, 0), 0.33, 0, Pattern.LEAF),
    )


def _plants(rng: np.random.Generator, count: int) -> list[Mesh]:
    """Rosettes of broad glossy leaves."""
    leaves = rng.integers(6, 12, count)
    roots = np.repeat(_places(rng, count, 2.5), leaves, axis=0)
    total = len(roots)
    tint = np.repeat(rng.uniform([0.02, 0.12, 0.03], [0.2, 0.36, 0.1], (count, 3)), leaves, axis=0)
    return [
        blades(
            roots,
            rng.uniform(0, 2 * np.pi, total),
            rng.uniform(0.18, 0.42, total),
            rng.uniform(0.06, 0.13, total),
            rng.uniform(0.8, 1.9, total),
            tint * rng.uniform(0.8, 1.2, (total, 1)),
            Material((0, 0, 0), 0.22, 0, Pattern.LEAF),
            segments=10,
        )
    ]


def _flowers(rng: np.random.Generator, count: int) -> list[Mesh]:
    """A stalk, a ring of petals and a yellow heart each."""
    roots = _places(rng, count, 2.4)
    tall = rng.uniform(0.3, 0.62, count)
    stalks = blades(
        roots,
        np.zeros(count),
        tall * 1.05,
        np.full(count, 0.014),
        np.full(count, 0.02),
        np.tile([0.09, 0.25, 0.05], (count, 1)),
        Material((0, 0, 0), 0.5),
    )
    heads = roots - tall[:, None] * [0.0, 1.0, 0.0]
    petals = 9
    spread = np.tile(np.linspace(0, 2 * np.pi, petals, endpoint=False), count)
    tints = rng.uniform([0.55, 0.05, 0.1], [0.95, 0.6, 0.9], (count, 3))
    crowns = blades(
        np.repeat(heads, petals, axis=0),
        spread + np.repeat(rng.uniform(0, 1, count), petals),
        rng.uniform(0.07, 0.11, count * petals),
        np.full(count * petals, 0.04),
        rng.uniform(1.3, 2.2, count * petals),
        np.repeat(tints, petals, axis=0),
        Material((0, 0, 0), 0.4),
        segments=5,
    )
    yellow = Material((0.85, 0.6, 0.05), 0.6)
    return [stalks, crowns, *(moved(ball(0.022, yellow, 10), head) for head in heads)]


def _stones(rng: np.random.Generator, count: int, sizes: tuple[float, float]) -> list[Mesh]:
    """Lumpy ellipsoids, half of them wet."""
    stones = []
    for place in _places(rng, count, 2.7):
        size = rng.uniform(*sizes)
        grey = rng.uniform(0.15, 0.55)
        colour = tuple(grey * rng.uniform([0.9, 0.8, 0.7], [1.1, 1.0, 1.0]))
        rough = rng.uniform(0.12, 0.3) if rng.random() < 0.5 else rng.uniform(0.5, 0.9)
        sphere = ball(1.0, Material(colour, rough, 0, Pattern.ROCK), 40 if size > 0.1 else 16)
        waves = rng.normal(0, 2.2, (3, 3))
        lumps = 1 + 0.09 * np.sin(sphere.points @ waves.T + rng.uniform(0, 6, 3)).sum(
            axis=1, keepdims=True
        )
        stretch = size * rng.uniform([0.8, 0.5, 0.8], [1.3, 0.8, 1.3])
        stone = shape(sphere.points * lumps * stretch, sphere.faces, Material(colour, rough))
        stone.pattern[:] = Pattern.ROCK
        stones.append(moved(stone, place - [0.0, 0.25 * stretch[1], 0.0]))
    return stones
