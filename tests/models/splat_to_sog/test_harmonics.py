"""Harmonics as coded: their price, the order of entries, what is read back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.splat_to_sog.harmonics import (
    TRUST,
    code_harmonics,
    harmonics_price,
    trusted,
)
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.presets import FEW_WITH_HARMONICS
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.webp import ENTRIES, encode_webp


def scene(rng, n: int, degree: int = 3) -> Splats:
    k = (degree + 1) ** 2 - 1
    return Splats(
        means=rng.normal(size=(n, 3)).astype(np.float32),
        scales=rng.normal(-4, 0.5, (n, 3)).astype(np.float32),
        quats=rng.normal(size=(n, 4)).astype(np.float32),
        opacities=rng.normal(1, 2, n).astype(np.float32),
        sh0=rng.normal(size=(n, 3)).astype(np.float32),
        shN=(rng.laplace(size=(n, 3, k)) * 0.1).astype(np.float32),
    )


def coded(splats, worth, price=None, preset="quality", **options):
    """At this price, or at that of the preset."""
    if price is None:
        price = harmonics_price(splats, worth, FEW_WITH_HARMONICS[preset].share)
    options = SogOptions(**options)
    return code_harmonics(splats, worth, price, options, "cpu", lambda stage, fraction: None)


def loss(splats, worth, harmonics) -> float:
    gap = (harmonics.decoded() - splats.shN).astype(np.float64)
    return float(worth @ (gap**2).sum(axis=(1, 2)))


@pytest.fixture
def worth(rng):
    return rng.lognormal(-10, 1, 3000).astype(np.float32)


def test_price_is_a_share_of_the_mean_error_without_harmonics(rng, worth) -> None:
    splats = scene(rng, 3000)
    without = float(worth.astype(np.float64) @ (splats.shN.astype(np.float64) ** 2).sum((1, 2)))
    price = harmonics_price(splats, worth, 2e-3)
    assert price == pytest.approx(2e-3 * without / 3000, rel=1e-5)


def test_price_follows_the_scale_of_scene_and_worth(rng, worth) -> None:
    """So that a preset's loss in dB of the harmonics' own picture is the same in every scene."""
    splats = scene(rng, 3000)
    louder = replace(splats, shN=splats.shN * np.float32(4))
    plain = harmonics_price(splats, worth, 1e-3)
    assert harmonics_price(louder, worth, 1e-3) == pytest.approx(16 * plain)
    assert harmonics_price(splats, worth * 8, 1e-3) == pytest.approx(8 * plain)


def test_smaller_presets_lose_more_and_store_less(rng, worth) -> None:
    splats = scene(rng, 3000)
    made = [coded(splats, worth, preset=preset) for preset in ("quality", "small", "tiny")]
    losses = [loss(splats, worth, harmonics) for harmonics in made]
    assert losses[0] < 0.6 * losses[1] < 0.6 * losses[2]
    values = [len(np.unique(harmonics.indices)) for harmonics in made]
    assert values[0] > values[2]


def test_a_target_pays_the_price_it_is_given(rng, worth) -> None:
    splats = scene(rng, 3000)
    exact = coded(splats, worth, price=1e-15)
    # What is left: 241 values over the whole span of the entries.
    assert loss(splats, worth, exact) < 0.1 * loss(splats, worth, coded(splats, worth))


def test_decoded_are_the_entries_that_the_labels_name(rng, worth) -> None:
    splats = scene(rng, 3000, degree=2)
    harmonics = coded(splats, worth, preset="tiny")
    texels = harmonics.palette_texture()
    height, width, _ = texels.shape
    assert width == 64 * 8
    bytes_ = harmonics.label_bytes().astype(np.intp)
    for splat in (0, 7, 2999):
        label = bytes_[splat, 0] + 256 * bytes_[splat, 1]
        row, column = divmod(label, 64)
        stored = texels[row, 8 * column : 8 * column + 8]  # [K, 3]
        expected = harmonics.book.decode(stored).T
        np.testing.assert_array_equal(harmonics.decoded()[splat], expected)


def test_own_entries_follow_their_splats(rng, worth) -> None:
    splats = scene(rng, 3000)
    harmonics = coded(splats, worth, price=1e-12)
    order = rng.permutation(3000)
    along = harmonics.along(order)
    assert harmonics.own
    np.testing.assert_array_equal(along.labels[order], np.arange(3000))
    np.testing.assert_array_equal(along.decoded(), harmonics.decoded())


def test_equal_splats_share_their_own_entry(rng) -> None:
    splats = scene(rng, 3000)
    twice = replace(splats, shN=splats.shN[rng.integers(0, 1500, 3000)])
    harmonics = coded(twice, np.ones(3000, np.float32), price=1e-9)
    distinct = len(np.unique(twice.shN.reshape(3000, -1), axis=0))
    order = rng.permutation(3000)
    along = harmonics.along(order)
    assert len(along.indices) == distinct
    np.testing.assert_array_equal(along.decoded(), harmonics.decoded())
    fresh = np.sort(np.unique(along.labels[order], return_index=True)[1])
    np.testing.assert_array_equal(along.labels[order][fresh], np.arange(distinct))


def test_a_shared_palette_keeps_its_order(rng, worth) -> None:
    harmonics = coded(scene(rng, 3000), worth, preset="tiny", palette_size=200)
    assert not harmonics.own
    assert harmonics.along(rng.permutation(3000)) is harmonics


def test_trusted_worth_differs_less_and_means_the_same_error(rng, worth) -> None:
    splats = scene(rng, 3000)
    found = trusted(splats, worth).astype(np.float64)
    energy = (splats.shN.astype(np.float64) ** 2).sum((1, 2))
    assert found @ energy == pytest.approx(worth @ energy, rel=1e-5)
    expected = TRUST * np.diff(np.log(worth.astype(np.float64)))
    np.testing.assert_allclose(np.diff(np.log(found)), expected, atol=1e-5)  # float32


def test_harmonics_that_are_all_zero_have_a_trusted_worth(rng, worth) -> None:
    black = replace(scene(rng, 3000), shN=np.zeros((3000, 3, 15), np.float32))
    np.testing.assert_array_equal(trusted(black, worth), worth)


def test_own_entries_of_one_step_follow_each_other(rng, worth) -> None:
    splats = scene(rng, 3000)
    harmonics = coded(splats, worth)
    order = rng.permutation(3000)
    runs = harmonics.in_runs(order)
    assert np.array_equal(np.sort(runs), np.arange(3000))
    place = np.argsort(order)
    octave = harmonics.octave
    assert octave is not None and len(np.unique(octave)) > 2
    for each in np.unique(octave):
        of = octave[runs] == each
        assert np.diff(np.flatnonzero(of)).max(initial=1) == 1  # one run
        assert (np.diff(place[runs[of]]) > 0).all()  # in the order given
    # What is worth less has the coarser step.
    assert worth[octave == octave.max()].max() <= worth[octave == octave.min()].min()


def test_the_octave_is_that_of_the_steps_an_entry_is_stored_in(rng, worth) -> None:
    """Of entries in coarse steps fewer values are seen."""
    splats = scene(rng, 3000)
    harmonics = coded(splats, worth)
    seen = [
        len(np.unique(harmonics.decoded()[harmonics.octave == each]))
        for each in np.unique(harmonics.octave)
        if (harmonics.octave == each).sum() > 100
    ]
    assert len(seen) > 2
    assert all(fine > 1.2 * coarse for fine, coarse in zip(seen, seen[1:], strict=False))


def test_runs_make_own_entries_smaller(rng, worth) -> None:
    splats = scene(rng, 3000)
    harmonics = coded(splats, worth)
    order = rng.permutation(3000)
    mixed = encode_webp(harmonics.along(order).palette_texture(), ENTRIES)
    in_runs = encode_webp(harmonics.along(harmonics.in_runs(order)).palette_texture(), ENTRIES)
    assert len(in_runs) < 0.97 * len(mixed)


def test_a_shared_palette_needs_no_runs(rng, worth) -> None:
    harmonics = coded(scene(rng, 3000), worth, preset="tiny", palette_size=200)
    order = rng.permutation(3000)
    assert harmonics.in_runs(order) is order
