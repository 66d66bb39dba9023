"""Crumbs and hidden pieces go, what can be seen stays, and nothing closed is opened."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from models.image_to_mesh.finishing.edges import is_closed
from models.image_to_mesh.finishing.pieces import pieces, remove_floating, remove_hidden

Parts = list[trimesh.Trimesh]


def together(parts: Parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, shuffled faces, and which part each face is of."""
    whole = trimesh.util.concatenate(parts)
    part = np.repeat(np.arange(len(parts)), [len(p.faces) for p in parts])
    order = np.random.default_rng(0).permutation(len(part))
    return (
        np.asarray(whole.vertices, np.float32),
        np.asarray(whole.faces, np.int32)[order],
        part[order],
    )


def ball(
    radius: float, at: tuple[float, float, float] = (0, 0, 0), fine: int = 3
) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(fine, radius)
    mesh.apply_translation(at)
    return mesh


def turned_in(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)


def kept(parts: Parts, change) -> list[int]:
    """Which parts are left, each whole."""
    vertices, faces, part = together(parts)
    left = {tuple(f) for f in change(vertices, faces).tolist()}
    shares = [
        np.mean([tuple(f) in left for f in faces[part == k].tolist()]) for k in range(len(parts))
    ]
    assert set(shares) <= {0.0, 1.0}
    return [k for k, share in enumerate(shares) if share]


def test_pieces_are_those_of_a_plain_search(rng: np.random.Generator) -> None:
    for _ in range(30):
        faces = rng.integers(0, 60, (rng.integers(1, 30), 3)).astype(np.int32)
        label, count = pieces(faces, 60)
        groups: list[set[int]] = []
        for face in faces.tolist():
            hit = [g for g in groups if g & set(face)]
            groups = [g for g in groups if g not in hit] + [set(face).union(*hit)]
        assert count == len(groups) == len(np.unique(label))
        assert (np.diff(np.maximum.accumulate(label), prepend=-1) <= 1).all()  # by first face
        for group in groups:
            inside = [k for k, face in enumerate(faces.tolist()) if face[0] in group]
            assert len(set(label[inside].tolist())) == 1


def test_crumbs_go_and_parts_stay() -> None:
    crumbs = [ball(0.01, (0.1 * k, 1.5, 0), 1) for k in range(20)]
    parts = [ball(1), ball(0.2, (2, 0, 0)), *crumbs]
    assert kept(parts, remove_floating) == [0, 1]


def test_a_thin_sheet_counts_by_its_area_and_a_crumb_by_its_volume() -> None:
    sheet = trimesh.Trimesh([[0, 0, 3], [1, 0, 3], [0, 1, 3]], [[0, 1, 2]], process=False)
    assert kept([ball(1), sheet], remove_floating) == [0, 1]
    # A foam of large area beside a ball: the ball is a twentieth of the area, most of the volume.
    foam = trimesh.creation.box((10, 10, 0.001))
    assert kept([foam, ball(0.2)], lambda v, f: remove_floating(v, f, 0.05)) == [0, 1]


def test_the_largest_piece_stays_whatever_the_share() -> None:
    assert kept([ball(1), ball(0.9, (3, 0, 0))], lambda v, f: remove_floating(v, f, 2.0)) == [0]


def test_one_piece_is_handed_back() -> None:
    vertices, faces, _ = together([ball(1)])
    assert remove_floating(vertices, faces) is faces
    assert remove_hidden(vertices, faces) is faces


def test_shells_inside_a_closed_surface_go() -> None:
    """However thin the wall: here a fiftieth of a pixel."""
    parts = [ball(1), turned_in(ball(0.9999)), ball(0.3, (0.2, 0.1, 0)), ball(0.05, (0, 0, 0.8), 1)]
    assert kept(parts, remove_hidden) == [0]


def test_what_shows_through_an_opening_stays() -> None:
    """A ball in a bowl, and a ball that sticks out of another by a tenth of its radius."""
    bowl = ball(1, fine=4)
    bowl.update_faces(bowl.triangles_center[:, 1] < 0.6)
    assert kept([bowl, ball(0.3)], remove_hidden) == [0, 1]
    assert kept([ball(1), ball(0.5, (0.55, 0, 0))], remove_hidden) == [0, 1]


def test_a_pinhole_does_not_show_what_is_inside() -> None:
    holed = ball(1, fine=5)
    mask = np.ones(len(holed.faces), bool)
    mask[1234] = False
    holed.update_faces(mask)
    assert kept([holed, turned_in(ball(0.8))], remove_hidden) == [0]


def test_orientation_and_scale_do_not_matter(rng: np.random.Generator) -> None:
    parts = [ball(1), ball(0.5), ball(0.3, (0, 1.6, 0))]
    vertices, faces, _ = together(parts)
    expected = remove_hidden(vertices, faces)
    turn = trimesh.transformations.random_rotation_matrix(rng.random(3))[:3, :3]
    moved = (vertices @ turn.T * 1e-3 + (5, -3, 2)).astype(np.float32)
    assert np.array_equal(remove_hidden(moved, faces), expected)
    assert np.array_equal(remove_hidden(vertices, faces[:, ::-1])[:, ::-1], expected)


def test_what_was_closed_stays_closed() -> None:
    vertices, faces, _ = together([ball(1), ball(0.4, (0.1, 0, 0)), ball(0.02, (3, 0, 0), 1)])
    assert is_closed(remove_hidden(vertices, remove_floating(vertices, faces)))


@pytest.mark.parametrize("side_px", [64, 512])
def test_a_piece_below_a_pixel_is_not_judged(side_px: int) -> None:
    assert 1 in kept(
        [ball(1), ball(1e-5, (1.5, 0, 0), 0)], lambda v, f: remove_hidden(v, f, side_px=side_px)
    )
