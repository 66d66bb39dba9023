"""The table of writers: which name means which format, and what is common to all of them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.context import InvalidInput
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.writers.formats import FORMATS, SpzOptions, format_of
from models.splat_to_sog.writers.write import write
from models.splat_to_sog.writers.written import new_file

NAMES = {
    "scene.sog": "sog",
    "meta.json": "loose",
    "scene.loose.zip": "loose",
    "lod-meta.json": "lod",
    "garden.lod.zip": "lod",
    "a.compressed.ply": "compressed",
    "A.PLY": "ply",
    "b.spz": "spz",
}
ONE_FILE = ("scene.sog", "scene.ply", "scene.compressed.ply", "scene.spz")


@pytest.mark.parametrize(("name", "format"), NAMES.items())
def test_the_name_says_the_format(name: str, format: str) -> None:
    assert format_of(Path("folder") / name) == format


def test_every_format_has_a_name() -> None:
    assert set(NAMES.values()) == set(FORMATS)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"scene\.obj.*\.compressed\.ply"):
        format_of(Path("scene.obj"))


def test_the_table_needs_no_array_library() -> None:
    """The command line lists the formats; it must not load numpy for that."""
    code = "import sys, models.splat_to_sog.writers.formats; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ONE_FILE)
def test_same_scene_same_bytes(
    name: str, make_splats: Callable[..., Splats], tmp_path: Path
) -> None:
    splats = make_splats(300, 1)
    for folder in ("a", "b"):
        write(splats, tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", [*ONE_FILE, "meta.json"])
def test_what_is_written_is_recognised_and_nothing_else_is_left(
    name: str, make_splats: Callable[..., Splats], tmp_path: Path
) -> None:
    written = write(make_splats(300, 2), tmp_path / name)
    assert written.files[0] == tmp_path / name
    assert sorted(tmp_path.iterdir()) == sorted(written.files)
    assert written.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    splats = read(tmp_path / name, name)
    assert (len(splats), splats.degree) == (300, 2)


def test_a_loose_sog_is_the_bundle_unpacked(
    make_splats: Callable[..., Splats], tmp_path: Path
) -> None:
    splats = make_splats(200, 1)
    write(splats, tmp_path / "loose" / "meta.json")
    for archive in ("scene.sog", "scene.loose.zip"):
        write(splats, tmp_path / archive)
        with zipfile.ZipFile(tmp_path / archive) as files:
            inside = {name: files.read(name) for name in files.namelist()}
        beside = {file.name: file.read_bytes() for file in (tmp_path / "loose").iterdir()}
        assert inside == beside
    assert not list(tmp_path.glob(".*"))  # the folder it was gathered in


def test_a_scene_in_paged_files_gives_the_same_bytes(
    make_splats: Callable[..., Splats], tmp_path: Path
) -> None:
    """Attributes as memory maps, and more than one block of each writer."""
    splats = make_splats(70_000, 1)
    paged = {}
    for name in ("means", "scales", "quats", "opacities", "sh0", "shN"):
        array = getattr(splats, name)
        paged[name] = np.memmap(tmp_path / name, np.float32, "w+", shape=array.shape)
        paged[name][:] = array
    for name in ("scene.ply", "scene.compressed.ply", "scene.spz"):
        write(splats, tmp_path / "a" / name)
        write(replace(splats, **paged), tmp_path / "b" / name)
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert len(read(tmp_path / "a" / name, name)) == 70_000


@pytest.mark.parametrize("name", ["scene.sog", "scene.compressed.ply", "scene.spz"])
@pytest.mark.parametrize(
    ("attribute", "what", "value"),
    [
        ("means", "position", np.inf),
        ("scales", "scale", np.inf),
        ("quats", "rotation", np.nan),
        ("opacities", "opacity", np.nan),
        ("sh0", "colour", -np.inf),
        ("shN", "harmonics", np.nan),
    ],
)
def test_packed_formats_refuse_what_they_cannot_hold(
    name: str,
    attribute: str,
    what: str,
    value: float,
    make_splats: Callable[..., Splats],
    tmp_path: Path,
) -> None:
    splats = make_splats(10, 1)
    array = getattr(splats, attribute).copy()
    array[7] = value
    with pytest.raises(InvalidInput, match=f"{what} of splat 7"):
        write(replace(splats, **{attribute: array}), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_no_splats_no_file(make_splats: Callable[..., Splats], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="0 splats"):
        write(make_splats(0), tmp_path / "scene.ply")
    assert list(tmp_path.iterdir()) == []


def test_options_of_another_format_are_a_mistake_of_the_caller(
    make_splats: Callable[..., Splats], tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match="'spz'"):
        write(make_splats(1), tmp_path / "scene.spz", options=SogOptions())
    with pytest.raises(InvalidInput, match="'splat' is not known"):
        write(make_splats(1), tmp_path / "scene.splat", "splat")


def test_a_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "scene.ply"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), new_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with new_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("version", [3, 4])
def test_cancelling_leaves_nothing(
    version: int, make_splats: Callable[..., Splats], tmp_path: Path
) -> None:
    def stop(stage: str, fraction: float) -> None:
        if fraction > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(
            make_splats(50), tmp_path / "a.spz", options=SpzOptions(version=version), on_stage=stop
        )
    assert list(tmp_path.iterdir()) == []
