"""A table with glossy things on it, before black: the object capture of the two scenes."""

from __future__ import annotations

import numpy as np

from benchmarks.scenes.mesh import (
    Array,
    Material,
    Mesh,
    Pattern,
    ball,
    joined,
    moved,
    revolved,
    ring,
    rounded_box,
)
from benchmarks.scenes.shading import Lamp, Sky
from benchmarks.scenes.stage import Scene

TABLE = 1.7  # radius, scene units; its top is the ground, height 0


def still_life(seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    pieces = [
        _table(),
        moved(ball(0.42, Material((0.95, 0.93, 0.9), 0.24, 1.0)), (-0.55, -0.42, 0.35)),
        moved(ball(0.3, Material((0.75, 0.05, 0.04), 0.15)), (0.55, -0.3, 0.65)),
        moved(ring(0.34, 0.11, Material((1.0, 0.72, 0.28), 0.28, 1.0)), (0.75, -0.11, -0.2)),
        moved(
            rounded_box((0.3, 0.24, 0.22), Material((0.05, 0.16, 0.6), 0.2)),
            (-0.75, -0.24, -0.55),
            turned(0.5),
        ),
        moved(
            rounded_box((0.22, 0.36, 0.22), Material((0.9, 0.88, 0.84), 0.3, 0, Pattern.MARBLE)),
            (0.2, -0.36, -0.75),
            turned(-0.3),
        ),
        moved(_vase(), (0.05, 0.0, 0.05)),
        moved(_bowl(), (0.1, 0.0, 1.1)),
    ]
    for k in range(7):  # fruit in the bowl
        angle = 2 * np.pi * k / 6
        spread = 0.0 if k == 6 else 0.13
        colour = tuple(rng.uniform(0.25, 0.9) * np.array([1.0, rng.uniform(0.3, 0.9), 0.12]))
        place = (0.1 + spread * np.cos(angle), -0.2 - 0.09 * (k == 6), 1.1 + spread * np.sin(angle))
        pieces.append(moved(ball(0.075, Material(colour, 0.25), 24), place))
    for _ in range(90):  # beads
        radius = rng.uniform(0.018, 0.05)
        angle, far = rng.uniform(0, 2 * np.pi), TABLE * 0.92 * np.sqrt(rng.uniform(0.05, 1))
        material = Material(
            tuple(rng.uniform(0.04, 0.9, 3)), rng.uniform(0.1, 0.5), rng.integers(2)
        )
        place = (far * np.cos(angle), -radius, far * np.sin(angle))
        pieces.append(moved(ball(radius, material, 16), place))
    return Scene(
        joined(pieces),
        sun=Lamp((0.55, -1.0, 0.35), (3.0, 2.8, 2.5), 400.0),
        sky=Sky(
            zenith=(0.35, 0.42, 0.55),
            horizon=(0.75, 0.72, 0.68),
            ground=(0.16, 0.12, 0.09),
            lamps=(
                Lamp((-1.0, -0.7, 0.3), (2.6, 2.5, 2.3), 25.0),
                Lamp((0.4, -0.5, -1.0), (0.9, 1.3, 2.2), 40.0),
                Lamp((0.9, -0.3, 0.6), (1.8, 0.9, 0.5), 60.0),
            ),
        ),
        radius=2.2,
        middle=(0.0, -0.2, 0.0),
        distances=(1.9, 4.2),
        elevations=(-16.0, 72.0),
        clearance=0.5,
        dome=None,
    )


def turned(angle: float) -> Array:  # [3, 3]
    """Rotation about the vertical, radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def _table() -> Mesh:
    rim = np.linspace(0, np.pi, 12)
    profile = [(TABLE * t, 0.0) for t in np.linspace(0, 1, 40)]
    profile += [(TABLE + 0.04 * np.sin(a), -0.04 + 0.04 * np.cos(a)) for a in rim[1:-1]]
    profile += [(TABLE * t, -0.08) for t in np.linspace(1, 0, 20)]
    material = Material((0.62, 0.42, 0.26), 0.42, 0, Pattern.CHECKER)
    return revolved(np.array(profile), material, around=256)


def _vase() -> Mesh:
    height = np.linspace(0, 1, 90)
    radius = 0.16 + 0.11 * np.sin(2.6 * height + 0.3) - 0.1 * height**3
    outside = np.stack([radius, 0.85 * height], 1)
    inside = np.stack([radius - 0.015, 0.85 * height], 1)[::-1]
    foot = np.array([[0.0, 0.0]])
    material = Material((0.1, 0.55, 0.5), 0.18, 0, Pattern.STRIPES)
    return revolved(np.concatenate([foot, outside, inside[:70]]), material)


def _bowl() -> Mesh:
    t = np.linspace(0, 1, 50)
    outside = np.stack([0.12 + 0.2 * np.sin(t * np.pi / 2), 0.24 * t**1.5], 1)
    inside = (outside - [0.015, 0.0])[::-1] + [0.0, 0.012]
    profile = np.concatenate([[[0.0, 0.0]], outside, inside, [[0.0, 0.012]]])
    return revolved(profile, Material((0.85, 0.85, 0.82), 0.12))
