"""An .spz is as close as its steps allow, and says what does not fit."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.context import InvalidInput
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.writers.formats import SpzOptions
from models.splat_to_sog.writers.write import write

MakeSplats = Callable[..., Splats]

ROTATION = 2 * np.sqrt(12) * np.sqrt(0.5) / 1022
"""Radians: half a step of sqrt(1/2) / 511 a component, as in test_write_compressed_ply."""

SPZ3, SPZ4 = SpzOptions(), SpzOptions(version=4)


def written(splats: Splats, folder: Path, options: SpzOptions = SPZ3) -> Splats:
    write(splats, folder / "scene.spz", options=options)
    return read(folder / "scene.spz", "scene.spz")


def header_of(path: Path) -> tuple[int, ...]:
    """(version, splats, degree, fractional bits, flags)"""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    magic, *rest = struct.unpack("<4sIIBBB", data[:15])
    assert magic == b"NGSP"
    return tuple(rest)


@pytest.mark.parametrize("options", [SPZ3, SPZ4], ids=["v3", "v4"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_half_a_step_of_everything(
    options: SpzOptions, degree: int, make_splats: MakeSplats, tmp_path: Path
) -> None:
    splats = make_splats(1000, degree)
    back = written(splats, tmp_path, options)
    assert header_of(tmp_path / "scene.spz") == (options.version, 1000, degree, 12, 0)
    assert np.abs(splats.means - back.means).max() <= 2**-13 + 1e-6
    # The range begins at e^-10: `make_splats` draws around e^-4.
    assert np.abs(splats.scales - back.scales).max() <= 1 / 32 + 1e-6
    alpha, found = (1 / (1 + np.exp(-s.opacities.astype(float))) for s in (splats, back))
    assert np.abs(alpha - found).max() <= 0.5 / 255 + 1e-6
    inside = np.abs(splats.sh0) < 3.33
    assert np.abs(splats.sh0 - back.sh0)[inside].max() <= 0.5 / 255 / 0.15 + 1e-6
    p, q = (
        s.quats / np.linalg.norm(s.quats.astype(float), axis=1)[:, None] for s in (splats, back)
    )
    chord = np.minimum(np.linalg.norm(p - q, axis=1), np.linalg.norm(p + q, axis=1))
    assert (4 * np.arcsin(chord / 2)).max() <= ROTATION
    error = np.where(np.abs(splats.shN) < 0.99, np.abs(splats.shN - back.shN), 0)
    if degree:
        assert error[:, :, :3].max() <= 4 / 128 + 1e-6  # 5 bits
    if degree > 1:
        assert error[:, :, 3:].max() <= 8 / 128 + 1e-6  # 4 bits


def test_eight_bits_of_harmonics(make_splats: MakeSplats, tmp_path: Path) -> None:
    splats = make_splats(500, 3)
    back = written(splats, tmp_path, SpzOptions(sh_bits="8"))
    assert np.abs(splats.shN - back.shN)[np.abs(splats.shN) < 0.99].max() <= 0.5 / 128 + 1e-6


def test_versions_hold_the_same_values(make_splats: MakeSplats, tmp_path: Path) -> None:
    splats = make_splats(500, 2)
    a, b = written(splats, tmp_path, SPZ3), written(splats, tmp_path, SPZ4)
    for name in ("means", "scales", "quats", "opacities", "sh0", "shN"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)


@pytest.mark.parametrize(
    ("reach", "bits"), [(0.001, 23), (0.5, 14), (100, 12), (2047, 12), (2048, 11), (8.3e6, 0)]
)
def test_fractional_bits_follow_the_scene(
    reach: float, bits: int, rng: np.random.Generator, make_splats: MakeSplats, tmp_path: Path
) -> None:
    splats = make_splats(100)
    splats.means[:] = rng.uniform(-reach, reach, (100, 3))
    splats.means[0], splats.means[1] = reach, -reach
    back = written(splats, tmp_path)
    assert header_of(tmp_path / "scene.spz")[3] == bits
    assert np.abs(splats.means - back.means).max() <= 0.5 * 2.0**-bits * (1 + 1e-5)


def test_positions_out_of_reach_are_refused(make_splats: MakeSplats, tmp_path: Path) -> None:
    splats = make_splats(100)
    splats.means[5, 1] = -3000
    with pytest.raises(InvalidInput, match=r"3000 units.*2048 with 12"):
        written(splats, tmp_path, SpzOptions(fractional_bits=12))
    splats.means[5, 1] = 1e9
    with pytest.raises(InvalidInput, match=r"1e\+09 units.*8\.38861e\+06 with 0"):
        written(splats, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_clamped_is_counted(make_splats: MakeSplats, tmp_path: Path) -> None:
    splats = replace(make_splats(50, 1), model="2dgs")
    splats.shN[:] = np.clip(splats.shN, -0.9, 0.9)
    splats.sh0[:] = np.clip(splats.sh0, -3, 3)
    splats.scales[0], splats.scales[1, 0] = -np.inf, 7
    splats.sh0[2, 0], splats.shN[3, 1] = 5, -2
    splats.opacities[:2] = np.inf, -np.inf
    path = tmp_path / "scene.spz"
    assert write(splats, path).lost == {
        "flat splats (2DGS) as thin ones": 50,
        "scales outside e^-10 .. e^5.94, clamped": 4,
        "colours outside +-3.33, clamped": 1,
        "harmonics outside -1 .. 0.992, clamped": 3,
    }
    back = read(path, "scene.spz")
    assert back.model == "default"
    assert (back.scales[0] == -10).all() and back.scales[1, 0] == 255 / 16 - 10
    assert back.opacities[0] > 13 and back.opacities[1] < -13


def test_degree_4_needs_version_4(make_splats: MakeSplats, tmp_path: Path) -> None:
    splats = make_splats(20, 4)
    assert written(splats, tmp_path, SPZ4).degree == 4
    written_3 = write(splats, tmp_path / "scene.spz", options=SPZ3)
    assert written_3.lost["harmonics above degree 3"] == 20
    assert read(tmp_path / "scene.spz", "scene.spz").degree == 3


def test_antialiased_is_a_flag_and_the_clock_is_not_asked(
    make_splats: MakeSplats, tmp_path: Path
) -> None:
    assert written(replace(make_splats(5), model="antialiased"), tmp_path).model == "antialiased"
    assert header_of(tmp_path / "scene.spz")[4] == 1
    assert (tmp_path / "scene.spz").read_bytes()[4:8] == bytes(4)  # gzip's time stamp
