"""The arranged order: a permutation, chosen for coded bytes, kept only where it pays."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog import layout
from models.splat_to_sog.order import arrange, hilbert_order
from models.splat_to_sog.order import walk as walking
from models.splat_to_sog.order.arrangement import coded_bits
from models.splat_to_sog.order.walk import walk, walk_reference
from models.splat_to_sog.webp import encode_webp


@pytest.fixture
def scene(rng):
    """Splats on a wavy sheet: dark and large or bright and small, whatever their place."""
    n = 6000
    steps = np.empty((n, 3), np.uint16)
    steps[:, :2] = rng.integers(0, 1 << 16, (n, 2))
    steps[:, 2] = 30000 + 9000 * np.sin(steps[:, 0] / 9000)
    bright = rng.random(n)
    noise = rng.integers(0, 5, (7, n))
    up, down = 240 * bright, 240 * (1 - bright)  # no channel follows green
    sh0 = np.stack([up, down, up, down] + noise[:4], axis=1).astype(np.uint8)
    scales = np.stack([up, down, up] + noise[4:], axis=1).astype(np.uint8)
    high = (steps >> 8).astype(np.uint8)
    return {"means_u": high, "scales": scales, "sh0": sh0}, hilbert_order(steps)


def coordinates_of(values):
    return lambda rows: values[:, rows]


@pytest.mark.parametrize(("n", "span"), [(1, 8), (2, 8), (7, 8), (64, 8), (301, 50), (300, 300)])
def test_the_walk_equals_its_reference(rng, n: int, span: int) -> None:
    values = rng.integers(0, 9, (3, n), dtype=np.int16)  # small: many ties
    order = rng.permutation(n)
    found = walk(coordinates_of(values), order, span)
    np.testing.assert_array_equal(found, walk_reference(coordinates_of(values), order, span))
    assert sorted(found.tolist()) == list(range(n))


def test_the_walk_does_not_depend_on_groups_and_threads(rng, monkeypatch) -> None:
    values = rng.integers(0, 99, (3, 4000), dtype=np.int16)
    order = np.arange(4000)
    whole = walk(coordinates_of(values), order, 64)
    monkeypatch.setattr(walking, "GROUP_SPLATS", 200)
    for threads in (1, 3):
        monkeypatch.setattr(walking, "MAX_THREADS", threads)
        np.testing.assert_array_equal(walk(coordinates_of(values), order, 64), whole)


def test_an_arranged_scene_takes_fewer_bytes_and_the_report_says_about_how_many(scene) -> None:
    textures, curve = scene
    found = arrange(textures, curve)
    assert sorted(found.order.tolist()) == list(range(len(curve)))
    assert found.report["method"] == "walk"
    assert set(found.report["sorted_by"]) == {"means_u", "scales", "sh0"}
    taken = [_coded_bytes(textures, order) for order in (curve, found.order)]
    assert taken[1] < 0.9 * taken[0]
    # The estimate has no headers and no fractions of bits: within a quarter of what is saved.
    saved = 8 * (taken[0] - taken[1]) / len(curve)
    assert found.report["saved_bits_per_splat"] == pytest.approx(saved, rel=0.25)


def test_what_resembles_nothing_is_left_out(scene, rng) -> None:
    textures, curve = scene
    noise = rng.integers(0, 200, (len(curve), 4), dtype=np.uint8)
    assert "quats" not in arrange({**textures, "quats": noise}, curve).report["sorted_by"]


def test_the_given_order_stays_where_nothing_pays(rng) -> None:
    """Noise and constants; and a line, on which the order is the best walk already."""
    n = 3000
    kept = {"method": "given", "sorted_by": [], "saved_bits_per_splat": 0.0}
    noise = rng.integers(0, 256, (n, 3), dtype=np.uint8)
    line = np.repeat(np.arange(n)[:, None] // 12, 3, axis=1).astype(np.uint8)
    for textures in ({"a": noise, "b": np.full((n, 4), 200, np.uint8)}, {"a": line}):
        found = arrange(textures, np.arange(n))
        np.testing.assert_array_equal(found.order, np.arange(n))
        assert found.report == kept


def test_no_span_keeps_the_order(scene) -> None:
    textures, curve = scene
    np.testing.assert_array_equal(arrange(textures, curve, span=0).order, curve)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_a_handful_of_splats(rng, n: int) -> None:
    colours = rng.integers(0, 256, (n, 4), dtype=np.uint8)
    found = arrange({"sh0": colours}, np.arange(n))
    assert sorted(found.order.tolist()) == list(range(n))


def test_same_scene_same_order(scene) -> None:
    np.testing.assert_array_equal(arrange(*scene).order, arrange(*scene).order)


def test_coded_bits_of_known_texels(rng) -> None:
    """A constant channel is free, another takes its entropy, and at least a bit."""
    n = 1 << 16
    texels = np.zeros((n, 4), np.uint8)
    assert coded_bits(texels) == 0
    texels[:, 0] = rng.integers(0, 16, n)
    assert coded_bits(texels) / n == pytest.approx(4, abs=0.01)
    texels[:50, 3] = 1
    assert coded_bits(texels) / n == pytest.approx(5, abs=0.01)


def _coded_bytes(textures, order) -> int:
    width, height = layout.texture_size(len(order))
    return sum(
        len(encode_webp(layout.to_texture(values[order], width, height)))
        for values in textures.values()
    )
