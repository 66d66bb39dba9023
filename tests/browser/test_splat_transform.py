"""The peer's tool reads our .sog and finds exactly the values that our own reader finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.context import InputFile, LocalContext
from models.splat_to_sog.metrics.attributes import attribute_errors
from models.splat_to_sog.pipeline import load
from models.splat_to_sog.pipeline_options import SplatOptions
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import Splats

pytestmark = pytest.mark.node

SCENES = {
    "biker.compressed.ply": "data/splats/biker.compressed.ply",
    "biker.spz": "data/splats/biker.spz",
    "guitar.compressed.ply": "data/splats/guitar.compressed.ply",
    "playbot 0_0, SH2": "data/splats/playbot/0_0",
}


def to_sog(source: Path, folder: Path) -> Path:
    result = load("cpu")(
        LocalContext(folder), [InputFile(source, source.name)], SplatOptions(report=False)
    )
    return result.artifacts[0].path


def assert_equal(ours: Splats, theirs: Splats) -> None:
    """Both decode the same bytes by the same formulas: float32 values agree to the last bits."""
    assert len(ours) == len(theirs)
    assert ours.degree == theirs.degree
    for name in ("means", "scales", "quats", "opacities", "sh0", "shN"):
        # 1e-6 relative: their arithmetic is float64 and float32 mixed, in another order.
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), 1e-6, 1e-7, name)


def test_peer_reads_the_sample_as_we_do(
    samples: Path, splat_transform: Callable[..., str], tmp_path: Path
) -> None:
    sog = to_sog(samples / "playbot.compressed.ply", tmp_path)
    splat_transform(sog, tmp_path / "theirs.ply")
    ours = read(sog, "ours")
    assert (len(ours), ours.degree) == (13000, 2)
    assert_equal(ours, read(tmp_path / "theirs.ply", "theirs"))


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())
def test_peer_reads_real_scenes_as_we_do(
    scene: str, shared: Callable[[str], Path], splat_transform: Callable[..., str], tmp_path: Path
) -> None:
    sog = to_sog(shared(scene), tmp_path)
    splat_transform(sog, tmp_path / "theirs.ply")
    assert_equal(read(sog, "ours"), read(tmp_path / "theirs.ply", "theirs"))


@pytest.mark.parametrize("suffix", [".spz", ".sog", ".compressed.ply", ".ply"])
def test_we_read_what_the_peer_writes(
    suffix: str, samples: Path, splat_transform: Callable[..., str], tmp_path: Path
) -> None:
    """Each format by the peer's writer, and the same file as the peer's reader has it."""
    # The clustering of SH takes the peer long: for .sog the bands are cut.
    cut = ["-H", "0"] if suffix == ".sog" else []
    theirs = tmp_path / f"written{suffix}"
    splat_transform(samples / "playbot.compressed.ply", *cut, theirs)
    splat_transform(theirs, tmp_path / "decoded.ply")
    assert_equal(read(theirs, "ours"), read(tmp_path / "decoded.ply", "theirs"))


def test_peer_writes_spz_v3_that_we_read(
    samples: Path, splat_transform: Callable[..., str], tmp_path: Path
) -> None:
    theirs = tmp_path / "v3.spz"
    splat_transform("--spz-version", "3", samples / "playbot.compressed.ply", theirs)
    splat_transform(theirs, tmp_path / "decoded.ply")
    assert theirs.read_bytes()[:2] == b"\x1f\x8b"
    assert_equal(read(theirs, "ours"), read(tmp_path / "decoded.ply", "theirs"))


def test_biker_is_smaller_and_closer_than_the_peers(
    shared: Callable[[str], Path], splat_transform: Callable[..., str], tmp_path: Path
) -> None:
    """From the same input: no more bytes, at most 0.55x the errors of rotation and opacity."""
    source = shared("data/splats/biker.compressed.ply")
    ours, theirs = to_sog(source, tmp_path), tmp_path / "theirs.sog"
    splat_transform(source, theirs)
    assert ours.stat().st_size <= theirs.stat().st_size
    original = read(source, "source")
    our_error, their_error = (errors(original, read(sog, "sog")) for sog in (ours, theirs))
    for name in ("rotation", "opacity"):
        assert our_error[name] <= 0.55 * their_error[name], (name, our_error, their_error)


def errors(original: Splats, decoded: Splats) -> dict[str, float]:
    """Mean angle between rotations, whichever of its 24 names an ellipsoid's frame has, in degrees,
    and RMS of alpha; rows matched by position."""
    from scipy.spatial import cKDTree

    def features(splats: Splats) -> np.ndarray:
        # Position decides (its step is 4e-5); colour and scale part splats that share a place.
        scales = np.sort(splats.scales.clip(-15), axis=1)
        return np.concatenate([splats.means * 1e3, splats.sh0, scales], axis=1)

    rows = cKDTree(features(decoded)).query(features(original), workers=2)[1]
    found = attribute_errors(original, decoded.take(rows))
    return {"rotation": found["rotation"]["mean_deg"], "opacity": found["opacity"]["rms"]}
