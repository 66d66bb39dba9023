"""Finishing: rasteriser, fill, atlas, simplification, placement: each against a plain statement."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from models.image_to_mesh.finishing.atlas import GUTTER_TEXELS, _pack, plan_atlas, unwrap
from models.image_to_mesh.finishing.bake import bake
from models.image_to_mesh.finishing.fill import diffuse, fill_nearest
from models.image_to_mesh.finishing.normals import vertex_normals
from models.image_to_mesh.finishing.rasterize import rasterize
from models.image_to_mesh.finishing.simplify import simplify
from models.image_to_mesh.finishing.unit_box import to_unit_box
from models.image_to_mesh.finishing.view_choice import choose_views
from models.image_to_mesh.finishing.visibility import DepthBuffer, View
from models.image_to_mesh.geometry.cameras import Camera, object_to_camera


def sphere(subdivisions: int = 4) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int32)


def rasterize_reference(points, depth, faces, height, width):
    """Every pixel against every triangle."""
    nearest, face = np.full((height, width), -np.inf), np.full((height, width), -1)
    rows, columns = np.mgrid[:height, :width]
    for index, (a, b, c) in enumerate(points[faces]):
        area = np.cross(np.append(b - a, 0), np.append(c - a, 0))[2]
        if abs(area) < 1e-12:
            continue
        w0 = ((b[0] - columns) * (c[1] - rows) - (b[1] - rows) * (c[0] - columns)) / area
        w1 = ((c[0] - columns) * (a[1] - rows) - (c[1] - rows) * (a[0] - columns)) / area
        z = np.tensordot(depth[faces[index]], np.stack([w0, w1, 1 - w0 - w1]), 1)
        wins = (w0 >= 0) & (w1 >= 0) & (w0 + w1 <= 1) & (z > nearest)
        nearest[wins], face[wins] = z[wins], index
    return face


def test_rasterizer_equals_its_reference(rng: np.random.Generator) -> None:
    points = rng.uniform(-5, 45, (60, 2))  # some reach beyond the picture
    faces = rng.integers(0, 60, (40, 3)).astype(np.int32)  # some have a repeated corner
    depth = rng.normal(size=60)
    raster = rasterize(points, depth, faces, 30, 40)
    plain = rasterize_reference(points, depth, faces, 30, 40)
    # A pixel centre on an edge to within float32 may go either way: at most 4 of 1200.
    assert (raster.face != plain).sum() <= 4
    inside = raster.covered
    rows, columns = np.nonzero(inside)
    placed = raster.interpolate(points, faces)
    assert np.allclose(placed, np.stack([columns, rows], axis=1), atol=2e-2)


def test_diffuse_keeps_what_is_known_and_stays_in_range(rng: np.random.Generator) -> None:
    colours = rng.random((37, 53, 3)).astype(np.float32)
    known = rng.random((37, 53)) < 0.2
    filled = diffuse(colours, known.astype(np.float32))
    assert np.allclose(filled[known], colours[known], atol=1e-6)
    flat = diffuse(
        np.where(known[..., None], np.full(3, 0.4, np.float32), 0), known.astype(np.float32)
    )
    assert np.allclose(flat, 0.4, atol=1e-3)


def test_fill_nearest_takes_the_nearest() -> None:
    colours = np.zeros((1, 7, 3), np.float32)
    colours[0, 0], colours[0, 6] = 0.2, 0.8
    known = np.array([[True, False, False, False, False, False, True]])
    assert np.allclose(fill_nearest(colours, known)[0, [1, 2, 4, 5], 0], [0.2, 0.2, 0.8, 0.8])


def test_vertex_normals_of_a_sphere_point_outward() -> None:
    vertices, faces = sphere()
    assert np.einsum("vi,vi->v", vertex_normals(vertices, faces), vertices).min() > 0.999


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_packed_pages_lie_apart_inside_the_texture(count: int, rng: np.random.Generator) -> None:
    extents = rng.uniform(0.2, 3.0, (count, 2))
    scale, origins, sizes = _pack(extents, 1024)
    taken = np.zeros((1024, 1024), bool)
    for (left, top), (width, height), extent in zip(origins, sizes, extents, strict=True):
        pad = GUTTER_TEXELS // 2
        box = np.s_[top - pad : top + height + pad, left - pad : left + width + pad]
        assert min(left, top) >= GUTTER_TEXELS
        assert max(left + width, top + height) <= 1024 - GUTTER_TEXELS
        assert not taken[box].any()
        taken[box] = True
        assert np.allclose((width, height), extent * scale, atol=1)


def test_packing_wastes_little() -> None:
    """Three pages of half the height: side by side they fill the width, not a quarter of it."""
    scale, _, _ = _pack(np.array([[1.0, 3.0]] * 3), 1024)
    assert 3 * scale > 0.9 * 1024


@pytest.mark.parametrize("budget", [500, 3000, 20_000])
def test_simplified_mesh_meets_its_budget_and_stays_closed(budget: int) -> None:
    vertices, faces = sphere(5)  # 20,480 faces
    fewer, triangles = simplify(vertices, faces, budget)
    mesh = trimesh.Trimesh(fewer, triangles, process=False)
    assert 0.4 * min(budget, 20_480) < len(triangles) <= budget
    assert mesh.is_watertight
    # 500 triangles inscribed in a sphere hold 4 % less than the sphere.
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=0.05)


def test_budget_that_would_lose_the_object_is_not_met() -> None:
    """A comb of 60 thin tubes keeps them all: 500 faces are too few for 60 closed tubes of 32."""
    tubes = [trimesh.creation.cylinder(0.004, 1, sections=24) for _ in range(60)]
    for index, tube in enumerate(tubes):
        tube.apply_translation([0.02 * index, 0, 0])
    comb = trimesh.util.concatenate(tubes)
    vertices, faces = simplify(np.asarray(comb.vertices), np.asarray(comb.faces, np.int32), 500)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume > 0.75 * comb.volume
    assert mesh.body_count == 60


def test_unit_box_turns_the_object_to_face_z() -> None:
    """Seen from azimuth 90, what points at the viewer is the object's +X side."""
    vertices, faces = sphere(2)
    vertices = vertices * (1.0, 0.5, 2.0)
    placed = to_unit_box(vertices, faces, object_to_camera(90, 0))
    assert np.allclose(np.ptp(placed, axis=0), [1, 0.25, 0.5], atol=1e-5)
    assert placed[np.argmax(vertices[:, 2]), 0] == pytest.approx(0.5)
    assert placed.dtype == np.float32


