"""ELF files as a table of sections, and what damage does to it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from service.guard.elf import Damaged, is_elf, mapped, sections

TABLE_AT, ENTRY_SIZE, COUNT, NAMES = 0x28, 0x3A, 0x3C, 0x3E


def changed(source: Path, target: Path, at: int, layout: str, value: int) -> Path:
    data = bytearray(source.read_bytes())
    struct.pack_into(layout, data, at, value)
    target.write_bytes(data)
    return target


def test_sections_of_a_library_have_their_names_and_places(compiled: Path) -> None:
    with mapped(compiled / "every.so") as view:
        table = {section.name: section for section in sections(view) or []}
        device = table[".nv_fatbin"]
        assert view.read(device.offset, 4) == bytes.fromhex("50ed55ba")
        assert table[".nvFatBinSegment"].size == 24  # one container, one wrapper


def test_sections_without_room_in_the_file_are_left_out(compiled: Path) -> None:
    with mapped(compiled / "every.so") as view:
        assert ".bss" not in {section.name for section in sections(view) or []}


def test_a_file_without_a_table_has_none(compiled: Path, tmp_path: Path) -> None:
    bare = changed(compiled / "every.so", tmp_path / "a.so", TABLE_AT, "<Q", 0)
    with mapped(bare) as view:
        assert sections(view) is None


@pytest.mark.parametrize(
    ("at", "layout", "value", "message"),
    [
        (TABLE_AT, "<Q", 10**9, "lie outside"),
        (ENTRY_SIZE, "<H", 8, "section headers of 8 bytes"),
        (COUNT, "<H", 60000, "table of 60000 sections"),
        (NAMES, "<H", 500, "section names are section 500"),
    ],
)
def test_a_damaged_header_is_told(
    compiled: Path, tmp_path: Path, at: int, layout: str, value: int, message: str
) -> None:
    damaged = changed(compiled / "every.so", tmp_path / "a.so", at, layout, value)
    with mapped(damaged) as view, pytest.raises(Damaged, match=message):
        sections(view)


def test_a_section_count_above_65279_stands_in_the_first_section(
    compiled: Path, tmp_path: Path
) -> None:
    """gABI: e_shnum is 0 then, and sh_size of section 0 has the count."""
    data = bytearray((compiled / "every.so").read_bytes())
    (table_at,) = struct.unpack_from("<Q", data, TABLE_AT)
    (count,) = struct.unpack_from("<H", data, COUNT)
    struct.pack_into("<H", data, COUNT, 0)
    struct.pack_into("<Q", data, table_at + 32, count)
    file = tmp_path / "a.so"
    file.write_bytes(data)
    with mapped(file) as view:
        assert len(sections(view) or []) > 10


def test_only_64_bit_little_endian_files_are_read(compiled: Path, tmp_path: Path) -> None:
    old = changed(compiled / "every.so", tmp_path / "a.so", 4, "<B", 1)
    text = tmp_path / "libc.so"
    text.write_text("/* GNU ld script */ INPUT(-lc)")
    for file in (old, text):
        with mapped(file) as view:
            assert not is_elf(view)


def test_an_empty_file_is_damaged(tmp_path: Path) -> None:
    empty = tmp_path / "a.so"
    empty.touch()
    with pytest.raises(Damaged, match="empty"), mapped(empty):
        pass


def test_reads_stay_inside_the_view(compiled: Path) -> None:
    with mapped(compiled / "every.so") as view:
        part = view.part(64, 16)
        assert part.read(0, 16) == view.read(64, 16)
        for at, size in ((0, 17), (-1, 4), (16, 1), (4, -1)):
            with pytest.raises(Damaged):
                part.read(at, size)
        with pytest.raises(Damaged):
            part.unpack(struct.Struct("<Q"), 9)
        with pytest.raises(Damaged):
            part.part(0, 17)
        assert part.find(view.read(90, 8)) == -1  # begins behind the end of the part
