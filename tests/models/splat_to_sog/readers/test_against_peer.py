"""The peer's tool and our readers find the same values in the same files, format by format.

Files of the peer's own writers, and hand-made ones of the formats that it reads but cannot write.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.splat_to_sog.readers import read
from models.splat_to_sog.readers.streamed import Level
from models.splat_to_sog.splats import ATTRIBUTES, Splats

pytestmark = pytest.mark.node

PACKAGES = Path(__file__).parents[3] / "browser" / "node_modules"


@pytest.fixture(scope="module")
def peer() -> Callable[..., None]:
    """peer(arguments...): the peer's command-line tool, from the packages of tests/browser."""
    architecture = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "x64")
    node = PACKAGES / f"node-linux-{architecture}" / "bin" / "node"
    script = PACKAGES / "@playcanvas/splat-transform" / "bin" / "cli.mjs"
    if not (node.exists() and script.exists()):
        pytest.skip("splat-transform absent: run 'npm ci --ignore-scripts' in tests/browser")

    def run(*arguments: object) -> None:
        done = subprocess.run(
            [node, script, "-q", "-w", "-g", "cpu", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def assert_close(ours: Splats, theirs: Splats, rtol: float = 2e-6, atol: float = 1e-6) -> None:
    """float32 values by formulas in another order: they agree to the last bits."""
    assert (len(ours), ours.degree) == (len(theirs), theirs.degree)
    for name in ATTRIBUTES:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol, atol, name)


def as_they_see_it(peer: Callable[..., None], path: Path) -> Splats:
    decoded = path.with_name(f"{path.name}-decoded.ply")
    peer(path, decoded)
    return read(decoded, "decoded")


def test_splat(peer, tmp_path: Path, rng, formats) -> None:
    """All but rotations, whose bytes the peer reads as b / 127.5 - 1 and the format's author as
    (b - 128) / 128: both are checked against the bytes."""
    n = 300
    quats = rng.normal(size=(n, 4))
    stored = quats / np.linalg.norm(quats, axis=1, keepdims=True) * 128 + 128
    stored = np.clip(np.round(stored), 0, 255)
    rgba = rng.integers(0, 256, (n, 4))
    path = tmp_path / "scene.splat"
    path.write_bytes(
        formats.splat(rng.normal(size=(n, 3)), np.exp(rng.normal(size=(n, 3))), rgba, stored)
    )
    ours, theirs = read(path, "scene.splat"), as_they_see_it(peer, path)
    for name in ("means", "scales", "opacities", "sh0"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), 2e-6, 1e-6, name)
    np.testing.assert_array_equal(ours.quats, ((stored - 128) / 128).astype(np.float32))
    as_theirs = stored / 127.5 - 1
    as_theirs /= np.linalg.norm(as_theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(theirs.quats, as_theirs, atol=1e-6)


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_ksplat(peer, tmp_path: Path, rng, formats, level: int, degree: int) -> None:
    k = (0, 3, 8)[degree]
    sections = [
        formats.ksplat_section(
            level,
            rng.normal(size=(60, 3)),
            np.exp(rng.normal(size=(60, 3)) - 4),
            rng.normal(size=(60, 4)),
            rng.integers(0, 256, (60, 4)),
            rng.uniform(-1, 1, (60, 3, k)),
            full=2,
            capacity=20,
            partial=(12, 8),
            block=20.0,
        )
        for _ in range(2)
    ]
    path = tmp_path / "scene.ksplat"
    path.write_bytes(formats.ksplat(level, sections))
    assert_close(read(path, "scene.ksplat"), as_they_see_it(peer, path))


@pytest.mark.parametrize("version", [2, 3, 4])
def test_spz(peer, tmp_path: Path, rng, formats, version: int) -> None:
    path = tmp_path / "scene.spz"
    path.write_bytes(formats.spz(formats.spz_parts(rng, 200, 3, version), 200, 3, version, flags=1))
    assert_close(read(path, "scene.spz"), as_they_see_it(peer, path))


@pytest.mark.parametrize("columns", [12, 18])
def test_compressed_ply(peer, tmp_path: Path, rng, formats, columns: int) -> None:
    bounds = np.sort(rng.normal(size=(2, 2, columns // 2)), axis=1).reshape(2, columns)
    bounds = bounds.reshape(2, 2, -1, 3).transpose(0, 2, 1, 3).reshape(2, columns)
    words = rng.integers(0, 1 << 32, (300, 4))
    path = tmp_path / "scene.compressed.ply"
    path.write_bytes(formats.compressed_ply(bounds, words, rng.integers(0, 256, (300, 24))))
    assert_close(read(path, "scene.compressed.ply"), as_they_see_it(peer, path), atol=3e-6)


@pytest.mark.parametrize("degree", [0, 2])
def test_sog_version_1(peer, tmp_path: Path, rng, formats, degree: int) -> None:
    folder = tmp_path / "scene"
    folder.mkdir()
    for name, data in formats.sog_v1(rng, 12, degree).items():
        (folder / name).write_bytes(data)
    theirs = tmp_path / "theirs.ply"
    peer(folder / "meta.json", theirs)
    assert_close(read(folder, "scene"), read(theirs, "theirs"), rtol=1e-5)


def test_streamed(peer, tmp_path: Path, rng, formats) -> None:
    """The peer writes two levels in several chunks and an environment, and reads one back."""
    columns = formats.ply_columns(0)
    inputs: list[object] = []
    for level, n in ((0, 2400), (1, 60), (-1, 20)):
        source = tmp_path / f"{level}.ply"
        source.write_bytes(formats.ply(rng.normal(size=(n, len(columns))), columns))
        inputs += [source, "-l", level]
    target = tmp_path / "scene" / "lod-meta.json"
    target.parent.mkdir()
    peer("--lod-chunk-count", 1, "--lod-chunk-min", 0, *inputs, target)
    assert len(list(target.parent.glob("0_*/meta.json"))) > 1
    theirs = tmp_path / "theirs.ply"
    peer("-L", 0, target, theirs)
    ours = read(target.parent, "scene", level=Level(0, environment=False))
    assert_close(ours, read(theirs, "theirs").take(np.arange(2400)))
    assert len(read(target, "scene", level=Level(1, environment=False))) == 60
    assert len(read(target, "lod-meta.json")) == 2400 + 20
