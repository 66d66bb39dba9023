"""encode: pure, from splats to files; our reader finds their values within their steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.splat_to_sog.bundle import bundle
from models.splat_to_sog.encode import encode
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import COEFFICIENTS, Splats


def round_trip(splats: Splats, folder: Path, **options: object) -> Splats:
    path = folder / "out.sog"
    path.write_bytes(bundle(encode(splats, SogOptions(**options)).files))
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
    # What is worth little has coarse steps, at most 0.4 % of the spread; most have fine ones.
    error = np.abs(found.means - splats.means)
    assert error.max() < 0.005 * np.ptp(splats.means, axis=0).max()
    # Axes may be renamed: their scales are compared in order of size.
    for field, steps in (("scales", 0.4), ("sh0", 0.8)):
        error = np.sort(getattr(found, field)) - np.sort(getattr(splats, field))
        assert np.abs(error).max() < 2 * steps, field
        assert np.sqrt(np.mean(error**2)) < 0.25 * steps, field
    alpha, expected = (1 / (1 + np.exp(-s.opacities.astype(float))) for s in (found, splats))
    assert np.abs(alpha - expected).max() <= 8.5 / 255 + 1e-6
    if degree:
        assert np.mean((found.shN - splats.shN) ** 2) < 0.5 * np.mean(splats.shN**2)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 255, 1023, 1024, 1025])
@pytest.mark.parametrize("degree", [0, 3])
def test_any_count(make_splats, tmp_path: Path, n: int, degree: int) -> None:
    splats = make_splats(n, degree)
    found = round_trip(splats, tmp_path)
    assert (len(found), found.degree) == (n, degree)
    np.testing.assert_allclose(found.means.mean(axis=0), splats.means.mean(axis=0), atol=1e-3)
    if n < 1024 and degree:  # noise is the worst case: a bit saved must be worth its error
        error = matched(splats, found).shN - splats.shN
        assert np.mean(error**2) < 0.5 * np.mean(splats.shN**2)


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
    assert (found.scales[20:30].min(axis=1) < -20).all() and np.isfinite(found.scales).all()
    np.testing.assert_allclose(found.quats[30], [1, 0, 0, 0], atol=0.005)

    same = splats.take(np.full(500, 42))
    found = round_trip(same, tmp_path)
    for field in ("means", "scales", "sh0", "shN"):
        expected, value = (np.sort(getattr(s, field)) for s in (same, found))  # axes are renamed
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_a_far_outlier_does_not_break_the_grid(make_splats, tmp_path: Path) -> None:
    splats = make_splats(100)
    splats.means[0] = 1e30, -1e30, 0
    found = round_trip(splats, tmp_path)
    assert found.means.max() == pytest.approx(1e30, rel=1e-5)
    assert np.isfinite(found.means).all()


def test_same_input_same_bytes_and_input_untouched(make_splats) -> None:
    splats = make_splats(3000, 2)
    before = [getattr(splats, field).copy() for field in ("means", "quats", "scales", "shN")]
    first = bundle(encode(splats, SogOptions()).files)
    assert first == bundle(encode(splats, SogOptions()).files)
    few = [encode(splats, SogOptions(palette_size=300, seed=seed)).files for seed in (0, 1)]
    assert bundle(few[0]) != bundle(few[1])
    for field, copy in zip(("means", "quats", "scales", "shN"), before, strict=True):
        np.testing.assert_array_equal(getattr(splats, field), copy)


def test_a_second_generation_loses_next_to_nothing(samples: Path, tmp_path: Path) -> None:
    """Values that lie on 256 levels stay there; only positions and rotations are rounded again."""
    source = read(samples / "playbot.compressed.ply", "p")
    first = round_trip(source, tmp_path, sh_degree=0)
    second = matched(first, round_trip(first, tmp_path))
    for field in ("scales", "sh0"):
        error = np.sort(getattr(second, field)) - np.sort(getattr(first, field))
        assert np.sqrt(np.mean(error**2)) < 0.02, field
    np.testing.assert_allclose(second.opacities, first.opacities, atol=1e-5)


def test_options_cut_degree_and_palette(make_splats) -> None:
    splats = make_splats(1500, 3)
    meta = json.loads(encode(splats, SogOptions(sh_degree=2, palette_size=77)).files["meta.json"])
    assert (meta["shN"]["bands"], meta["shN"]["count"]) == (2, 77)
    files = encode(splats, SogOptions(sh_degree=0)).files
    assert "shN" not in json.loads(files["meta.json"])
    assert sorted(files) == sorted(
        ["means_l.webp", "means_u.webp", "quats.webp", "scales.webp", "sh0.webp", "meta.json"]
    )


def test_degree_4_is_cut_to_3(make_splats, tmp_path: Path) -> None:
    splats = make_splats(50, 4)
    found = matched(splats, round_trip(splats, tmp_path))
    assert found.degree == 3
    kept = splats.shN[:, :, : COEFFICIENTS[3]]
    assert np.mean((found.shN - kept) ** 2) < 0.5 * np.mean(kept**2)


@pytest.mark.parametrize("model", ["default", "antialiased", "2dgs"])
def test_the_model_is_written_and_read(make_splats, tmp_path: Path, model: str) -> None:
    splats = replace(make_splats(5), model=model)
    meta = json.loads(encode(splats, SogOptions()).files["meta.json"])
    assert meta.get("model", "default") == model
    assert round_trip(splats, tmp_path).model == model


def test_refuses_no_splats(make_splats) -> None:
    with pytest.raises(ValueError, match="0 splats; SOG takes 1 to"):
        encode(make_splats(0), SogOptions())
