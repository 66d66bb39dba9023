""".splat and .ksplat: values written by hand come back, and the files are known without a name."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from models.context import InvalidInput
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import COEFFICIENTS, SH_C0


def scene(rng: np.random.Generator, n: int, degree: int = 0):
    """means, deviations, unit rotations, rgba bytes, harmonics"""
    quats = rng.normal(size=(n, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    return (
        rng.normal(size=(n, 3)),
        np.exp(rng.normal(size=(n, 3)) - 4),
        quats,
        rng.integers(0, 256, (n, 4)),
        rng.uniform(-1.4, 1.4, (n, 3, COEFFICIENTS[degree])),
    )


# --- .splat ---------------------------------------------------------------------------------


def splat_file(tmp_path: Path, rng, formats, n: int = 500):
    means, scales, quats, rgba, _ = scene(rng, n)
    rotations = np.clip(np.round(quats * 128 + 128), 0, 255)
    path = tmp_path / "scene.splat"
    path.write_bytes(formats.splat(means, scales, rgba, rotations))
    return path, (means, scales, quats, rgba)


@pytest.mark.parametrize("name", ["scene.splat", "upload.bin"])
def test_splat_values_with_and_without_the_name(tmp_path: Path, rng, formats, name: str) -> None:
    path, (means, scales, quats, rgba) = splat_file(tmp_path, rng, formats)
    splats = read(path, name)
    np.testing.assert_array_equal(splats.means, means.astype(np.float32))
    np.testing.assert_allclose(splats.scales, np.log(scales), rtol=1e-6)
    # Half a step of 1 / 128; a component of 1 is stored as 127.
    np.testing.assert_allclose(splats.quats, quats, atol=1 / 128)
    np.testing.assert_allclose(splats.sh0 * SH_C0 + 0.5, rgba[:, :3] / 255, atol=1e-6)
    alpha = 1 / (1 + np.exp(-splats.opacities.astype(np.float64)))
    np.testing.assert_allclose(alpha, rgba[:, 3] / 255, atol=2e-6)  # clamped by 1e-6


@pytest.mark.parametrize("first", [b"{}", b"<a", b"\x1f\x8b"])
def test_splat_may_begin_like_something_else(tmp_path: Path, rng, formats, first: bytes) -> None:
    path, _ = splat_file(tmp_path, rng, formats)
    path.write_bytes(first + path.read_bytes()[2:])
    assert len(read(path, "scene.splat")) == 500


def test_flat_splats_are_kept_and_negative_scales_dropped(tmp_path: Path, rng, formats) -> None:
    path, _ = splat_file(tmp_path, rng, formats, 4)
    data = bytearray(path.read_bytes())
    data[12:20] = struct.pack("<ff", 0.0, -1.0)
    path.write_bytes(data)
    scales = read(path, "scene.splat").scales
    assert scales[0, 0] == -np.inf and np.isnan(scales[0, 1])


def test_splat_refusals(tmp_path: Path, rng, formats) -> None:
    path, _ = splat_file(tmp_path, rng, formats)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(InvalidInput, match="15999 bytes are not a whole number of 32-byte records"):
        read(path, "scene.splat")
    for content in (rng.bytes(3200), bytes(3200), b"word " * 640):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="not a splat. Accepted"):
            read(path, "scene.splat")


# --- .ksplat --------------------------------------------------------------------------------


def ksplat_file(tmp_path: Path, rng, formats, level: int, degrees=(0,), **how):
    sections, scenes = [], []
    for degree in degrees:
        means, scales, quats, rgba, harmonics = scene(rng, 50, degree)
        scenes.append((means, scales, quats, rgba, harmonics))
        sections.append(
            formats.ksplat_section(
                level, means, scales, quats, rgba, harmonics,
                full=2, capacity=16, partial=(10, 0, 8), room=3, block=20.0,
            )
        )  # fmt: skip
    path = tmp_path / "scene.ksplat"
    path.write_bytes(formats.ksplat(level, sections, **how))
    return path, scenes


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
@pytest.mark.parametrize("name", ["scene.ksplat", "upload.bin"])
@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_ksplat_values(tmp_path: Path, rng, formats, level, degree, name) -> None:
    path, [(means, scales, quats, rgba, harmonics)] = ksplat_file(
        tmp_path, rng, formats, level, (degree,)
    )
    splats = read(path, name)
    assert (len(splats), splats.degree) == (50, degree)
    # Level 1 and 2: half a step of the block of 20 units, and 11 bits of half floats.
    np.testing.assert_allclose(splats.means, means, atol=(1e-6, 2e-4, 2e-4)[level])
    np.testing.assert_allclose(splats.scales, np.log(scales), atol=(1e-5, 1e-3, 1e-3)[level])
    np.testing.assert_allclose(splats.quats, quats, atol=(1e-6, 1e-3, 1e-3)[level])
    np.testing.assert_allclose(splats.sh0 * SH_C0 + 0.5, rgba[:, :3] / 255, atol=1e-6)
    # Level 2 truncates to 255 steps of the range -1.5 .. 1.5.
    np.testing.assert_allclose(splats.shN, harmonics, atol=(1e-6, 1e-3, 3 / 255 + 1e-6)[level])


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_ksplat_sections_of_different_degrees(tmp_path: Path, rng, formats) -> None:
    path, scenes = ksplat_file(tmp_path, rng, formats, 0, (1, 0, 2), unused=2)
    splats = read(path, "scene.ksplat")
    assert (len(splats), splats.degree) == (150, 2)
    for index, (means, *_, harmonics) in enumerate(scenes):
        rows = slice(50 * index, 50 * index + 50)
        np.testing.assert_array_equal(splats.means[rows], means.astype(np.float32))
        k = harmonics.shape[2]
        np.testing.assert_array_equal(splats.shN[rows, :, :k], harmonics.astype(np.float32))
        assert not splats.shN[rows, :, k:].any()


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        ((0, "<B"), 1, "version 1.1; 0.1 and later 0.x are read"),
        ((20, "<H"), 3, "compression level 3; allowed are 0, 1 and 2"),
        ((4, "<I"), 1 << 30, "1073741824 sections; allowed are 4096"),
        ((4, "<I"), 4000, "4000 section headers do not fit"),
        ((16, "<I"), 49, "its header says 49 splats, its sections hold 50"),
        ((4096, "<I"), 60, "section 0: 60 splats in room for 53"),
        ((4096 + 4, "<I"), 1 << 31, "section 0 ends at byte"),
        ((4096 + 12, "<I"), 1 << 20, "section 0 ends at byte"),
        ((4096 + 32, "<I"), 1 << 31, "2147483648 full and 3 partial buckets"),
        ((4096 + 32, "<I"), 1, "its buckets hold 34 splats, it has 50"),
        ((4096 + 20, "<H"), 8, "with 40 bytes of centres"),
        ((4096 + 40, "<H"), 3, "spherical-harmonics degree 3; allowed are 0, 1 and 2"),
    ],
)
def test_ksplat_refusals(tmp_path: Path, rng, formats, at, value, says) -> None:
    path, _ = ksplat_file(tmp_path, rng, formats, 1)
    data = bytearray(path.read_bytes())
    struct.pack_into(at[1], data, at[0], value)
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=f"^up: .ksplat: .*{says}|^up.ksplat: .*{says}"):
        read(path, "up.ksplat")


def test_a_short_ksplat_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0\1" + bytes(100))
    with pytest.raises(InvalidInput, match="102 bytes, the header takes 4096") as error:
        read(tmp_path / "a", "a.ksplat")
    assert error.value.code == "splat_truncated"
