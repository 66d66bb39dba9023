"""encode: pure, from splats to files; our reader finds their values within their steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.splat_to_sog.bundle import bundle
from models.splat_to_sog.encode import encode, quantize_harmonics
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import COEFFICIENTS, Splats


def round_trip(splats: Splats, folder: Path, **options: object) -> Splats:
    path = folder / "out.sog"
    path.write_bytes(bundle(encode(splats, SogOptions(**options))))
    return read(path, "out.sog")


def matched(original: Splats, decoded: Splats) -> Splats:
    """The decoded splats in the order of the originals, matched by nearest position."""
    from scipy.spatial import cKDTree

    rows = cKDTree(decoded.means).query(original.means)[1]
    assert len(np.unique(rows)) == len(original)
    return decoded.take(rows)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_values_survive_within_their_steps(make_splats, tmp_path: Path, degree: int) -> None:
    splats = make_splats(2000, degree)
    found = matched(splats, round_trip(splats, tmp_path))
    assert found.degree == degree
    # Step of a position: its axis' log range over 65535, times 1 + |p| at most.
    step = np.ptp(np.log1p(np.abs(splats.means)) * np.sign(splats.means), axis=0) / 65535
    assert (np.abs(found.means - splats.means) <= 0.51 * step * (1 + np.abs(splats.means))).all()
    # 256 levels over some 8 standard deviations: a step of 0.03, less where values are dense.
    for field in ("scales", "sh0"):
        error = getattr(found, field) - getattr(splats, field)
        assert np.sqrt(np.mean(error**2)) < 0.01, field
        assert np.abs(error).max() < 0.2, field
    alpha, expected = (1 / (1 + np.exp(-s.opacities.astype(float))) for s in (found, splats))
    assert np.abs(alpha - expected).max() <= 0.5 / 255 + 1e-6
    if degree:  # 1024 entries for 2000 random vectors: half of them exact, so to say
        assert np.mean((found.shN - splats.shN) ** 2) < 0.5 * np.mean(splats.shN**2)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 255, 1023, 1024, 1025])
@pytest.mark.parametrize("degree", [0, 3])
def test_any_count(make_splats, tmp_path: Path, n: int, degree: int) -> None:
    splats = make_splats(n, degree)
    found = round_trip(splats, tmp_path)
    assert (len(found), found.degree) == (n, degree)
    np.testing.assert_allclose(found.means.mean(axis=0), splats.means.mean(axis=0), atol=1e-3)
    if n < 1024 and degree:  # every splat has an entry: only the codebook's error is left
        error = matched(splats, found).shN - splats.shN
        assert np.sqrt(np.mean(error**2)) < 0.01


def test_odd_scenes(make_splats, tmp_path: Path) -> None:
    """Infinite opacities and scales, a flat axis, zero quaternions, identical splats."""
    splats = make_splats(300, 1)
    splats.opacities[:10], splats.opacities[10:20] = np.inf, -np.inf
    splats.scales[20:30, 2] = -np.inf
    splats.means[:, 1] = -2.5
    splats.quats[30] = 0
    found = matched(splats, round_trip(splats, tmp_path))
    np.testing.assert_allclose(found.means[:, 1], -2.5, rtol=1e-6)
    assert (found.opacities[:10] > 13).all() and (found.opacities[10:20] < -13).all()
    assert (found.scales[20:30, 2] < -20).all() and np.isfinite(found.scales).all()
    np.testing.assert_allclose(found.quats[30], [1, 0, 0, 0], atol=0.005)

    same = splats.take(np.full(500, 42))
    found = round_trip(same, tmp_path)
    for field in ("means", "scales", "sh0", "shN"):
        expected = getattr(same, field)
        np.testing.assert_allclose(getattr(found, field), expected, rtol=1e-5, atol=1e-6)


def test_a_far_outlier_does_not_break_the_grid(make_splats, tmp_path: Path) -> None:
    splats = make_splats(100)
    splats.means[0] = 1e30, -1e30, 0
    found = round_trip(splats, tmp_path)
    assert found.means.max() == pytest.approx(1e30, rel=1e-5)
    assert np.isfinite(found.means).all()


def test_same_input_same_bytes_and_input_untouched(make_splats) -> None:
    splats = make_splats(3000, 2)
    before = [getattr(splats, field).copy() for field in ("means", "quats", "scales", "shN")]
    first = bundle(encode(splats, SogOptions()))
    assert first == bundle(encode(splats, SogOptions()))
    assert first != bundle(encode(splats, SogOptions(seed=1)))
    for field, copy in zip(("means", "quats", "scales", "shN"), before, strict=True):
        np.testing.assert_array_equal(getattr(splats, field), copy)


def test_what_was_decoded_is_encoded_without_further_loss(samples: Path, tmp_path: Path) -> None:
    """A second generation: at most 256 levels and 8192 vectors are there, all are kept."""
    first = round_trip(read(samples / "playbot.compressed.ply", "p"), tmp_path)
    second = matched(first, round_trip(first, tmp_path))
    for field in ("scales", "sh0", "shN", "opacities"):
        np.testing.assert_allclose(getattr(second, field), getattr(first, field), rtol=1e-5)


def test_options_cut_degree_and_palette(make_splats) -> None:
    splats = make_splats(1500, 3)
    meta = json.loads(encode(splats, SogOptions(sh_degree=2, palette_size=77))["meta.json"])
    assert (meta["shN"]["bands"], meta["shN"]["count"]) == (2, 77)
    files = encode(splats, SogOptions(sh_degree=0))
    assert "shN" not in json.loads(files["meta.json"])
    assert sorted(files) == sorted(
        ["means_l.webp", "means_u.webp", "quats.webp", "scales.webp", "sh0.webp", "meta.json"]
    )


def test_degree_4_is_cut_to_3(make_splats, tmp_path: Path) -> None:
    splats = make_splats(50, 4)
    found = matched(splats, round_trip(splats, tmp_path))
    assert found.degree == 3
    error = found.shN - splats.shN[:, :, : COEFFICIENTS[3]]
    assert np.sqrt(np.mean(error**2)) < 0.01


def test_labels_are_nearest_to_the_entries_as_coded(make_splats) -> None:
    """A coarse book moves the entries; the labels follow them."""
    splats = make_splats(4000, 2)
    options = SogOptions(palette_size=120)
    found = quantize_harmonics(splats, options, lambda stage, fraction: None)
    coded = found.book.decode(found.indices).transpose(0, 2, 1).reshape(len(found.indices), -1)
    rows = splats.shN.reshape(4000, -1)
    error = ((rows[:, None, :].astype(np.float64) - coded) ** 2).sum(axis=2)
    # Float32 products may swap two entries that are equally near.
    np.testing.assert_allclose(
        error[np.arange(4000), found.labels], error.min(axis=1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("model", ["default", "antialiased", "2dgs"])
def test_the_model_is_written_and_read(make_splats, tmp_path: Path, model: str) -> None:
    splats = replace(make_splats(5), model=model)
    meta = json.loads(encode(splats, SogOptions())["meta.json"])
    assert meta.get("model", "default") == model
    assert round_trip(splats, tmp_path).model == model


def test_refuses_no_splats(make_splats) -> None:
    with pytest.raises(ValueError, match="0 splats; SOG takes 1 to"):
        encode(make_splats(0), SogOptions())
