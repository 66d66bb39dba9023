"""The union of medial balls: against its definition, and against shapes whose solid is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import trimesh
from scipy import ndimage

from models.image_to_mesh.geometry.medial_balls import (
    ball_field,
    ball_field_reference,
    parabolic_dilation,
    reconstruct,
    uncrop,
)

Draw = Callable[..., np.ndarray]


def solid_of(picture: np.ndarray, **how: float) -> trimesh.Trimesh:
    vertices, faces = reconstruct(picture.astype(np.float32) / 255, **how)
    return trimesh.Trimesh(vertices, faces, process=False)


@pytest.mark.parametrize("attempt", range(4))
def test_field_equals_its_definition(attempt: int, rng: np.random.Generator) -> None:
    noise = ndimage.gaussian_filter(rng.normal(size=(40, 31)), 2.5)
    solid = np.pad(noise > np.quantile(noise, 0.6), 3)
    fast, plain = ball_field(solid), ball_field_reference(solid)
    # float32 of squared distances up to ~1e3: 1e-3 is 10 ulp. Outside, only a band is computed.
    assert np.abs(fast - plain)[plain > -9].max() < 1e-3


def test_dilation_equals_its_definition(rng: np.random.Generator) -> None:
    values = rng.normal(0, 50, (23, 4)).astype(np.float32)
    shift = np.arange(23)[:, None] - np.arange(23)[None, :]
    plain = (values[None] - np.square(shift)[..., None]).max(axis=1)
    assert np.allclose(parabolic_dilation(values, 23), plain, atol=1e-4)


def test_a_disc_becomes_a_ball(drawn: Draw) -> None:
    ball = solid_of(drawn(lambda x, y: np.hypot(x - 0.1, y + 0.2) < 0.5, 320), field_of_view=0)
    # The largest circle inside a disc drawn in pixels is up to a pixel of 80 smaller: 1.2 % of the
    # radius along z, half of it across.
    assert ball.volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.03)
    assert np.allclose(ball.bounds, [[-0.4, -0.7, -0.5], [0.6, 0.3, 0.5]], atol=0.01)
    assert ball.is_watertight
    assert ball.is_winding_consistent


def test_a_ring_keeps_its_hole(drawn: Draw) -> None:
    ring = solid_of(drawn(lambda x, y: np.abs(np.hypot(x, y) - 0.6) < 0.15, 240), field_of_view=0)
    assert ring.is_watertight
    assert ring.euler_number == 0  # a torus
    assert ring.volume == pytest.approx(2 * np.pi**2 * 0.6 * 0.15**2, rel=0.05)


def test_detached_parts_stay_detached(drawn: Draw) -> None:
    parts = solid_of(drawn(lambda x, y: np.hypot(np.abs(x) - 0.5, y) < 0.25))
    assert parts.is_watertight
    assert len(parts.split()) == 2


@pytest.mark.parametrize("kind", ["touches the border", "a thin line", "fills the image"])
def test_awkward_outlines_close(kind: str, drawn: Draw) -> None:
    shapes = {
        "touches the border": lambda x, y: (np.abs(x) < 0.4) & (y > -0.5),
        "a thin line": lambda x, y: np.abs(y - 0.5 * x) < 0.02,
        "fills the image": lambda x, y: np.full_like(x, True, bool),
    }
    solid = solid_of(drawn(shapes[kind]))
    assert solid.is_watertight
    assert solid.volume > 0


@pytest.mark.parametrize("field_of_view", [0.0, 30.0, 70.0])
def test_the_camera_sees_the_outline_it_was_given(field_of_view: float, drawn: Draw) -> None:
    picture = drawn(lambda x, y: np.hypot((x - 0.3) / 0.5, (y - 0.4) / 0.3) < 1, 240)
    vertices, _ = reconstruct(picture.astype(np.float32) / 255, field_of_view)
    tangent = np.tan(np.radians(field_of_view / 2))
    seen = vertices[:, :2] / (1 - vertices[:, 2:] * tangent)
    rows, columns = np.nonzero(picture[..., 3])
    # Outer pixel edges, found to half a pixel (1/120 each): the grid's corners are rounded.
    assert np.allclose(
        seen.max(axis=0), [(columns.max() + 1) / 120 - 1, 1 - rows.min() / 120], atol=0.004
    )
    assert np.allclose(
        seen.min(axis=0), [columns.min() / 120 - 1, 1 - (rows.max() + 1) / 120], atol=0.004
    )


def test_uncrop_keeps_the_image_plane() -> None:
    points = np.array([[0.5, -0.25, 0.0], [0.5, 0.5, 1.0]])
    moved = uncrop(points, 90.0)
    assert np.allclose(moved, [[0.5, -0.25, 0.0], [0.0, 0.0, 1.0]])  # at z = 1 the camera itself
