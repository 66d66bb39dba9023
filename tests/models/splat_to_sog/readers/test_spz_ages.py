""".spz: version 1's half floats, degree 4, extensions, and streams longer than a chunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.context import InvalidInput
from models.splat_to_sog.readers import read, spz


def test_version_1_has_half_floats_and_the_rotations_of_2(tmp_path: Path, rng, formats) -> None:
    parts = formats.spz_parts(rng, 40, 2, 1)
    path = tmp_path / "a.spz"
    path.write_bytes(formats.spz(parts, 40, 2, 1))
    one = read(path, "a.spz")
    halves = np.frombuffer(parts[0], "<f2").reshape(40, 3)
    np.testing.assert_array_equal(one.means, halves.astype(np.float32))
    path.write_bytes(formats.spz([bytes(9 * 40), *parts[1:]], 40, 2, 2))
    two = read(path, "a.spz")
    for name in ("scales", "quats", "opacities", "sh0", "shN"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), name)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_chunks_do_not_show(tmp_path: Path, rng, formats, monkeypatch, assert_equal, version):
    """Chunks of 7 splats: the same scene as in one."""
    path = tmp_path / "a.spz"
    path.write_bytes(formats.spz(formats.spz_parts(rng, 50, 3, version), 50, 3, version))
    whole = read(path, "a.spz")
    monkeypatch.setattr(spz, "CHUNK_ROWS", 7)
    assert_equal(read(path, "a.spz"), whole)


@pytest.mark.parametrize("version", [3, 4])
def test_degree_4_and_extensions(tmp_path: Path, rng, formats, assert_equal, version) -> None:
    parts = formats.spz_parts(rng, 9, 4, version)
    path = tmp_path / "a.spz"
    path.write_bytes(formats.spz(parts, 9, 4, version))
    plain = read(path, "a.spz")
    assert plain.shN.shape == (9, 3, 24)
    assert plain.shN[3, 1, 23] == (parts[5][3 * 72 + 23 * 3 + 1] - 128) / 128
    extension = b"\x02\x00\xbe\xad\x0c\0\0\0" + bytes(12)
    path.write_bytes(formats.spz(parts, 9, 4, version, flags=2, extensions=extension))
    assert_equal(read(path, "a.spz"), plain)


def test_streams_that_end_early_say_how_much_there_is(tmp_path: Path, rng, formats) -> None:
    parts = formats.spz_parts(rng, 40, 0, 3)
    path = tmp_path / "a.spz"
    path.write_bytes(formats.spz([parts[0], parts[1][:7]], 40, 0, 3))
    with pytest.raises(InvalidInput, match="need 800 bytes, the gzip stream holds 367") as error:
        read(path, "a.spz")
    assert error.value.code == "splat_truncated"
