"""A pinhole camera against plain projection, and painting through it."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from models.image_to_mesh.finishing.bake_views import paint_views
from models.image_to_mesh.finishing.visibility import DepthBuffer, View
from models.image_to_mesh.geometry.cameras import Camera, Projection
from models.image_to_mesh.geometry.pinhole import Pinhole, pinhole
from models.image_to_mesh.reconviagen.registration.placement import turned

HEIGHT, WIDTH = 240, 320


@pytest.fixture
def told(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A camera two to four units before the origin, which lies about its middle."""
    turn = turned(rng.normal(size=3) * 2)
    shift = np.array([*rng.uniform(-0.2, 0.2, 2), rng.uniform(2, 4)])
    intrinsics = np.array([[310, 0, 170], [0, 290, 110], [0, 0, 1.0]])
    return np.column_stack([turn, shift]), intrinsics


@pytest.fixture
def camera(told: tuple[np.ndarray, np.ndarray]) -> Pinhole:
    return pinhole(*told, HEIGHT, WIDTH)


def picture(height: int, width: int) -> np.ndarray:
    """Opaque; red grows to the right, green downwards."""
    columns, rows = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    return np.stack([columns, rows, 0 * rows, 0 * rows + 1], -1).astype(np.float32)


def test_pixels_are_those_of_the_matrices(
    told: tuple[np.ndarray, np.ndarray], camera: Pinhole, rng: np.random.Generator
) -> None:
    points = rng.uniform(-0.5, 0.5, (200, 3))
    seen = points @ told[0][:, :3].T + told[0][:, 3]
    plain = (seen @ told[1].T)[:, :2] / seen[:, 2:]
    pixels = View(picture(HEIGHT, WIDTH), camera).pixels(points)
    np.testing.assert_allclose(pixels, plain - 0.5, atol=1e-9)  # centres at whole numbers


def test_depth_is_affine_along_the_picture_and_a_length_at_the_origin(camera: Pinhole) -> None:
    away = camera.towards(np.zeros(3))
    step = 1e-4
    ahead = camera.rotation[2]  # towards the viewer, square to the picture
    slope = (camera.depth(step * ahead) - camera.depth(-step * ahead)) / (2 * step)
    assert slope == pytest.approx(1, abs=1e-6)
    ends = np.array([[-0.5, 0.3, 0.4], [0.5, -0.2, -0.3]])
    along = ends[0] + np.linspace(0, 1, 7)[:, None] * (ends[1] - ends[0])
    plane, depth = camera.project(along), camera.depth(along)
    share = np.linalg.norm(plane - plane[0], axis=1) / np.linalg.norm(plane[-1] - plane[0])
    np.testing.assert_allclose(depth, depth[0] + share * (depth[-1] - depth[0]), atol=1e-9)
    assert np.linalg.norm(away) == pytest.approx(1)


def test_towards_leads_to_the_camera(camera: Pinhole, rng: np.random.Generator) -> None:
    points = rng.uniform(-0.5, 0.5, (20, 3))
    place = -camera.rotation.T @ camera.translation
    expected = (place - points) / np.linalg.norm(place - points, axis=1, keepdims=True)
    np.testing.assert_allclose(camera.towards(points), expected, atol=1e-12)
    nearer = points + 0.1 * expected
    assert (camera.depth(nearer) > camera.depth(points)).all()


def test_pixels_per_unit_hold_at_the_centre(camera: Pinhole) -> None:
    view = View(picture(HEIGHT, WIDTH), camera)
    across = 1e-4 * camera.rotation[:2]  # to the right and up, in the object's frame
    moved = np.linalg.norm(view.pixels(across) - view.pixels(np.zeros((2, 3))), axis=1)
    assert moved.mean() / 1e-4 == pytest.approx(view.pixels_per_unit, rel=1e-3)


def test_a_wide_face_does_not_hide_itself_nor_what_is_before_it() -> None:
    """Two triangles that run from near to far: their depth between the corners is not the mean."""
    floor = np.array([[-1, -0.3, 0.9], [1, -0.3, 0.9], [1, -0.3, -3], [-1, -0.3, -3]])
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    to_camera = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 1.5]])
    intrinsics = np.array([[200.0, 0, 150], [0, 200, 150], [0, 0, 1]])
    view = View(picture(300, 300), pinhole(to_camera, intrinsics, 300, 300))
    buffer = DepthBuffer(floor, faces, view, side_px=300, bias_share=0.005)
    at = np.stack([np.zeros(50), np.full(50, -0.3), np.linspace(0.3, -2.5, 50)], axis=1)
    assert buffer.sees(at).all()
    assert buffer.sees(at + (0, 0.1, 0)).all()
    assert not buffer.sees(at - (0, 0.1, 0)).any()


@pytest.mark.parametrize("kind", ["orbit", "pinhole"])
def test_both_cameras_paint_a_sphere_with_what_lies_over_it(
    kind: str, told: tuple[np.ndarray, np.ndarray]
) -> None:
    ball = trimesh.creation.icosphere(4, radius=0.4)
    cameras: dict[str, Projection] = {
        "orbit": Camera(turned(np.array([0.3, -0.8, 0.2])), tangent=0.3),
        "pinhole": pinhole(*told, HEIGHT, WIDTH),
    }
    view = View(picture(HEIGHT, WIDTH), cameras[kind])
    vertices, faces = ball.vertices.astype(np.float32), ball.faces.astype(np.int32)
    grey = np.full_like(vertices, 0.5)
    normals = np.asarray(ball.vertex_normals, np.float32)
    painted, share = paint_views(vertices, normals, grey, vertices, faces, [view], 200.0)
    facing = np.einsum("vi,vi->v", normals, view.camera.towards(vertices.astype(float)))
    pixels = view.pixels(vertices.astype(float)) / (WIDTH, HEIGHT)
    front = facing > 0.75
    np.testing.assert_allclose(painted[front][:, :2], pixels[front], atol=0.01)
    np.testing.assert_array_equal(painted[facing < 0], grey[facing < 0])
    assert 0.1 < share < 0.5
