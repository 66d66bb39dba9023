"""Closing holes: always a manifold, on the surface that was there, in the colours around."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from models.image_to_mesh.finishing.edges import compact, is_closed, unpaired
from models.image_to_mesh.finishing.holes import fill_holes
from models.image_to_mesh.finishing.patch import patch


def sphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions)
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)


def edges_of(faces: np.ndarray) -> Counter:
    """Plain count of each directed edge."""
    return Counter((int(f[k]), int(f[(k + 1) % 3])) for f in faces for k in range(3))


def cap_removed(subdivisions: int, height: float) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = sphere(subdivisions)
    return vertices, faces[~(vertices[faces].mean(axis=1)[:, 2] > height)]


def test_unpaired_edges_against_a_plain_count(rng: np.random.Generator) -> None:
    for _ in range(50):
        faces = rng.integers(0, 9, (rng.integers(1, 25), 3)).astype(np.int32)
        faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
        directed = edges_of(faces)
        sides = Counter()
        for (a, b), times in directed.items():
            sides[min(a, b), max(a, b)] += times
        border = sorted((min(e), max(e), e) for e in directed if sides[min(e), max(e)] == 1)
        irregular = sorted(
            (a, b) for (a, b), n in sides.items() if n > 1 and (n > 2 or directed[a, b] != 1)
        )
        found = unpaired(faces)
        assert [tuple(e) for e in found.border] == [e for _, _, e in border]
        assert [tuple(e) for e in found.irregular] == irregular
        assert is_closed(faces) == (len(faces) > 0 and not border and not irregular)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.floats(0.01, 0.7))
def test_whatever_is_missing_the_result_is_closed(seed: int, share: float) -> None:
    """Faces out at random: holes that touch, bow ties, islands, diagonals that exist."""
    vertices, faces = sphere(2)  # 320 faces
    rest = faces[np.random.default_rng(seed).random(len(faces)) >= share]
    filled = fill_holes(vertices, rest, largest=100)
    assert filled.left == 0
    directed = edges_of(filled.faces)
    lone = {frozenset(f) for f in rest.tolist()}  # a lone face is closed by its own back
    backs = sum(frozenset(f) in lone for f in filled.faces[len(rest) :].tolist())
    assert all(directed[b, a] == n for (a, b), n in directed.items())
    assert max(directed.values()) == 1 or backs


@pytest.mark.parametrize("count", [4, 6, 9, 30, 150])
def test_a_patch_uses_no_edge_that_exists(rng: np.random.Generator, count: int) -> None:
    """Flat, folded and long loops, with few or many diagonals that the mesh has already."""
    for crowd in (0.0, 0.1, 0.5, 0.95):
        angle = np.sort(rng.uniform(0, 2 * np.pi, count))
        size = rng.uniform(0.3, 3, count)
        loop = np.stack((np.cos(angle) * size, np.sin(angle) * size, rng.normal(0, 1, count)), 1)
        taken = rng.random((count, count)) < crowd
        taken |= taken.T
        made = patch(loop, taken)
        directed = edges_of(made.triangles)
        assert max(directed.values()) == 1
        rim = {(k, (k + 1) % count) for k in range(count)}
        assert {edge for edge in directed if edge[::-1] not in directed} == rim
        inner = [e for e in directed if e not in rim and e[::-1] not in rim and max(e) < count]
        assert not any(taken[edge] for edge in inner)


@pytest.mark.parametrize("height", [0.98, 0.9, 0.5])
def test_a_sphere_gets_its_cap_back(height: float) -> None:
    """The patch continues the curvature: the volume comes back, which a flat lid would not give."""
    vertices, rest = cap_removed(4, height)
    filled = fill_holes(vertices, rest, largest=10)
    mesh = trimesh.Trimesh(filled.vertices, filled.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    whole = 4 / 3 * np.pi
    cap = np.pi * (1 - height) ** 2 * (2 + height) / 3
    assert abs(mesh.volume - whole) < 0.012 * whole + 0.3 * cap
    # As fine as the mesh around: neither thin triangles over the hole nor a crowd of vertices.
    fresh = mesh.area_faces[len(rest) :]
    assert 0.4 < len(fresh) / (5120 - len(rest)) < 2.5


def test_patch_of_a_plane_is_flat_and_its_colours_are_the_plane_s() -> None:
    """A linear field of colours is harmonic: it comes back in the hole, where vertices are even."""
    ticks = np.linspace(0, 1, 41)
    grid = np.stack(np.meshgrid(ticks, ticks, [0.0], indexing="ij"), axis=-1).reshape(-1, 3)
    at = np.arange(40)[:, None] * 41 + np.arange(40)
    quads = np.stack((at, at + 41, at + 42, at + 1), axis=-1).reshape(-1, 4)
    faces = np.concatenate((quads[:, [0, 1, 2]], quads[:, [0, 2, 3]])).astype(np.int32)
    middle = grid[faces].mean(axis=1)
    rest = faces[np.linalg.norm(middle - (0.5, 0.5, 0), axis=1) > 0.15]
    colours = grid * (0.6, 0.8, 0) + (0.2, 0.1, 0.3)
    filled = fill_holes(grid, rest, colours, largest=1.0)
    assert filled.closed == 1
    assert filled.left == 1  # the outer border
    fresh = filled.vertices[len(grid) :]
    assert len(fresh) > 30
    assert np.abs(fresh[:, 2]).max() < 1e-9
    expected = fresh * (0.6, 0.8, 0) + (0.2, 0.1, 0.3)
    assert np.abs(filled.attributes[len(grid) :] - expected).max() < 0.02


def test_what_was_there_stays_as_it_was(rng: np.random.Generator) -> None:
    vertices, rest = cap_removed(3, 0.8)
    colours = rng.random((len(vertices), 3)).astype(np.float32)
    filled = fill_holes(vertices, rest, colours, largest=10)
    assert filled.vertices.dtype == filled.attributes.dtype == np.float32
    assert np.array_equal(filled.vertices[: len(vertices)], vertices)
    assert np.array_equal(filled.attributes[: len(vertices)], colours)
    assert np.array_equal(filled.faces[: len(rest)], rest)
    fresh = filled.attributes[len(vertices) :]
    border = np.unique(unpaired(rest).border)
    assert (fresh >= colours[border].min(axis=0) - 1e-6).all()
    assert (fresh <= colours[border].max(axis=0) + 1e-6).all()


def test_large_holes_stay_open() -> None:
    """Rims at 60 and 20 degrees from the pole: lengths of 5.4 and 2.1."""
    vertices, faces = sphere(4)
    height = vertices[faces].mean(axis=1)[:, 2]
    rest = faces[(height < np.cos(np.radians(20))) & (height > -np.cos(np.radians(60)))]
    filled = fill_holes(vertices, rest, largest=3.5 / (2 * 3**0.5))
    assert (filled.closed, filled.left) == (1, 1)
    rim = vertices[unpaired(filled.faces).border[:, 0]]
    assert (rim[:, 2] < -0.4).all()


def test_long_rims_are_closed_without_the_cubic_search() -> None:
    vertices, rest = cap_removed(6, 0.3)
    rim = len(unpaired(rest).border)
    assert rim > 200
    filled = fill_holes(vertices, rest, largest=10)
    mesh = trimesh.Trimesh(filled.vertices, filled.faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=0.12)


def test_same_input_gives_the_same_mesh() -> None:
    vertices, rest = cap_removed(4, 0.5)
    first, second = (fill_holes(vertices, rest, largest=10) for _ in range(2))
    assert np.array_equal(first.faces, second.faces)
    assert np.array_equal(first.vertices, second.vertices)


def test_compact_leaves_out_what_no_face_uses(rng: np.random.Generator) -> None:
    vertices, faces = sphere(2)
    some = faces[rng.random(len(faces)) < 0.2]
    fewer, renumbered, (colours,) = compact(vertices, some, vertices * 2)
    assert len(fewer) == len(np.unique(some))
    assert np.array_equal(fewer[renumbered], vertices[some])
    assert np.array_equal(colours, fewer * 2)
