"""Simplification: the budget is met, what was closed stays closed, what was open keeps its rim."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from skimage.measure import marching_cubes

from models.image_to_mesh.finishing import simplify as module
from models.image_to_mesh.finishing.edges import is_closed, unpaired
from models.image_to_mesh.finishing.simplify import simplify


def knot(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An iso-surface of a random smooth field: handles, necks and separate pieces; closed."""
    from scipy import ndimage

    field = ndimage.gaussian_filter(rng.standard_normal((side,) * 3), side / 18)
    field /= field.std()
    field[[0, -1]] = field[:, [0, -1]] = field[:, :, [0, -1]] = -3
    vertices, faces, _, _ = marching_cubes(field, 0.3, gradient_direction="ascent")
    return vertices.astype(np.float64) / side, faces.astype(np.int32)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.03])
def test_closed_stays_closed_on_random_surfaces(rng: np.random.Generator, share: float) -> None:
    for side in (40, 64):
        vertices, faces = knot(side, rng)
        assert is_closed(faces)
        budget = int(share * len(faces))
        fewer, triangles = simplify(vertices, faces, budget)
        mesh = trimesh.Trimesh(fewer, triangles, process=False)
        assert mesh.is_watertight and mesh.is_winding_consistent
        assert (mesh.area_faces > 0).all()
        # Dozens of pieces and necks: three faces of a hundred are too few for all of them.
        assert len(triangles) <= budget * (1 if share > 0.05 else 1.5)
        full = trimesh.Trimesh(vertices, faces, process=False)
        assert mesh.volume == pytest.approx(full.volume, rel=0.2)


def test_broken_quadrics_are_replaced_by_a_manifold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that drops a face: the result is closed all the same, and within the budget."""
    mesh = trimesh.creation.icosphere(5)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int32)
    quadric = module._quadric
    monkeypatch.setattr(
        module, "_quadric", lambda *given: (lambda v, f: (v, f[1:]))(*quadric(*given))
    )
    _, triangles = simplify(vertices, faces, 2000)
    assert is_closed(triangles)
    assert 500 < len(triangles) <= 2000


def test_pinched_necks_are_mended() -> None:
    """Two balls that share an edge: four faces at it, as where a neck collapsed."""
    ball = trimesh.creation.icosphere(3)
    faces, vertices = np.asarray(ball.faces, np.int32), np.asarray(ball.vertices)
    a, b = faces[0, :2]
    turned = vertices[a] + vertices[b] - vertices  # about the edge's middle: a <-> b
    other = faces[:, ::-1] + len(vertices)  # a point reflection turns faces over
    other[other == len(vertices) + a], other[other == len(vertices) + b] = b, a
    joined = np.concatenate((faces, other))
    pinched = unpaired(joined)
    assert (len(pinched.irregular), len(pinched.border)) == (1, 0)
    mended = module._mended(np.concatenate((vertices, turned)), joined)
    mesh = trimesh.Trimesh(*mended, process=False)
    assert is_closed(mended[1])
    assert len(mended[1]) < len(joined) + 8
    assert mesh.volume == pytest.approx(2 * ball.volume, rel=0.01)


def test_flat_parts_cost_nothing_and_sharp_edges_stay() -> None:
    mesh = trimesh.creation.box((1, 0.6, 0.4)).subdivide_to_size(0.03)
    fewer, triangles = simplify(np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int32), 60)
    result = trimesh.Trimesh(fewer, triangles, process=False)
    assert result.is_watertight
    assert result.volume == pytest.approx(0.24, rel=1e-6)
    assert result.area == pytest.approx(mesh.area, rel=1e-6)


def test_an_open_mesh_keeps_its_rim() -> None:
    mesh = trimesh.creation.icosphere(5)
    rest = np.asarray(mesh.faces[mesh.triangles_center[:, 2] < 0.5], np.int32)
    fewer, triangles = simplify(np.asarray(mesh.vertices), rest, 1500)
    assert len(triangles) <= 1500
    edges = unpaired(triangles)
    assert len(edges.irregular) == 0
    rim = fewer[edges.border[:, 0]]
    # Its height is within the teeth of the rim that was there, its radius that of a circle.
    assert np.abs(rim[:, 2] - 0.5).max() < 0.06
    assert np.linalg.norm(rim[:, :2], axis=1) == pytest.approx(0.866, abs=0.05)


def test_below_the_budget_nothing_moves() -> None:
    mesh = trimesh.creation.icosphere(3)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int32)
    same, triangles = simplify(vertices, faces, 5000)
    assert len(triangles) == len(faces)
    assert {tuple(p) for p in same} == {tuple(p) for p in vertices}
    opened, triangles = simplify(vertices, faces[1:], 5000)
    assert np.array_equal(opened, vertices) and np.array_equal(triangles, faces[1:])


def test_the_caller_s_arrays_stay_as_they_are() -> None:
    mesh = trimesh.creation.icosphere(4)
    vertices, faces = np.array(mesh.vertices), np.array(mesh.faces, np.int32)
    vertices.flags.writeable = faces.flags.writeable = False
    simplify(vertices, faces, 500)
    assert np.array_equal(vertices, mesh.vertices)


def test_same_input_gives_the_same_mesh(rng: np.random.Generator) -> None:
    vertices, faces = knot(40, rng)
    first, second = (simplify(vertices, faces, 2000) for _ in range(2))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_faces_without_area_are_gone() -> None:
    """Two needles on an edge of a box: closed, but nothing a texture could lie on."""
    box = trimesh.creation.box()
    vertices = np.concatenate((np.asarray(box.vertices), [[0, 0, 0.0]]))
    faces = np.asarray(box.faces, np.int32)
    a, b = faces[0, :2]
    vertices[-1] = (vertices[a] + vertices[b]) / 2 + 1e-12
    other = next(k for k, f in enumerate(faces) if k and {a, b} <= set(f.tolist()))
    split = np.array([[a, b, faces[0, 2]]])
    needles = np.array([[a, 8, b]])
    rest = np.delete(faces, [0, other], axis=0)
    opposite = next(int(v) for v in faces[other] if v not in (a, b))
    halves = np.array([[8, a, opposite], [b, 8, opposite]])
    faces = np.concatenate((rest, split, needles[:, ::-1], halves)).astype(np.int32)
    if not is_closed(faces):
        faces = np.concatenate((rest, split, needles, halves)).astype(np.int32)
    assert is_closed(faces)
    fewer, triangles = simplify(vertices, faces, 100)
    mesh = trimesh.Trimesh(fewer, triangles, process=False)
    assert mesh.is_watertight
    assert mesh.area_faces.min() > 1e-6


def test_a_plate_thinner_than_any_face_may_be_stays() -> None:
    """A ten-millionth of its size: taking away what is that thin took the whole of it."""
    plate = trimesh.creation.box(extents=(1, 1, 1e-7)).subdivide().subdivide()
    _, faces = simplify(plate.vertices, plate.faces.astype(np.int32), 1000)
    assert is_closed(faces)