def test_touching_sheets_are_drawn_apart() -> None:
    """Two cubes that share an edge: merged by position, that edge has four faces."""
    cubes = [
        trimesh.creation.box(bounds=[[0, 0, 0], [1, 1, 1]]),
        trimesh.creation.box(bounds=[[1, 1, 0], [2, 2, 1]]),
    ]
    both = trimesh.util.concatenate(cubes)
    vertices, faces = np.asarray(both.vertices), np.asarray(both.faces, np.int32)
    assert not trimesh.Trimesh(vertices, faces).is_watertight
    placed = to_unit_box(vertices, faces, np.eye(3))
    assert len(np.unique(placed, axis=0)) == len(placed)
    assert trimesh.Trimesh(placed, faces).is_watertight
    assert np.abs(placed).max() <= 0.5


def test_no_face_is_left_flat_to_a_line() -> None:
    """A box with an extra vertex on an edge, joined so that one face is a line."""
    box = trimesh.creation.box()
    vertices, faces = np.asarray(box.vertices), np.asarray(box.faces, np.int32)
    a, b, c = faces[0]
    middle = len(vertices)
    vertices = np.vstack([vertices, (vertices[a] + vertices[b]) / 2])
    # The neighbour keeps the whole edge, so the gap is closed by a face without area.
    faces = np.vstack([faces[1:], [[a, middle, c], [middle, b, c], [a, b, middle]]]).astype(
        np.int32
    )
    placed = to_unit_box(vertices, faces, np.eye(3))
    mesh = trimesh.Trimesh(placed, faces, process=False)
    assert mesh.is_watertight
    assert mesh.nondegenerate_faces(height=1e-8).all()
    assert np.abs(placed - vertices / np.ptp(vertices, axis=0).max()).max() < 1e-3


def test_depth_buffer_tells_front_from_back() -> None:
    vertices, faces = sphere()
    view = View(np.ones((100, 120, 4), np.float32), Camera(scale=0.5))
    front = vertices[:, 2] > 0.3
    assert DepthBuffer(vertices, faces, view).sees(vertices[front]).all()
    assert not DepthBuffer(vertices, faces, view).sees(vertices[vertices[:, 2] < -0.3]).any()
    assert (
        DepthBuffer(vertices, faces, view, behind=True).sees(vertices[vertices[:, 2] < -0.3]).all()
    )


def test_one_image_paints_its_front_and_never_its_back() -> None:
    """A white disc with a red mark in its middle: red is on the front page alone."""
    vertices, faces = sphere()
    ticks = (np.arange(256) + 0.5) / 256 * 2 - 1
    radius = np.hypot(*np.meshgrid(ticks, ticks))
    rgba = np.zeros((256, 256, 4), np.float32)
    rgba[radius < 0.5] = 1
    rgba[radius < 0.2] = (1, 0, 0, 1)
    view = View(rgba, Camera(scale=0.5))
    atlas = plan_atlas(vertices, faces, [view], 512)
    source, uv, corners = unwrap(vertices, faces, [view], atlas)
    texture = bake(vertices, faces, [view], atlas)
    texel = texture[
        np.clip((uv * 512).astype(int), 0, 511)[:, 1], np.clip((uv * 512).astype(int), 0, 511)[:, 0]
    ]
    front = np.zeros(len(source), bool)
    front[corners[atlas.page_of_face == 0]] = True
    middle = np.hypot(*vertices[source, :2].T) < 0.3
    assert (texel[front & middle] == (255, 0, 0)).all()
    assert texel[~front].min() > 250
    assert np.array_equal(source[corners], faces)


