"""A .compressed.ply is as close as its steps allow: half a step of each chunk's own range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import SH_C0, Splats
from models.splat_to_sog.writers.compressed_ply import pack_harmonics
from models.splat_to_sog.writers.curve import curve_order
from models.splat_to_sog.writers.write import write

MakeSplats = Callable[..., Splats]

ROTATION = 2 * np.sqrt(12) * np.sqrt(2) / 2046
"""Radians. Each stored component is off by half a step of sqrt(2) / 1023, the one left out by three
times that at most (all four equal); the angle is twice the length of the difference."""


def written(splats: Splats, folder: Path) -> tuple[Splats, Splats]:
    """(the scene in the order of the file, as it was read back)."""
    path = folder / "scene.compressed.ply"
    write(splats, path)
    return splats.take(curve_order(splats.means)), read(path, path.name)


def angles(a: Splats, b: Splats) -> np.ndarray:  # [N] radians
    p, q = (
        x.quats.astype(np.float64) / np.linalg.norm(x.quats.astype(np.float64), axis=1)[:, None]
        for x in (a, b)
    )
    chord = np.minimum(np.linalg.norm(p - q, axis=1), np.linalg.norm(p + q, axis=1))
    return 4 * np.arcsin(np.minimum(chord / 2, 1))


def alphas(splats: Splats) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-splats.opacities.astype(np.float64)))


def chunk_ranges(values: np.ndarray) -> np.ndarray:  # [N, 3] -> [N, 3]
    return np.concatenate(
        [
            np.broadcast_to(np.ptp(values[i : i + 256].astype(np.float64), axis=0), (256, 3))
            for i in range(0, len(values), 256)
        ]
    )[: len(values)]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_half_a_step_of_everything(degree: int, make_splats: MakeSplats, tmp_path: Path) -> None:
    """1000 splats: three whole chunks and a part. 1e-6: float32 bounds of the chunk."""
    splats, back = written(make_splats(1000, degree), tmp_path)
    steps = np.array([2047, 1023, 2047])
    for name in ("means", "scales"):
        a, b = getattr(splats, name), getattr(back, name)
        assert (np.abs(a - b) <= chunk_ranges(a) / steps / 2 + 1e-6).all(), name
    colour_step = chunk_ranges(splats.sh0) / 255
    assert (np.abs(splats.sh0 - back.sh0) <= colour_step / 2 + 1e-6).all()
    assert np.abs(alphas(splats) - alphas(back)).max() <= 0.5 / 255 + 1e-6
    assert angles(splats, back).max() <= ROTATION
    if degree:
        assert np.abs(splats.shN - back.shN).max() <= 1 / 64 + 1e-6  # 8 / 256 a step


def test_harmonics_get_the_code_that_decodes_nearest() -> None:
    """Against every code: the middle of a step, but for the ends of the range."""
    decoded = ((np.arange(256) + 0.5) / 256 - 0.5) * 8
    decoded[[0, 255]] = -4, 4
    values = np.linspace(-5, 5, 20_001, dtype=np.float32)
    nearest = np.abs(values[:, None] - decoded).min(axis=1)
    assert np.abs(values - decoded[pack_harmonics(values[:, None])[:, 0]]) == pytest.approx(
        nearest, abs=1e-6
    )


def test_infinities_are_clamped_and_counted(make_splats: MakeSplats, tmp_path: Path) -> None:
    splats = make_splats(600, 1)
    splats.opacities[:2] = np.inf, -np.inf
    splats.scales[3:6, 2] = -np.inf
    splats.scales[6, 0] = 25
    splats.shN[7, 1, 2] = -9
    path = tmp_path / "scene.compressed.ply"
    assert write(splats, path).lost == {
        "scales beyond e^+-20, clamped": 4,
        "harmonics beyond +-4, clamped": 1,
    }
    order, back = curve_order(splats.means), read(path, path.name)
    assert back.opacities[order == 0] == np.inf and back.opacities[order == 1] == -np.inf
    flat = np.isin(order, [3, 4, 5])
    assert (back.scales[flat, 2] == -20).all()
    assert back.scales.max() == 20 and back.shN.min() == -4


def test_degree_4_is_cut_and_said(make_splats: MakeSplats, tmp_path: Path) -> None:
    path = tmp_path / "scene.compressed.ply"
    assert write(make_splats(9, 4), path).lost == {"harmonics above degree 3": 9}
    assert read(path, path.name).degree == 3


@pytest.mark.parametrize("model", ["default", "antialiased", "2dgs"])
def test_the_model_is_kept(model: str, make_splats: MakeSplats, tmp_path: Path) -> None:
    _, back = written(replace(make_splats(3), model=model), tmp_path)
    assert back.model == model


def test_chunks_are_compact(rng: np.random.Generator, make_splats: MakeSplats) -> None:
    """An outlier does not scatter the rest: chunks along the curve stay small."""
    splats = make_splats(20_000)
    splats.means[:] = rng.normal(size=(20_000, 3))
    splats.means[0] = 1e6
    ordered = splats.take(curve_order(splats.means)).means
    sizes = chunk_ranges(ordered)[::256].prod(axis=1) ** (1 / 3)
    # 20000 / 256 = 78 chunks fill the volume: measured 1.1 units across, unordered 5.6.
    assert np.median(sizes) < 1.6


def test_colour_bounds_are_of_display_colours(make_splats: MakeSplats, tmp_path: Path) -> None:
    splats = make_splats(1)
    splats.sh0[:] = 1.0
    path = tmp_path / "scene.compressed.ply"
    write(splats, path)
    body = path.read_bytes().split(b"end_header\n")[1]
    bounds = np.frombuffer(body[: 4 * 18], "<f4")
    np.testing.assert_allclose(bounds[12:], 0.5 + SH_C0, rtol=1e-6)
    np.testing.assert_array_equal(bounds[:3], splats.means[0])
