"""A real mesh among photos of it, whose cameras are told a little wrongly, is found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.photo_scene import Scene, decoded, load, shoot
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.reconviagen.registration.drawing import draw, fit
from models.image_to_mesh.reconviagen.registration.photos import Photo, square
from models.image_to_mesh.reconviagen.registration.placement import (
    Placement,
    all_around,
    degrees_between,
    turned,
)
from models.image_to_mesh.reconviagen.registration.proxy import proxy
from models.image_to_mesh.reconviagen.registration.refine import _jacobian, _stepped
from models.image_to_mesh.reconviagen.registration.register import Registration, register

Shared = Callable[[str], Path]


@pytest.fixture
def mesh_of(shared: Shared) -> Callable[[str], ColouredMesh]:
    return lambda name: load(shared(f"data/meshes/meshes/{name}.npz"))


def far_off(found: Registration, scene: Scene) -> tuple[float, float, float]:
    """Degrees, growth, and shift in object sizes: found against true."""
    one, other = found.placement, scene.placement
    shift = float(np.linalg.norm(one.centre - other.centre)) / other.scale
    angle = float(degrees_between(one.rotation, other.rotation))
    return angle, abs(np.log(one.scale / other.scale)), shift


# -- finding a mesh ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "photos"), [("kk_knight", 6), ("pm_dragon", 3)])
def test_mesh_is_found_among_cameras_a_degree_and_a_percent_off(
    name: str, photos: int, mesh_of: Callable[[str], ColouredMesh], rng: np.random.Generator
) -> None:
    truth = mesh_of(name)
    scene = shoot(truth, photos, rng)
    found = register(decoded(truth, rng, bend=0.005), scene.photos)
    angle, growth, shift = far_off(found, scene)
    # The cameras' own errors leave the world this uncertain: one of them is the world.
    assert angle < 2 and growth < 0.04 and shift < 0.06
    assert found.moved
    assert min(one.iou for one in found.fits) > 0.94
    assert max(one.colour_error for one in found.fits) < 0.1
    # The cameras are where they were when the photos were taken, up to a common scale.
    for camera, true in zip(found.to_camera, scene.truth, strict=True):
        assert degrees_between(camera[:, :3], true[:, :3]) < 2.5
        assert np.linalg.norm(camera[:, 3] / camera[2, 3] - true[:, 3] / true[2, 3]) < 0.03


def test_exact_cameras_are_left_alone_or_hardly_moved(
    mesh_of: Callable[[str], ColouredMesh], rng: np.random.Generator
) -> None:
    truth = mesh_of("kk_knight")
    scene = shoot(truth, 3, rng, degrees=0, share=0)
    found = register(truth, scene.photos)
    angle, growth, shift = far_off(found, scene)
    assert angle < 0.5 and growth < 0.01 and shift < 0.01
    for camera, photo in zip(found.cameras, scene.photos, strict=True):
        assert degrees_between(camera[:, :3], photo.to_camera[:, :3]) < 0.5


def test_one_photo_is_enough_and_the_answer_is_always_the_same(
    mesh_of: Callable[[str], ColouredMesh], rng: np.random.Generator
) -> None:
    truth = mesh_of("kk_knight")
    scene = shoot(truth, 1, rng, degrees=0, share=0)
    mesh = decoded(truth, rng, bend=0.005)
    found = register(mesh, scene.photos)
    assert far_off(found, scene)[0] < 3
    assert found.fits[0].iou > 0.95 and not found.moved
    again = register(mesh, scene.photos)
    np.testing.assert_array_equal(found.to_camera[0], again.to_camera[0])


def test_a_symmetric_object_fits_whichever_way_it_is_turned(rng: np.random.Generator) -> None:
    """A plain cup-like tube has no front: the rotation is not its own, the outlines are."""
    ring = np.linspace(0, 2 * np.pi, 65)[:-1]
    ends = [
        np.stack([0.3 * np.cos(ring), 0 * ring + y, 0.3 * np.sin(ring)], 1) for y in (-0.5, 0.5)
    ]
    points = np.concatenate([*ends, [[0, -0.5, 0], [0, 0.5, 0]]]).astype(np.float32)
    k = np.arange(64)
    n = (k + 1) % 64
    sides = [np.stack(c, 1) for c in ((k, k + 64, n), (n, k + 64, n + 64))]
    caps = [np.stack(c, 1) for c in ((k, n, 0 * k + 128), (n + 64, k + 64, 0 * k + 129))]
    faces = np.concatenate(sides + caps).astype(np.int32)
    mesh = ColouredMesh(points, faces, np.full_like(points, 0.6))
    scene = shoot(mesh, 3, rng)
    found = register(mesh, scene.photos)
    axis = found.placement.rotation @ (0, 1, 0) @ scene.placement.rotation @ (0, 1, 0)
    assert abs(axis) > np.cos(np.radians(2))
    assert min(one.iou for one in found.fits) > 0.97


def test_what_stops_the_job_stops_the_search(
    mesh_of: Callable[[str], ColouredMesh], rng: np.random.Generator
) -> None:
    truth = mesh_of("kk_mug_full")
    scene = shoot(truth, 1, rng)

    def stop() -> None:
        raise KeyError("cancelled")

    with pytest.raises(KeyError):
        register(truth, scene.photos, stop)


# -- its parts -----------------------------------------------------------------------------------


def test_jacobian_against_differences(rng: np.random.Generator) -> None:
    """Of pixels along a slope, for every unknown of the placement and of the camera."""
    placement = Placement(1.7, turned(rng.normal(size=3)), rng.normal(size=3))
    turn = turned(rng.normal(size=3))
    ahead = np.array([0.1, -0.2, 6.0]) - turn @ placement.centre
    camera = np.column_stack([turn, ahead])
    intrinsics = np.array([[90, 0, 64], [0, 85, 60], [0, 0, 1.0]])
    points = rng.uniform(-0.5, 0.5, (6, 3)).astype(np.float32)
    slope = rng.normal(size=(6, 2))

    def along(step: np.ndarray) -> np.ndarray:
        moved = placement.stepped(step[:7])
        seen = points @ (m := moved.to_camera(_stepped(camera, step[7:], moved)))[:, :3].T + m[:, 3]
        pixels = (seen @ intrinsics.T)[:, :2] / seen[:, 2:]
        return np.asarray((pixels * slope).sum(axis=1))

    expected = np.stack(
        [(along(1e-5 * unit) - along(-1e-5 * unit)) / 2e-5 for unit in np.eye(13)], axis=1
    )
    found = _jacobian(points, slope, placement.to_camera(camera), camera, intrinsics)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_rotations_all_around_leave_no_gap(rng: np.random.Generator) -> None:
    grid = all_around(2000)
    np.testing.assert_allclose(
        grid @ grid.transpose(0, 2, 1), np.eye(3)[None].repeat(2000, 0), atol=1e-12
    )
    for _ in range(100):
        one = turned(rng.normal(size=3) * 3)
        assert degrees_between(grid, one).min() < 20


def test_a_placed_point_is_seen_where_the_world_says(rng: np.random.Generator) -> None:
    placement = Placement(2.5, turned(rng.normal(size=3)), rng.normal(size=3))
    camera = np.column_stack([turned(rng.normal(size=3)), (0.3, -0.1, 9)])
    points = rng.uniform(-0.5, 0.5, (10, 3))
    world = placement.points(points)
    seen = world @ camera[:, :3].T + camera[:, 3]
    mine = placement.to_camera(camera)
    np.testing.assert_allclose(points @ mine[:, :3].T + mine[:, 3], seen / 2.5, atol=1e-12)
    assert np.linalg.det(mine[:, :3]) == pytest.approx(1)


def test_proxy_is_light_and_looks_the_same(
    mesh_of: Callable[[str], ColouredMesh], rng: np.random.Generator
) -> None:
    truth = mesh_of("kk_keg_decorated")
    many = decoded(truth, rng, faces=100_000, bend=0)
    light = proxy(many)
    assert len(light.faces) < len(many.faces) / 3 and proxy(truth) is truth
    scene = shoot(truth, 3, rng, degrees=0, share=0)
    for photo, camera in zip(scene.photos, scene.truth, strict=True):
        target = square(photo, 128)
        agreement = fit(draw(light, camera, target.intrinsics, 128), target)
        assert agreement.iou > 0.97 and agreement.colour_error < 0.06


def test_cropped_photos_keep_their_cameras(rng: np.random.Generator) -> None:
    rgba = np.zeros((3000, 4000, 4), np.float32)
    rgba[300:2900, 1000:3600] = 1
    intrinsics = np.array([[3000, 0, 2100], [0, 3100, 1400], [0, 0, 1.0]])
    photo = Photo(rgba, np.eye(3, 4), intrinsics)
    small = photo.cropped()
    assert max(small.rgba.shape) == 2048
    for whole, part in zip(photo.outline, small.outline, strict=True):
        np.testing.assert_allclose(part, whole, atol=1e-3)
    same = replace(photo, rgba=rgba[:, :3000]).cropped()
    assert same.rgba.shape[:2] == (2048, round(2008 * 2048 / 2616))


def test_a_square_reaches_beyond_the_photo(rng: np.random.Generator) -> None:
    """An object at the photo's corner: the square around it keeps its middle and its scale."""
    rgba = np.zeros((100, 160, 4), np.float32)
    rgba[:40, :50] = (0.2, 0.4, 0.6, 1)
    found = square(Photo(rgba, np.eye(3, 4), np.diag([100.0, 100, 1])), 150)
    assert found.solid.sum() == pytest.approx(2 * 2 * 40 * 50, rel=0.02)  # 75 pixels become 150
    rows, columns = np.nonzero(found.solid)
    centre = (np.array([columns.mean(), rows.mean()]) - found.intrinsics[:2, 2]) / 200
    np.testing.assert_allclose(centre, (0.25, 0.20), atol=0.005)
    np.testing.assert_allclose(found.colours, np.full((150, 150, 3), (0.2, 0.4, 0.6)), atol=1e-6)
    assert (found.distance[found.solid] < 0).all() and (found.distance[~found.solid] > 0).all()
