"""Which device code a library carries: NVIDIA's fat binary containers, read from the file.

Knows nothing of GPUs and loads nothing. Layout: docs/gpus.md, "Device code in a file"; every field
used stands in the clear, so compressed code is never decompressed. A container is what one source
file became: kernels of one container have its architectures and no others.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from service.guard.elf import Damaged, Section, View, is_elf, mapped, sections

REGISTERED = ".nv_fatbin"  # what the CUDA runtime is given when the library is loaded
LINK_INPUT = "__nv_relfatbin"  # what was given to the device linker; never loaded
MAGIC = 0xBA55ED50
MOST_FAULTS = 8  # a damaged file repeats itself: what comes after these is not read
MOST_PADDING = 4096  # bytes of zeros the linker puts between containers: up to its alignment
MOST_ENTRIES = 1_000_000  # in a section; the largest library of 2026 has 15,000

_CONTAINER = struct.Struct("<IHHQ")  # magic, version, header size, payload size
# kind, 0x0101, header size, payload size, compressed size, options at, minor, major, architecture,
# source name at and length, flags, hash, uncompressed size
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_VERSION_AND_SIZE = struct.pack("<HH", 1, _CONTAINER.size)
_AHEAD = 4096  # bytes: the header of an entry, and where machine code names its kernels
_EXACT, _FAMILY = 0x100000, 0x200000  # flags: sm_90a, sm_120f
_COMPRESSED = 0x2000 | 0x8000  # flags: LZ4, Zstandard


class Kind(StrEnum):
    """What an entry of a container is."""

    PTX = "compute"  # text the driver compiles
    SASS = "sm"  # machine code
    LTO = "lto"  # input of a linker; never loaded
    OTHER = "other"  # a kind not met yet; counts as not loadable


_KINDS = {1: Kind.PTX, 2: Kind.SASS, 8: Kind.LTO}
_TEXT = re.compile(r"(compute|sm|lto|other)_(\d+)([af]?)(?:@(\d+)\.(\d+))?")


@dataclass(frozen=True, slots=True)
class Code:
    """What one entry is compiled for.

    arch:    10 * major + minor of the compute capability: 75, 120
    suffix:  "a" that chip alone, "f" its family, "" neither
    ptx_isa: version of the PTX language, (8, 4); None for anything but PTX
    """

    kind: Kind
    arch: int
    suffix: str = ""
    ptx_isa: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """As nvcc writes it: "sm_90a", "compute_120"."""
        return f"{self.kind}_{self.arch}{self.suffix}"

    def __str__(self) -> str:
        """The name, and the version of PTX: "compute_90@8.4". `parse` reads it back."""
        return self.name + ("@{}.{}".format(*self.ptx_isa) if self.ptx_isa else "")

    @classmethod
    def parse(cls, text: str) -> Code:
        """ValueError when `text` is not what `str` of a Code gives."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} names no device code")
        isa = (int(match[4]), int(match[5])) if match[4] else None
        return cls(Kind(match[1]), int(match[2]), match[3], isa)


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of code in a container.

    compressed: as stored
    empty:      a module without a kernel; only seen where the code is stored uncompressed
    """

    code: Code
    compressed: bool
    empty: bool


@dataclass(frozen=True, slots=True)
class Container:
    """`offset` in the file in bytes, and the entries in their order."""

    offset: int
    entries: tuple[Entry, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing in it can be launched: source files compiled by nvcc without a kernel.

        The PTX beside cubins that are all empty comes from the same source, so it has none either.
        """
        cubins = [entry.empty for entry in self.entries if entry.code.kind is Kind.SASS]
        return all(cubins) if cubins else all(entry.empty for entry in self.entries)


@dataclass(frozen=True)
class DeviceCode:
    """What one file carries.

    containers:  in the order of the file, empty ones too
    link_input:  containers of relocatable code left over from linking; they are never loaded
    faults:      what is damaged, for people; what could be read is there all the same
    """

    containers: tuple[Container, ...] = ()
    link_input: tuple[Container, ...] = ()
    faults: tuple[str, ...] = ()


def read_file(path: Path) -> DeviceCode:
    """The device code of one file; none for what is no ELF file. Never raises on its content."""
    try:
        with mapped(path) as view:
            return read(view)
    except Damaged as damage:
        return DeviceCode(faults=(str(damage),))
    except OSError as error:
        return DeviceCode(faults=(f"cannot be read: {error.strerror or error}",))


def read(view: View) -> DeviceCode:
    """The device code of the ELF file in `view`; never raises on its content."""
    if not is_elf(view):
        return DeviceCode()
    faults: list[str] = []
    try:
        table = sections(view)
    except Damaged as damage:
        return DeviceCode(faults=(f"damaged: {damage}",))
    if table is None:
        return DeviceCode(tuple(_containers(_scan(view, faults), faults)), faults=tuple(faults))
    table = [section for section in table if section.name in (REGISTERED, LINK_INPUT)]
    if sum(section.size for section in table) > len(view):
        return DeviceCode(faults=("damaged: its sections of device code overlap",))
    found: dict[str, list[Container]] = {REGISTERED: [], LINK_INPUT: []}
    for section in table:
        part = view.part(section.offset, section.size)
        found[section.name] += _containers(_bodies(part, section, faults), faults)
    return DeviceCode(tuple(found[REGISTERED]), tuple(found[LINK_INPUT]), tuple(faults))


