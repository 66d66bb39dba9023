"""A .ply as text, in either byte order, with any column type: the same scene each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.context import InvalidInput
from models.splat_to_sog.readers import ply_text, read
from models.splat_to_sog.splats import Splats

FIXTURES = [HealthCheck.function_scoped_fixture]  # the file is written anew by each example


def table_of(splats: Splats) -> np.ndarray:
    n, _, k = splats.shN.shape
    parts = (splats.means, np.zeros((n, 3)), splats.sh0, splats.shN.reshape(n, 3 * k))
    return np.concatenate(
        [*parts, splats.opacities[:, None], splats.scales, splats.quats], axis=1
    ).astype(np.float64)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("degree", [0, 3])
def test_every_form_holds_the_same_scene(
    tmp_path: Path, make_splats, formats, assert_equal, form: str, degree: int
) -> None:
    splats = make_splats(70, degree)
    path = tmp_path / "scene.ply"
    path.write_bytes(formats.ply(table_of(splats), formats.ply_columns(degree), form))
    assert_equal(read(path, "scene.ply"), splats)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_columns_of_other_types_keep_their_values(tmp_path: Path, rng, formats, form) -> None:
    columns = formats.ply_columns(1)
    table = rng.integers(0, 200, (31, len(columns))).astype(np.float64)
    kinds = {c: ("double", "uchar", "short", "int")[i % 4] for i, c in enumerate(columns)}
    path = tmp_path / "scene.ply"
    path.write_bytes(formats.ply(table, columns, form, kinds))
    splats = read(path, "scene.ply")
    plain = read_plain(splats)
    for index, column in enumerate(columns):
        if column in plain:
            np.testing.assert_array_equal(plain[column], table[:, index], column)


def read_plain(splats: Splats) -> dict[str, np.ndarray]:
    """Columns of a 3DGS .ply by name: the plain reference for the reader's runs of columns."""
    plain = {axis: splats.means[:, i] for i, axis in enumerate("xyz")}
    plain |= {f"f_dc_{i}": splats.sh0[:, i] for i in range(3)}
    plain |= {f"scale_{i}": splats.scales[:, i] for i in range(3)}
    plain |= {f"rot_{i}": splats.quats[:, i] for i in range(4)}
    k = splats.shN.shape[2]
    plain |= {f"f_rest_{i}": splats.shN[:, i // k, i % k] for i in range(3 * k)}
    return plain | {"opacity": splats.opacities}


@given(
    form=st.sampled_from(["ascii", "binary_little_endian", "binary_big_endian"]),
    kinds=st.lists(st.sampled_from(["float", "double", "uchar", "short", "int"]), min_size=40),
    extra=st.integers(0, 9),
    rows=st.integers(1, 40),
    degree=st.integers(0, 2),
    seed=st.integers(0, 1 << 32),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_and_types(tmp_path: Path, formats, form, kinds, extra, rows, degree, seed):
    """Runs of neighbouring columns, broken anywhere, against picking each column by name."""
    rng = np.random.default_rng(seed)
    columns = [*formats.ply_columns(degree), *(f"extra_{i}" for i in range(extra))]
    if seed % 2:
        rng.shuffle(columns)
    table = rng.integers(0, 200, (rows, len(columns))).astype(np.float64)
    chosen = {column: kinds[i % len(kinds)] for i, column in enumerate(columns)}
    path = tmp_path / "scene.ply"
    path.write_bytes(formats.ply(table, columns, form, chosen))
    plain = read_plain(read(path, "scene.ply"))
    for column in plain:
        np.testing.assert_array_equal(plain[column], table[:, columns.index(column)], column)


def test_values_no_float32_holds_become_infinite(tmp_path: Path, formats) -> None:
    columns = formats.ply_columns(0)
    table = np.full((2, len(columns)), 1e300)
    path = tmp_path / "scene.ply"
    path.write_bytes(formats.ply(table, columns, kinds=dict.fromkeys(columns, "double")))
    assert np.isposinf(read(path, "scene.ply").means).all()


def test_lists_and_elements_behind_the_splats_are_passed_over(
    tmp_path: Path, make_splats, formats, assert_equal
) -> None:
    splats = make_splats(9)
    header = "element face 2\nproperty list uchar int vertex_indices\n"
    faces = b"\x03" + bytes(12) + b"\x04" + bytes(16)
    for form, data in (("binary_little_endian", faces), ("ascii", b"3 0 1 2\n4 0 1 2 3\n")):
        path = tmp_path / "scene.ply"
        path.write_bytes(
            formats.ply(table_of(splats), formats.ply_columns(0), form, None, (), header, data)
        )
        assert_equal(read(path, "scene.ply"), splats)


def test_lists_before_the_splats_are_refused(tmp_path: Path, make_splats, formats) -> None:
    data = formats.ply(table_of(make_splats(3)), formats.ply_columns(0))
    faces = b"element face 2\nproperty list uchar int vertex_indices\nelement vertex"
    path = tmp_path / "scene.ply"
    path.write_bytes(data.replace(b"element vertex", faces))
    with pytest.raises(InvalidInput, match="'face' has the list property 'vertex_indices'; lists"):
        read(path, "scene.ply")


def test_text_may_break_anywhere(
    tmp_path: Path, make_splats, formats, assert_equal, monkeypatch
) -> None:
    """Blocks of 7 bytes: every number is cut somewhere."""
    splats = make_splats(12, 1)
    path = tmp_path / "scene.ply"
    path.write_bytes(formats.ply(table_of(splats), formats.ply_columns(1), "ascii"))
    monkeypatch.setattr(ply_text, "BLOCK_BYTES", 7)
    assert_equal(read(path, "scene.ply"), splats)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((b" 7 ", b" seven "), "has 'seven' where a value belongs: it is not a number"),
        ((b" 7 ", b" 7.5 "), "'7.5' where a value belongs: it is not a whole number of 0 to 255"),
        ((b" 7 ", b" 256 "), "'256' .* a whole number of 0 to 255"),
        ((b" 7 ", b" nan "), "'nan' .* a whole number of 0 to 255"),
        ((b" 7 ", b" " + b"7" * 500 + b" "), "not a whole number"),
        ((b" 7 ", b" "), "the text ends after 50 numbers; 3 records of 17 numbers"),
        ((b"vertex 3", b"vertex 3000"), r"3000 'vertex' records of 17 numbers, at least \d+ bytes"),
    ],
)
def test_refuses_bad_text(tmp_path: Path, formats, change, says) -> None:
    columns = formats.ply_columns(0)
    table = np.zeros((3, len(columns)))
    table[1, 3] = 7
    path = tmp_path / "scene.ply"
    data = formats.ply(table, columns, "ascii", {"nx": "uchar"})
    assert data.count(change[0]) == 1
    path.write_bytes(data.replace(*change))
    with pytest.raises(InvalidInput, match=says):
        read(path, "scene.ply")
