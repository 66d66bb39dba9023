"""Masks: alpha where it speaks, plain backgrounds found, others refused with advice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.context import InvalidInput
from models.image_to_mesh.preprocess.decode import Picture
from models.image_to_mesh.preprocess.mask import Cutout, cut_out

Draw = Callable[..., np.ndarray]
SIDE = 200


def blob(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An object with a handle: a disc, and a ring beside it."""
    ring = np.hypot(x - 0.5, y)
    return (np.hypot(x + 0.15, y) < 0.45) | ((ring < 0.3) & (ring > 0.17))


def photo(drawn: Draw, background: np.ndarray, noise: np.ndarray) -> tuple[Picture, np.ndarray]:
    picture = drawn(blob, SIDE)
    inside = picture[..., 3] > 0
    rgb = np.where(inside[..., None], (190, 70, 40), background) + noise
    pixels = np.dstack([np.clip(rgb, 0, 255), np.full((SIDE, SIDE), 255)]).astype(np.uint8)
    return Picture("photo.jpg", pixels), inside


def overlap(cutout: Cutout, inside: np.ndarray) -> float:
    found = cutout.rgba[..., 3] >= 0.5
    return float((found & inside).sum() / (found | inside).sum())


def test_alpha_is_used_as_it_is(drawn: Draw) -> None:
    pixels = drawn(blob)
    cutout = cut_out(Picture("a.png", pixels))
    assert (cutout.source, cutout.confidence) == ("alpha", 1.0)
    assert np.array_equal(cutout.rgba[..., 3] > 0.5, pixels[..., 3] > 0)


@pytest.mark.parametrize("kind", ["white", "gradient", "noisy grey"])
def test_plain_background_is_found(kind: str, drawn: Draw, rng: np.random.Generator) -> None:
    ramp = np.linspace(0, 1, SIDE)[:, None, None]
    background = {
        "white": np.full((SIDE, SIDE, 3), 250.0),
        "gradient": (120 + 90 * ramp) * np.ones((SIDE, SIDE, 3)),
        "noisy grey": np.full((SIDE, SIDE, 3), 128.0),
    }[kind]
    spread = 6.0 if kind == "noisy grey" else 1.5
    picture, inside = photo(drawn, background, rng.normal(0, spread, (SIDE, SIDE, 3)))
    cutout = cut_out(picture)
    assert cutout.source == "background"
    assert cutout.confidence >= 0.5
    # 0.95: the ring's outline is long against its area; one pixel all around costs 4 %.
    assert overlap(cutout, inside) > 0.95


@pytest.mark.parametrize("kind", ["checkers", "foliage"])
def test_textured_background_is_refused(kind: str, drawn: Draw, rng: np.random.Generator) -> None:
    cells = rng.integers(0, 255, (25, 25, 3)).astype(float)
    board = (np.indices((25, 25)).sum(axis=0) % 2)[..., None] * np.full(3, 200.0)
    background = np.kron(cells if kind == "foliage" else board, np.ones((8, 8, 1)))
    picture, _ = photo(drawn, background, np.zeros((SIDE, SIDE, 3)))
    with pytest.raises(InvalidInput) as caught:
        cut_out(picture)
    assert caught.value.code == "background_not_separable"
    assert "photo.jpg" in caught.value.message
    assert "transparency" in caught.value.next_step


def test_object_of_the_background_colour_is_refused(drawn: Draw, rng: np.random.Generator) -> None:
    noise = rng.normal(0, 4, (SIDE, SIDE, 3))
    picture, _ = photo(drawn, np.broadcast_to((192.0, 74, 44), (SIDE, SIDE, 3)), noise)
    with pytest.raises(InvalidInput) as caught:
        cut_out(picture)
    assert caught.value.code == "background_not_separable"


@pytest.mark.parametrize(
    ("pixels", "code"),
    [
        (np.zeros((64, 64, 4), np.uint8), "image_transparent"),
        (np.full((64, 64, 4), 255, np.uint8), "background_not_separable"),
    ],
    ids=["all transparent", "one opaque colour"],
)
def test_nothing_to_see_is_refused(pixels: np.ndarray, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        cut_out(Picture("a.png", pixels))
    assert caught.value.code == code


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (1, 40), (40, 1)])
def test_object_of_a_few_pixels_is_refused(height: int, width: int) -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[10 : 10 + height, 12 : 12 + width] = 255
    with pytest.raises(InvalidInput) as caught:
        cut_out(Picture("a.png", pixels))
    assert caught.value.code == "object_too_small"
    assert f"{width}x{height}" in caught.value.message


def test_specks_are_dropped_and_counted(drawn: Draw) -> None:
    pixels = drawn(blob)
    pixels[2:4, 2:3, 3] = 255
    pixels[-4, -4, 3] = 255
    cutout = cut_out(Picture("a.png", pixels))
    assert cutout.rgba[:8, :8, 3].max() == 0
    assert "2 detached speck(s)" in cutout.notes[0]


def test_object_cut_by_the_border_is_reported(drawn: Draw) -> None:
    cutout = cut_out(Picture("a.png", drawn(lambda x, y: np.abs(x) < 0.3)))
    assert "top, bottom of the image" in cutout.notes[0]