# Where a container begins in its file, and the entries in it.
Body = tuple[int, View]


def _bodies(part: View, section: Section, faults: list[str]) -> list[Body]:
    """The containers that follow each other in a section, unread."""
    bodies: list[Body] = []
    base, at = section.offset, 0
    while at < len(part) and len(faults) < MOST_FAULTS and len(bodies) < MOST_ENTRIES:
        begin = _next_magic(part, at, base)
        if begin - at > MOST_PADDING or part.read(at, begin - at).strip(b"\0"):
            faults.append(f"damaged: no container at {base + at} in {section.name}")
        if begin == len(part):
            break
        try:
            body = _body(part, begin)
        except Damaged as damage:
            faults.append(f"damaged: container at {base + begin} in {section.name}: {damage}")
            at = _next_magic(part, begin + 4, base)
            continue
        bodies.append((base + begin, body))
        at = begin + _CONTAINER.size + len(body)
    return bodies


def _scan(view: View, faults: list[str]) -> list[Body]:
    """The containers of a file without a section table: wherever one begins."""
    bodies: list[Body] = []
    at = _next_magic(view, 0, 0)
    while at < len(view) and len(faults) < MOST_FAULTS and len(bodies) < MOST_ENTRIES:
        step = 4
        try:
            body = _body(view, at)
            bodies.append((at, body))
            step = _CONTAINER.size + len(body)
        except Damaged as damage:
            # Four such bytes may well be something else; a version and a header size are not.
            if view.data[view.start + at + 4 : view.start + at + 8] == _VERSION_AND_SIZE:
                faults.append(f"damaged: container at {at}: {damage}")
        at = _next_magic(view, at + step, 0)
    return bodies


def _body(part: View, at: int) -> View:
    """What follows the header of the container at `at`."""
    _, version, header_size, payload = part.unpack(_CONTAINER, at)
    if (version, header_size) != (1, _CONTAINER.size):
        raise Damaged(f"version {version} with a header of {header_size} bytes; 1 with 16 is known")
    return part.part(at + header_size, payload)


def _containers(bodies: Sequence[Body], faults: list[str]) -> list[Container]:
    """The containers with their entries; those that are damaged are left out and told.

    Where an entry ends is only known once its header is read. So all containers advance by one
    entry at a time, and while one is looked at the system fetches the next entries of the others:
    on a cold disk a library of 1 GB takes a third of the time.
    """
    walks = {index: _entries(body) for index, (_, body) in enumerate(bodies)}
    done: dict[int, list[Entry]] = {}
    count = len(bodies)
    while walks and len(faults) < MOST_FAULTS:
        if count >= MOST_ENTRIES:
            faults.append(f"damaged: more than {MOST_ENTRIES} entries")
            break
        count += len(walks)
        for index, walk in list(walks.items()):
            if len(faults) >= MOST_FAULTS:
                break
            try:
                next(walk)
                continue
            except StopIteration as end:
                done[index] = end.value
            except Damaged as damage:
                faults.append(f"damaged: container at {bodies[index][0]}: {damage}")
            del walks[index]
    return [Container(bodies[index][0], tuple(done[index])) for index in sorted(done)]


def _entries(body: View) -> Generator[None, None, list[Entry]]:
    """The entries of one container; pauses after each, while the next is on its way."""
    entries = []
    at = 0
    while at < len(body):
        row = body.unpack(_ENTRY, at)
        kind, header_size, stored, packed = row[0], row[2], row[3], row[4]
        minor, major, arch, flags, unpacked = row[6], row[7], row[8], row[11], row[13]
        if header_size < _ENTRY.size:
            raise Damaged(f"an entry's header of {header_size} bytes, {_ENTRY.size} needed")
        payload = body.part(at + header_size, stored)
        known = _KINDS.get(kind, Kind.OTHER)
        suffix = "a" if flags & _EXACT else "f" if flags & _FAMILY else ""
        isa = (major, minor) if known is Kind.PTX else None
        compressed = bool(flags & _COMPRESSED or packed or unpacked)
        empty = not compressed and _without_kernel(known, payload)
        entries.append(Entry(Code(known, arch, suffix, isa), compressed, empty))
        at += header_size + stored
        body.expect(at, _AHEAD)
        yield
    return entries


def _without_kernel(kind: Kind, payload: View) -> bool:
    """Whether code stored as it is holds nothing to launch."""
    if kind is Kind.SASS:  # machine code of kernel k is section .text.k
        return payload.find(b".text.") < 0
    return kind is Kind.PTX and payload.find(b".entry") < 0 and payload.find(b".func") < 0


def _next_magic(part: View, at: int, base: int) -> int:
    """Where the next container may begin, the end of `part` where none does.

    Containers lie on multiples of 8 in their file.
    """
    at = part.find(_MAGIC_BYTES, at)
    while at >= 0 and (base + at) % 8:
        at = part.find(_MAGIC_BYTES, at + 4)
    return at if at >= 0 else len(part)
