"""Several views: labels, guesses, and solids that show each view its own outline."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from models.context import InvalidInput
from models.image_to_mesh.geometry.cameras import object_to_camera
from models.image_to_mesh.geometry.several import Shape, reconstruct_views
from models.image_to_mesh.geometry.views import ViewPlan, plan_views

SIDE = 200
LUMPS = np.array([[0, 0, 0, 0.35], [0.4, 0.3, 0, 0.15], [0, -0.3, 0.4, 0.2], [0, 0.5, 0, 0.15]])
"""(x, y, z, radius) of balls; no mirror symmetry: something sticks out at +X, +Y and +Z."""


def photograph(azimuth: float, elevation: float = 0.0) -> np.ndarray:
    """Orthographic picture of LUMPS, (SIDE, SIDE, 4) float32; each ball has its own grey."""
    centres = LUMPS[:, :3] @ object_to_camera(azimuth, elevation).T
    ticks = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    x, y = np.meshgrid(ticks, -ticks)
    picture = np.zeros((SIDE, SIDE, 4), np.float32)
    for index in np.argsort(centres[:, 2]):
        inside = np.hypot(x - centres[index, 0], y - centres[index, 1]) < LUMPS[index, 3]
        picture[inside] = (0.2 + 0.2 * index, 0.5, 0.9 - 0.2 * index, 1)
    return picture


def plan(azimuths: tuple[float, ...], elevations: tuple[float, ...] | None = None) -> ViewPlan:
    return ViewPlan(azimuths, elevations or (0.0,) * len(azimuths), "declared", 1.0)


def in_object_frame(shape: Shape, azimuth: float, elevation: float = 0.0) -> trimesh.Trimesh:
    turned = shape.vertices @ object_to_camera(azimuth, elevation)
    return trimesh.Trimesh(turned - turned.mean(axis=0), shape.faces, process=False)


@pytest.mark.parametrize(
    "azimuths", [(0, 90), (90, 0), (180, 270), (270, 0, 90), (0, 90, 180, 270)]
)
def test_right_angles_take_the_elliptical_hull(azimuths: tuple[float, ...]) -> None:
    shape = reconstruct_views([photograph(a) for a in azimuths], plan(azimuths))
    mesh = in_object_frame(shape, azimuths[0])
    assert shape.method == "elliptical hull"
    assert mesh.is_watertight
    assert mesh.volume > 0
    lumps = in_extents()
    # Wrong handedness or a mirrored side would move an extent by 0.1 or more.
    assert np.ptp(mesh.vertices, axis=0) == pytest.approx(lumps, abs=0.03)
    assert leans(mesh, 0, 0.3) > 0.2  # the lump at +X, high up
    assert leans(mesh, 2, -0.3) > 0.2  # the lump at +Z, low down


def in_extents() -> np.ndarray:
    low = (LUMPS[:, :3] - LUMPS[:, 3:]).min(axis=0)
    return (LUMPS[:, :3] + LUMPS[:, 3:]).max(axis=0) - low


def leans(mesh: trimesh.Trimesh, axis: int, height: float) -> float:
    """Middle of the slice at a height, along an axis, against the middle of the top ball."""
    vertices = mesh.vertices
    middle_y = (vertices[:, 1].min() + vertices[:, 1].max()) / 2
    lumps_middle = ((LUMPS[:, 1] - LUMPS[:, 3]).min() + (LUMPS[:, 1] + LUMPS[:, 3]).max()) / 2
    slab = np.abs(vertices[:, 1] - middle_y + lumps_middle - height) < 0.05
    top = vertices[:, 1] > vertices[:, 1].max() - 0.05
    extreme = vertices[slab, axis]
    return float((extreme.min() + extreme.max()) / 2 - vertices[top, axis].mean()) * 2


@pytest.mark.parametrize(
    ("azimuths", "elevations", "method"),
    [
        ((0, 30, 75, 120, 160, 205, 260, 310), None, "visual hull"),
        ((40, 160, 280), None, "elliptical hull"),
        ((0, 90, 180, 270, 20), (0, 0, 0, 0, 60), "elliptical hull"),
    ],
)
def test_other_angles_give_each_view_its_outline(
    azimuths: tuple[float, ...], elevations: tuple[float, ...] | None, method: str
) -> None:
    pictures = [
        photograph(a, e) for a, e in zip(azimuths, elevations or (0,) * len(azimuths), strict=True)
    ]
    shape = reconstruct_views(pictures, plan(azimuths, elevations), field_of_view=0)
    mesh = in_object_frame(shape, azimuths[0], elevations[0] if elevations else 0)
    assert shape.method == method
    assert shape.azimuths == azimuths
    assert shape.agreement is not None
    assert shape.agreement > 0.85
    assert mesh.is_watertight
    assert mesh.volume > 0
    for camera, picture in zip(shape.cameras, pictures, strict=True):
        seen = camera.project(shape.vertices)
        rows, columns = np.nonzero(picture[..., 3])
        expected = [(columns.min(), columns.max()), (SIDE - 1 - rows.max(), SIDE - 1 - rows.min())]
        for axis in (0, 1):
            # The soft minimum rounds tips off: 4 % of the picture; a mirrored view is off by 15 %.
            extent = (seen[:, axis].min(), seen[:, axis].max())
            assert extent == pytest.approx(np.array(expected[axis]) / SIDE * 2 - 1, abs=0.08)


def test_front_and_back_alone_take_their_depth_from_the_outline() -> None:
    shape = reconstruct_views([photograph(0), photograph(180)], plan((0, 180)))
    mesh = in_object_frame(shape, 0)
    assert mesh.is_watertight
    assert 0.5 < np.ptp(mesh.vertices[:, 2]) < 0.9  # the largest ball's diameter is 0.7


def test_images_that_do_not_fit_are_refused() -> None:
    tall, wide = np.zeros((2, SIDE, SIDE, 4), np.float32)
    tall[10:190, 5:15] = 1
    tall[10:190, 185:195] = 1
    wide[10:190, 95:105] = 1
    with pytest.raises(InvalidInput) as caught:
        reconstruct_views([tall, wide, tall], plan((0, 10, 20)))
    assert caught.value.code == "views_disagree"


def test_labels_come_from_options_then_names_then_a_guess() -> None:
    pictures = [photograph(90), photograph(0), photograph(270)]
    declared = plan_views(pictures, ["a", "b", "c"], (90, 0, 270), None)
    assert (declared.source, declared.azimuths) == ("declared", (90, 0, 270))
    named = plan_views(
        pictures, ["robot_left.png", "robot-front.png", "robot right.png"], None, None
    )
    assert (named.source, named.azimuths) == ("file names", (90, 0, 270))
    assert named.label(0) == "left"
    twice = plan_views(pictures, ["front1.png", "front2.png", "back.png"], None, None)
    assert twice.source == "guess"
    guessed = plan_views(pictures, ["1.png", "2.png", "3.png"], None, None)
    assert guessed.source == "guess"
    assert guessed.confidence < 0.95


def test_guess_finds_opposite_views_and_the_front() -> None:
    """Sides mirror each other; the symmetric picture is the front; feet point to it."""
    ticks = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    x, y = np.meshgrid(ticks, -ticks)
    front, side = np.zeros((2, SIDE, SIDE, 4), np.float32)
    front[(np.hypot(x / 0.5, y / 0.8) < 1)] = (0.2, 0.6, 0.3, 1)
    side[
        (np.hypot((x - 0.1) / 0.3, y / 0.8) < 1)
        | ((y < -0.65) & (y > -0.8) & (x > -0.6) & (x < 0.1))
    ] = 1
    guessed = plan_views([side, front, side[:, ::-1]], ["1", "2", "3"], None, None)
    assert guessed.azimuths == (90.0, 0.0, 270.0)