def test_several_images_paint_the_side_they_saw() -> None:
    """Red from the front, green from +X: no black beyond an outline, and a blend in between."""
    vertices, faces = sphere()
    ticks = (np.arange(200) + 0.5) / 200 * 2 - 1
    disc = np.hypot(*np.meshgrid(ticks, ticks)) < 0.5
    pictures = []
    for colour in ((1, 0, 0, 1), (0, 1, 0, 1)):
        rgba = np.zeros((200, 200, 4), np.float32)
        rgba[disc] = colour
        pictures.append(rgba)
    views = [
        View(p, Camera(object_to_camera(a, 0), scale=0.5))
        for p, a in zip(pictures, (0, 90), strict=True)
    ]
    atlas = plan_atlas(vertices, faces, views, 512)
    source, uv, _ = unwrap(vertices, faces, views, atlas)
    texture = bake(vertices, faces, views, atlas).astype(int)
    texel = texture[
        np.clip((uv * 512).astype(int), 0, 511)[:, 1], np.clip((uv * 512).astype(int), 0, 511)[:, 0]
    ]
    x, _, z = vertices[source].T
    assert (texel[z > 0.95, 0] > 240).all()
    assert (texel[x > 0.95, 1] > 240).all()
    seam = (np.abs(x - z) < 0.05) & (x > 0.5)
    assert (np.abs(texel[seam, 0] - texel[seam, 1]) < 90).all()
    assert (texel.sum(axis=1) > 200).all()


def marked(azimuth: float, mark_azimuth: float) -> View:
    """A white ball with a black dot, seen from an azimuth; the dot is where it is drawn."""
    ticks = (np.arange(240) + 0.5) / 240 * 2 - 1
    x, y = np.meshgrid(ticks / 0.5, -ticks / 0.5)
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
    points = np.stack([x, y, z], axis=-1) @ object_to_camera(azimuth, 0)
    dot = points @ object_to_camera(mark_azimuth, 0)[2] > np.cos(0.18)
    rgba = np.zeros((240, 240, 4), np.float32)
    rgba[..., :3] = np.where(dot, 0.0, 1.0)[..., None]
    rgba[..., 3] = x * x + y * y < 1
    return View(rgba, Camera(object_to_camera(azimuth, 0), scale=0.5))


def test_a_mark_that_two_views_draw_apart_has_no_ghost() -> None:
    """One view draws a dot 12 degrees beside where the other does, across the line between them.

    Each place is painted by one view: black or white, but for the rim. A mix of all views that see
    it leaves grey three quarters as large as the dot.
    """
    vertices, faces = sphere(5)
    views = [marked(-50, -14), marked(50, -2), marked(180, 500)]
    choice = choose_views(vertices, faces, views)
    assert {0, 1, 2} <= set(np.unique(choice.view_of_face))
    atlas = plan_atlas(vertices, faces, views, 1024)
    source, uv, _ = unwrap(vertices, faces, views, atlas)
    texel = np.clip((uv * 1024).astype(int), 0, 1023)
    colour = bake(vertices, faces, views, atlas)[texel[:, 1], texel[:, 0], 0]
    front = vertices[source] @ object_to_camera(0, 0)[2] > 0.8
    dot = (vertices @ object_to_camera(0, 0)[2] > np.cos(0.18)).sum()
    assert (front & (colour < 64)).sum() > 0.9 * dot
    assert (front & (colour >= 64) & (colour < 192)).sum() < 0.4 * dot


def test_what_no_view_saw_takes_the_colours_around_it() -> None:
    """Red from one side, green from the other: the top between is neither black nor white."""
    vertices, faces = sphere()
    views = []
    for azimuth, colour in ((0, (1, 0, 0)), (120, (0, 1, 0))):
        view = marked(azimuth, azimuth + 180)
        view.rgba[..., :3] = colour
        views.append(view)
    choice = choose_views(vertices, faces, views)
    unseen = choice.weights.sum(axis=1) < 0.01
    assert 0.05 < unseen.mean() < 0.5
    assert choice.unseen[unseen, :2].sum(axis=1) == pytest.approx(1, abs=0.02)
    back = vertices[unseen] @ object_to_camera(240, 0)[2] > 0.9
    assert choice.unseen[unseen][back].mean(axis=0) == pytest.approx((0.5, 0.5, 0), abs=0.1)
