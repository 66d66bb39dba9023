"""An ELF file as a mapped range of bytes with a table of sections (System V gABI, chapter 4).

Reads 64-bit little-endian files, which is what CUDA runs on; knows nothing of what the sections
hold. Only the pages that are asked for are read, so a file of 1 GB costs what its headers cost.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ELF_MAGIC = b"\x7fELF"
MOST_SECTIONS = 1_000_000  # a relocatable file may have many; a damaged count must not keep us
_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NO_BITS = 8  # SHT_NOBITS: the section takes no room in the file
_EXTENDED_INDEX = 0xFFFF  # SHN_XINDEX: the real index stands in the first section header


class Damaged(Exception):
    """The file ends early or contradicts itself; the message says where, in bytes."""


@dataclass(frozen=True)
class View:
    """Bytes [start, end) of a mapped file. Every read is checked against these bounds."""

    data: mmap.mmap
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from `at` on; Damaged where the view ends before."""
        if at < 0 or size < 0 or at + size > len(self):
            raise Damaged(f"{size} bytes at {at} lie outside its {len(self)} bytes")
        return self.data[self.start + at : self.start + at + size]

    def unpack(self, layout: struct.Struct, at: int) -> tuple[int, ...]:
        if at < 0 or at + layout.size > len(self):
            raise Damaged(f"{layout.size} bytes at {at} lie outside its {len(self)} bytes")
        return layout.unpack_from(self.data, self.start + at)

    def find(self, needle: bytes, at: int = 0) -> int:
        """Where `needle` next begins, from `at` on; -1 where it does not."""
        found = self.data.find(needle, self.start + at, self.end)
        return found - self.start if found >= 0 else -1

    def expect(self, at: int, size: int) -> None:
        """Has the system fetch what will be read soon, without waiting for it. A hint, no check."""
        if hasattr(mmap, "MADV_WILLNEED"):
            begin = (self.start + at) // mmap.PAGESIZE * mmap.PAGESIZE
            end = min(self.start + at + size, len(self.data))
            if begin < end:
                self.data.madvise(mmap.MADV_WILLNEED, begin, end - begin)

    def part(self, at: int, size: int) -> View:
        """Bytes [at, at + size) as a view of their own."""
        if at < 0 or size < 0 or at + size > len(self):
            raise Damaged(f"{size} bytes at {at} lie outside its {len(self)} bytes")
        return View(self.data, self.start + at, self.start + at + size)


@dataclass(frozen=True)
class Section:
    """Name, and where in the file: `offset` and `size` in bytes."""

    name: str
    offset: int
    size: int


@contextmanager
def mapped(path: Path) -> Iterator[View]:
    """The file, mapped for scattered reads. OSError where it cannot be opened; may be empty."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size == 0:
            raise Damaged("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if hasattr(mmap, "MADV_RANDOM"):
                data.madvise(mmap.MADV_RANDOM)  # no read-ahead: we touch a page in a hundred
            yield View(data, 0, len(data))


def is_elf(view: View) -> bool:
    """Whether this is an ELF file of the kind read here: 64-bit, little-endian."""
    return len(view) >= 6 and view.read(0, 6) == ELF_MAGIC + b"\x02\x01"


def sections(view: View) -> list[Section] | None:
    """The sections that take room in the file; None where the file has no section table.

    Raises Damaged where the table, or a section it names, lies outside the file.
    """
    header = view.unpack(_HEADER, 0)
    table_at, entry_size, count, names_index = header[8], header[13], header[14], header[15]
    if table_at == 0:
        return None
    if entry_size < _SECTION.size:
        raise Damaged(f"section headers of {entry_size} bytes, {_SECTION.size} needed")
    first = view.unpack(_SECTION, table_at)
    count = count or first[5]  # 65,280 sections and more: the count stands in the first header
    names_index = first[6] if names_index == _EXTENDED_INDEX else names_index
    if count > MOST_SECTIONS or table_at + count * entry_size > len(view):
        raise Damaged(f"its table of {count} sections at {table_at} lies outside {len(view)} bytes")
    if names_index >= count:
        raise Damaged(f"its section names are section {names_index} of {count}")
    rows = [view.unpack(_SECTION, table_at + index * entry_size) for index in range(count)]
    names = view.part(rows[names_index][4], rows[names_index][5])
    text = names.read(0, len(names))
    found = []
    for name_at, kind, _, _, offset, size, *_ in rows:
        if kind in (0, _NO_BITS):
            continue
        if offset + size > len(view):
            raise Damaged(f"a section of {size} bytes at {offset} lies outside {len(view)} bytes")
        name = text[name_at : text.find(b"\0", name_at)] if name_at < len(text) else b""
        found.append(Section(name.decode("utf-8", errors="replace"), offset, size))
    return found
