"""A file's type is seen in its first bytes; what is not a splat is told what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.context import InvalidInput
from models.splat_to_sog.readers import read


@pytest.mark.parametrize(
    ("head", "saw"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"RIFF\0\0\0\0WEBP", "a RIFF file"),
        (b"glTF\2\0\0\0", "a binary glTF mesh"),
        (b"<!DOCTYPE html>", "an XML or HTML text"),
        (b"\x01\x02\x03\x04hello", "begins with 01 02 03 04 68 65 6c 6c"),
        (b"plyers", "begins with 70 6c 79"),
    ],
)
def test_says_what_it_saw_and_what_is_accepted(tmp_path: Path, head: bytes, saw: str) -> None:
    path = tmp_path / "scene.ply"  # the name says nothing
    path.write_bytes(head)
    with pytest.raises(InvalidInput) as error:
        read(path, "holiday.ply")
    assert error.value.message.startswith("holiday.ply: this is a")
    assert saw in error.value.message
    assert ".splat, .ksplat, .spz (v1 to v4), .sog (v1, v2)" in error.value.message
    assert error.value.code == "splat_type"


def test_a_misnamed_file_is_read_by_its_content(samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    path.write_bytes((samples / "playbot.compressed.ply").read_bytes())
    assert len(read(path, "scene.png")) == 13000


def test_a_folder_without_a_description(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="without a meta.json"):
        read(tmp_path, "folder")
