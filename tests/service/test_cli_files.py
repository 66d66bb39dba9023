"""Files put in their place whole: what a failure on the way leaves, and what an .obj brings."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import pytest

from service.cli.files import obj_companions, place, place_copy, place_obj


def test_a_failure_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.glb"
    target.write_text("old")

    def fill(file: IO[bytes]) -> None:
        file.write(b"half of the ne")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        place(target, fill)
    assert [path.name for path in tmp_path.iterdir()] == ["a.glb"]
    assert target.read_text() == "old"


def test_the_name_is_given_last(tmp_path: Path) -> None:
    target = tmp_path / "a.glb"

    def fill(file: IO[bytes]) -> None:
        file.write(b"new")
        assert not target.exists()

    place(target, fill)
    assert target.read_bytes() == b"new"


def test_a_copy_over_a_link_replaces_the_link_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("new")
    (tmp_path / "precious").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    place_copy(tmp_path / "source", tmp_path / "link")
    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "precious").read_text() == "old"


def test_an_archive_cannot_write_beside_the_names_of_its_target(tmp_path: Path) -> None:
    archive = tmp_path / "mesh.obj.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../evil.obj", "mtllib /etc/evil.mtl\n")
        file.writestr("../evil.mtl", "map_Kd ../../evil.jpg\n")
        file.writestr("evil.jpg", b"\xff\xd8")
        file.writestr("evil.sh", "rm -r")
    folder = tmp_path / "out"
    folder.mkdir()
    written = place_obj(archive, folder / "chair.obj")
    assert [path.name for path in written] == ["chair.obj", "chair.mtl", "chair_texture.jpg"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in written}
    assert (folder / "chair.obj").read_text() == "mtllib chair.mtl\n"
    assert (folder / "chair.mtl").read_text() == "map_Kd chair_texture.jpg\n"


def test_a_texture_never_takes_the_name_of_the_picture() -> None:
    names = {path.name for path in obj_companions(Path("chair.obj")).values()}
    assert names == {"chair.mtl", "chair_texture.png", "chair_texture.jpg"}
