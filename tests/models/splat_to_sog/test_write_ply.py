"""A .ply gives back every bit; its header is the reference code's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.writers.formats import PlyOptions
from models.splat_to_sog.writers.write import write

MakeSplats = Callable[..., Splats]
ATTRIBUTES = ("means", "scales", "quats", "opacities", "sh0", "shN")


def header_of(path: Path) -> list[str]:
    return path.read_bytes().split(b"end_header\n")[0].decode("ascii").splitlines()


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_every_bit_comes_back(degree: int, make_splats: MakeSplats, tmp_path: Path) -> None:
    splats = make_splats(1000, degree)
    splats.opacities[:3] = np.inf, -np.inf, np.nan
    splats.scales[4] = -np.inf
    write(splats, tmp_path / "scene.ply")
    back = read(tmp_path / "scene.ply", "scene.ply")
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(getattr(back, name), getattr(splats, name), name)


def test_the_header_is_the_reference_codes(make_splats: MakeSplats, tmp_path: Path) -> None:
    """`construct_list_of_attributes` of the reference code, with and without its empty normals."""
    rest = [f"f_rest_{i}" for i in range(9)]
    after = ["f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity", "scale_0", "scale_1", "scale_2"]
    after += ["rot_0", "rot_1", "rot_2", "rot_3"]
    for normals, columns in ((False, []), (True, ["nx", "ny", "nz"])):
        path = tmp_path / f"{normals}.ply"
        write(make_splats(5, 1), path, options=PlyOptions(normals=normals))
        names = ["x", "y", "z", *columns, *after]
        assert header_of(path) == [
            "ply",
            "format binary_little_endian 1.0",
            "element vertex 5",
            *(f"property float {name}" for name in names),
        ]
        assert path.stat().st_size == len("\n".join(header_of(path))) + 12 + 5 * 4 * len(names)


def test_marks_of_the_model(make_splats: MakeSplats, tmp_path: Path) -> None:
    splats = make_splats(5)
    path = tmp_path / "scene.ply"
    write(replace(splats, model="antialiased"), path)
    assert header_of(path)[2:4] == ["comment SplatRenderMode: mip", "comment antialiased 1"]
    assert read(path, "scene.ply").model == "antialiased"

    write(replace(splats, model="2dgs"), path)
    assert header_of(path)[2] == "comment SplatRenderMode: 2dgs"
    assert "property float scale_2" not in header_of(path)
    back = read(path, "scene.ply")
    assert back.model == "2dgs"
    np.testing.assert_array_equal(back.scales[:, :2], splats.scales[:, :2])
    assert np.isneginf(back.scales[:, 2]).all()
