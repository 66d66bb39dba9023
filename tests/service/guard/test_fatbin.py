"""Containers of device code: what nvcc wrote, what NVIDIA's own tool reads, what damage does."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.guard import fatbin
from service.guard.elf import mapped, sections
from service.guard.fatbin import MAGIC, MOST_FAULTS, Code, Kind, read_file

FIXTURES = Path(__file__).parent / "fixtures"
TOLD = json.loads((FIXTURES / "cuobjdump.json").read_text())
PTX_ISA = "@9.0"  # nvcc 13.0


def codes(path: Path) -> list[list[str]]:
    """The names in each container, in order."""
    return [[str(entry.code) for entry in box.entries] for box in read_file(path).containers]


@pytest.mark.parametrize("name", sorted(TOLD))
def test_agrees_with_cuobjdump(compiled: Path, name: str) -> None:
    read = read_file(compiled / f"{name}.so")
    # cuobjdump lists what is registered, or else the linker's input, and no LTO-IR.
    listed = [
        entry.code.name
        for box in read.containers or read.link_input
        for entry in box.entries
        if entry.code.kind in (Kind.SASS, Kind.PTX)
    ]
    assert listed == TOLD[name]
    assert read.faults == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sass_75", [["sm_75"]]),
        ("ptx_120", [["compute_120" + PTX_ISA]]),
        ("sass_ptx_86", [["compute_86" + PTX_ISA, "sm_86"]]),
        ("every", [["sm_75", "sm_86", "sm_90", "compute_120" + PTX_ISA, "sm_120"]]),
        ("exact_90a", [["compute_90a" + PTX_ISA, "sm_90a"]]),
        ("exact_120a", [["sm_120a"]]),
        ("family_120f", [["compute_120f" + PTX_ISA, "sm_120f"]]),
        ("hole", [["sm_75", "sm_86"], ["sm_86"]]),
        ("line_info", [["compute_86" + PTX_ISA, "sm_86"]]),  # entries with a source name
    ],
)
def test_containers_with_suffix_and_ptx_version(
    compiled: Path, name: str, expected: list[list[str]]
) -> None:
    assert codes(compiled / f"{name}.so") == expected


@pytest.mark.parametrize(
    ("mode", "compressed"),
    [
        ("none", [False, False]),
        ("speed", [True, False]),  # PTX by LZ4, machine code as it is
        ("balance", [True, False]),  # PTX by Zstandard
        ("size", [True, True]),
    ],
)
def test_compression_hides_nothing(compiled: Path, mode: str, compressed: list[bool]) -> None:
    (box,) = read_file(compiled / f"compress_{mode}.so").containers
    assert [entry.code.name for entry in box.entries] == ["compute_120", "sm_120"]
    assert [entry.compressed for entry in box.entries] == compressed
    assert not box.empty


def test_containers_without_a_kernel_are_empty(compiled: Path) -> None:
    (box,) = read_file(compiled / "no_kernel.so").containers
    assert box.empty
    assert [box.empty for box in read_file(compiled / "some_empty.so").containers] == [
        False,
        True,
        True,
    ]


def test_input_of_the_device_linker_is_kept_apart(compiled: Path) -> None:
    linked = read_file(compiled / "relocatable.so")
    assert (len(linked.containers), len(linked.link_input)) == (1, 2)
    intermediate = read_file(compiled / "link_time.so")
    assert intermediate.containers == ()
    assert [entry.code.kind for box in intermediate.link_input for entry in box.entries] == [
        Kind.LTO,
        Kind.LTO,
    ]


def without_sections(source: Path, target: Path) -> Path:
    """The file as sstrip leaves it: no section table."""
    data = bytearray(source.read_bytes())
    (table_at,) = struct.unpack_from("<Q", data, 0x28)
    struct.pack_into("<Q", data, 0x28, 0)
    target.write_bytes(data[:table_at])
    return target


@pytest.mark.parametrize("name", ["every", "hole", "some_empty", "compress_size"])
def test_a_library_without_sections_is_searched(compiled: Path, tmp_path: Path, name: str) -> None:
    source = compiled / f"{name}.so"
    assert read_file(without_sections(source, tmp_path / "a.so")) == read_file(source)


def test_a_library_without_device_code_has_none(tmp_path: Path) -> None:
    script = tmp_path / "libm.so"
    script.write_text("/* GNU ld script */\nGROUP ( /lib64/libm.so.6 )\n")
    assert read_file(script).containers == ()
    assert read_file(script).faults == ()


# -- damage ----------------------------------------------------------------------------------


def first_container(data: bytes) -> int:
    return data.index(bytes.fromhex("50ed55ba"))


def damaged(source: Path, target: Path, at: int, layout: str, value: int) -> Path:
    """`value` written at `at` bytes after the first container begins."""
    data = bytearray(source.read_bytes())
    struct.pack_into(layout, data, first_container(bytes(data)) + at, value)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(
    ("at", "layout", "value", "message"),
    [
        (0, "<I", 0xDEADBEEF, "no container at"),
        (4, "<H", 2, "version 2"),
        (6, "<H", 24, "header of 24 bytes"),
        (8, "<Q", 2**62, "lie outside"),
        (16 + 4, "<I", 8, "entry's header of 8 bytes"),
        (16 + 4, "<I", 2**31, "lie outside"),
        (16 + 8, "<Q", 2**63, "lie outside"),
    ],
)
def test_damage_is_told_and_the_rest_is_read(
    compiled: Path, tmp_path: Path, at: int, layout: str, value: int, message: str
) -> None:
    read = read_file(damaged(compiled / "hole.so", tmp_path / "a.so", at, layout, value))
    assert message in read.faults[0]
    assert [[entry.code.name for entry in box.entries] for box in read.containers] == [["sm_86"]]


def test_a_library_cut_off_anywhere_is_damaged(compiled: Path, tmp_path: Path) -> None:
    data = (compiled / "every.so").read_bytes()
    file = tmp_path / "a.so"
    for size in (1, 63, 64, 200, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        read = read_file(file)
        assert read.faults or size == 1  # one byte is no ELF file at all
        assert read.containers == ()


def test_an_entry_of_a_kind_not_met_yet_is_kept_and_not_taken_for_code(
    compiled: Path, tmp_path: Path
) -> None:
    read = read_file(damaged(compiled / "sass_86.so", tmp_path / "a.so", 16, "<H", 16))
    assert [entry.code for box in read.containers for entry in box.entries] == [
        Code(Kind.OTHER, 86)
    ]
    assert read.faults == ()


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    assert "No such file" in read_file(tmp_path / "a.so").faults[0]


def elf_of(device_code: bytes) -> bytes:
    """An ELF file without sections that holds these bytes at offset 64."""
    return b"\x7fELF\x02\x01" + bytes(58) + device_code


@pytest.mark.parametrize(
    "container",
    [
        struct.pack("<IHHQ", MAGIC, 1, 16, 2**40),  # longer than the file
        struct.pack("<IHHQQQ", MAGIC, 1, 16, 16, 0, 0),  # entries shorter than their header
    ],
)
def test_a_file_of_nothing_but_damage_is_left_after_a_few_faults(
    tmp_path: Path, container: bytes
) -> None:
    file = tmp_path / "a.so"
    file.write_bytes(elf_of(container * 1000))
    read = read_file(file)
    assert read.containers == ()
    assert 0 < len(read.faults) <= MOST_FAULTS


def test_a_file_of_endless_entries_is_left(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fatbin, "MOST_ENTRIES", 4)
    read = read_file(compiled / "every.so")
    assert read.faults == ("damaged: more than 4 entries",)


def test_sections_that_overlap_are_damage(compiled: Path, tmp_path: Path) -> None:
    """A table that names the same megabyte a thousand times must not be read a thousand times."""
    data = bytearray((compiled / "hole.so").read_bytes())
    with mapped(compiled / "hole.so") as view:
        (device,) = [item for item in sections(view) or [] if item.name == ".nv_fatbin"]
    (table_at,) = struct.unpack_from("<Q", data, 0x28)
    (count,) = struct.unpack_from("<H", data, 0x3C)
    headers = range(table_at, table_at + 64 * count, 64)
    places = [struct.unpack_from("<Q", data, at + 24)[0] for at in headers]
    original = data[headers[places.index(device.offset)] :][:64]
    for at in headers[1:-1]:
        data[at : at + 64] = original
    file = tmp_path / "a.so"
    file.write_bytes(data)
    assert read_file(file).faults == ("damaged: its sections of device code overlap",)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_damage_ends_in_an_exception_or_goes_on_for_ever(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["every", "hole", "some_empty", "compress_size"]))
    content = bytearray((FIXTURES / f"{name}.so").read_bytes())
    begin = first_container(bytes(content))
    for _ in range(data.draw(st.integers(1, 6))):
        # Headers are where it hurts: of the file, of its sections, of the first container.
        spot = data.draw(st.sampled_from([0, begin, len(content) - 64 * 30]))
        at = min(max(0, spot + data.draw(st.integers(0, 2000))), len(content) - 8)
        value = data.draw(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**31, 2**63]))
        struct.pack_into("<Q", content, at, value)
    keep = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    file = tmp_path_factory.mktemp("fuzz") / "a.so"
    file.write_bytes(content[:keep])
    read = read_file(file)
    assert len(read.faults) <= MOST_FAULTS
    assert len(read.containers) <= len(content) // 16


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["sm_75", "sm_90a", "sm_120f", "compute_90@8.4", "lto_86"])
def test_a_code_is_read_back_from_its_text(text: str) -> None:
    assert str(Code.parse(text)) == text


@pytest.mark.parametrize("text", ["", "sm_", "sm_90b", "gfx_90", "sm_90@8"])
def test_what_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no device code"):
        Code.parse(text)
