"""Normal maps: tangents and the map's convention, read back by a viewer's formula."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from models.image_to_mesh.finishing.normal_map import encode_normals, tangents
from models.image_to_mesh.finishing.normals import vertex_normals
from models.image_to_mesh.finishing.texels import Texels, cover, interpolate
from models.image_to_mesh.finishing.uv import unwrap_charts


def shown(texels: Texels, faces, normals, tangent, picture) -> np.ndarray:  # -> (P, 3) unit
    """What a viewer shades with (glTF 2.0, section 3.9.3; three.js and the sample viewer alike)."""

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    n = unit(interpolate(texels.face, texels.weights, faces, normals))
    t = unit(interpolate(texels.face, texels.weights, faces, tangent[:, :3].copy()))
    b = unit(np.cross(n, t)) * tangent[faces[texels.face, 0], 3:]
    x, y, z = (picture / 127.5 - 1).T[..., None]
    return unit(x * t + y * b + z * n)


def plane(mirrored: bool = False) -> tuple[np.ndarray, ...]:
    """A square in x and y that faces +z; the texture lies upright on it, or turned over."""
    positions = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    u = 1 - positions[:, 0] if mirrored else positions[:, 0]
    uv = np.stack((u, 1 - positions[:, 1]), 1).astype(np.float32)
    return positions, faces, uv, np.tile(np.array([0, 0, 1], np.float32), (4, 1))


@pytest.mark.parametrize(("mirrored", "hand"), [(False, 1), (True, -1)])
def test_tangent_points_along_growing_u(mirrored: bool, hand: int) -> None:
    positions, faces, uv, normals = plane(mirrored)
    expected = np.tile((hand, 0, 0, hand), (4, 1))
    assert tangents(positions, normals, uv, faces) == pytest.approx(expected, abs=1e-6)


def test_how_a_flat_part_is_cut_up_has_no_effect() -> None:
    """At a vertex of two flat parts whose u grows in two directions; one is whole or in three."""
    angle = np.radians(40)
    parts = [
        (np.array([(0, 0), (-1, -1), (0, -1)]), 0.0),
        (np.array([(0, 0), (0, -1), (0.3, -0.9), (0.5, -0.5), (1, 0)]), angle),
    ]
    results = []
    for cuts in ([(0, 1, 4)], [(0, 1, 2), (0, 2, 3), (0, 3, 4)]):
        positions, uv, faces = [], [], []
        for index, (corners, turn) in enumerate(parts):
            rotation = np.array(((np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))))
            start = 3 * index
            positions += [(*corner, 0) for corner in corners]
            uv += (corners @ rotation.T * (0.1, -0.1) + 0.5).tolist()
            for cut in [(0, 1, 2)] if index == 0 else cuts:
                faces.append([start + k if k else 0 for k in cut])
        normals = np.tile(np.array([0, 0, 1], np.float32), (len(positions), 1))
        results.append(
            tangents(
                np.array(positions, np.float32), normals, np.array(uv, np.float32),
                np.array(faces, np.int32),
            )[0]
        )  # fmt: skip
    assert results[0] == pytest.approx(results[1], abs=1e-6)
    between = np.degrees(np.arctan2(results[0][1], results[0][0]))
    assert 1 < abs(between) < 39  # of both parts


def test_green_points_up_and_red_to_the_right() -> None:
    """On an upright picture a slope that looks up is green, one that looks right is red."""
    positions, faces, uv, normals = plane()
    tangent = tangents(positions, normals, uv, faces)
    texels = cover(uv, faces, 8)
    for direction, channel in (((0, 1, 1), 1), ((1, 0, 1), 0)):
        slope = np.tile(np.array(direction, np.float32), (len(texels.index), 1))
        colour = encode_normals(texels, faces, normals, tangent, slope)
        # sin 45 degrees as a byte: 127.5 + 127.5 * 0.7071
        expected = [127.5, 127.5, 218]
        expected[channel] = 218
        assert np.abs(colour - np.array(expected)).max() <= 1


def test_a_viewer_gets_back_what_was_baked(rng: np.random.Generator) -> None:
    """Directions within 60 degrees of a ball's surface, over seams and stretched charts."""
    ball = trimesh.creation.icosphere(3)
    vertices, faces = (ball.vertices * (1, 0.7, 0.4)).astype(np.float32), ball.faces.astype("i4")
    charts = unwrap_charts(vertices, faces, 256)
    normals = vertex_normals(vertices, faces).astype(np.float32)[charts.source]
    tangent = tangents(vertices[charts.source], normals, charts.uv, charts.faces)
    assert np.linalg.norm(tangent[:, :3], axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs((tangent[:, :3] * normals).sum(1)).max() < 1e-5
    texels = cover(charts.uv, charts.faces, 256)
    wanted = interpolate(texels.face, texels.weights, charts.faces, normals)
    wanted += rng.normal(size=wanted.shape).astype(np.float32) * 0.3
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    picture = encode_normals(texels, charts.faces, normals, tangent, wanted)
    got = shown(texels, charts.faces, normals, tangent, picture)
    angle = np.degrees(np.arccos(np.clip((got * wanted).sum(1), -1, 1)))
    # Half a step of 8 bits in each of three axes is 0.4 degrees; what points inward is laid flat.
    assert np.percentile(angle, 99) < 0.6
    assert np.median(angle) < 0.3
