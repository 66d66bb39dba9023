"""A wheel judged before it is installed: its shared libraries, what it owns and what it requires.

Reads the zip (PEP 427) and unpacks one library at a time, to disk and never to memory; one that is
stored as it is, is read in place. Knows no remedy: the result is an `Audit` as of an environment.
"""

from __future__ import annotations

import csv
import mmap
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from service.guard.audit import (
    Audit,
    Groups,
    Library,
    cuda_in_version_file,
    is_shared_library,
    is_vendor,
)
from service.guard.elf import Damaged, View, mapped
from service.guard.errors import GuardError
from service.guard.fatbin import read
from service.guard.installed import (
    METADATA_BYTES,
    RECORD_BYTES,
    Distribution,
    normalised,
    read_headers,
    read_record,
)

LIBRARY_BYTES = 8 * 2**30  # the largest library of 2026 has 1 GB
WHEEL_BYTES = 32 * 2**30
MEMBERS = 500_000
MOST_INFLATED = 200  # device code full of zeros inflates 50-fold; zip bombs, a thousandfold
SMALL_BYTES = 2**26  # whatever its ratio, this is harmless
PIECE_BYTES = 2**20
_LOCAL_HEADER = struct.Struct("<I22xHH")  # signature, length of the name, length of the extra field
_LOCAL_MAGIC = 0x04034B50
_SHORTEST_ELF = 64


@dataclass(frozen=True)
class Wheel:
    """A wheel file.

    distribution: what it would install; `dist_info` is the folder's name inside the zip
    python, abi, platform: the tags of its file name, "cp312", "cp312", "manylinux_2_28_x86_64"
    audit:        as if it were alone in an environment
    """

    path: Path
    distribution: Distribution
    python: str
    abi: str
    platform: str
    audit: Audit


def audit_wheel(path: Path, scratch: Path | None = None) -> Wheel:
    """Everything the wheel carries.

    scratch: where libraries are unpacked, one after the other; the system's folder where None

    Raises GuardError for what is no wheel, a zip bomb, or a disk too small to unpack a library.
    Damage inside the wheel is told by the audit's `faults` and `missing`.
    """
    tags = _tags(path)
    try:
        with zipfile.ZipFile(path) as archive, mapped(path) as view:
            members = archive.infolist()
            _refuse_bombs(path, members)
            distribution = _distribution(path, archive)
            libraries = tuple(
                Library(
                    Path(str(path), member.filename),
                    member.filename,
                    distribution.name,
                    is_vendor(distribution.name, PurePosixPath(member.filename).name),
                    groups,
                )
                for member in members
                if is_shared_library(PurePosixPath(member.filename).name)
                and not member.is_dir()
                and (groups := _groups(archive, view, member, scratch))
            )
            names = {os.path.normpath(member.filename) for member in members}
            cuda = None
            if distribution.name == "torch" and "torch/version.py" in names:
                cuda = cuda_in_version_file(_text(archive, "torch/version.py", METADATA_BYTES))
    except (zipfile.BadZipFile, Damaged) as error:
        raise _no_wheel(path, str(error)) from None
    except OSError as error:
        raise _no_wheel(path, error.strerror or str(error)) from None
    listed = (file for file in distribution.files if is_shared_library(PurePosixPath(file).name))
    missing = tuple(file for file in listed if file not in names)
    audit = Audit(
        tuple(item for item in libraries if item.groups.counts or item.groups.faults),
        {distribution.name: distribution},
        {distribution.name: len(libraries)},
        {distribution.name: missing} if missing else {},
        cuda,
        read=len(libraries),
    )
    return Wheel(path, distribution, *tags, audit)


def _tags(path: Path) -> tuple[str, str, str]:
    """name-version(-build)-python-abi-platform.whl."""
    parts = path.name.removesuffix(".whl").split("-")
    if path.suffix != ".whl" or len(parts) not in (5, 6):
        raise _no_wheel(path, "its name is not name-version-python-abi-platform.whl")
    return parts[-3], parts[-2], parts[-1]


def _no_wheel(path: Path, why: str) -> GuardError:
    return GuardError(
        f"{path} cannot be read as a wheel: {why}",
        "Download it again (pip download --no-deps NAME==VERSION) and compare its hash.",
    )


def _refuse_bombs(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """GuardError where unpacking could take more than any wheel needs."""
    total = sum(member.file_size for member in members)
    if len(members) > MEMBERS or total > WHEEL_BYTES:
        raise GuardError(
            f"{path} unpacks to {len(members)} files of {total} bytes; at most {MEMBERS} files "
            f"and {WHEEL_BYTES} bytes are read",
            "It is no wheel anybody would install: find out where it comes from.",
        )
    for member in members:
        ratio = member.file_size / max(1, member.compress_size)
        if member.file_size > LIBRARY_BYTES or (
            member.file_size > SMALL_BYTES and ratio > MOST_INFLATED
        ):
            raise GuardError(
                f"{member.filename} in {path} unpacks to {member.file_size} bytes, {ratio:.0f} "
                f"times what is stored; at most {LIBRARY_BYTES} bytes and {MOST_INFLATED} times "
                "are read",
                "It is no wheel anybody would install: find out where it comes from.",
            )


def _distribution(path: Path, archive: zipfile.ZipFile) -> Distribution:
    """What METADATA and RECORD say; GuardError where there is no metadata at all."""
    names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    names = [name for name in names if name.count("/") == 1]
    if not names:
        raise _no_wheel(path, "it has no *.dist-info/METADATA")
    folder = names[0].rpartition("/")[0]
    faults: list[str] = []
    headers = read_headers(_text(archive, names[0], METADATA_BYTES))
    files: dict[str, str] = {}
    try:
        files = read_record(_text(archive, f"{folder}/RECORD", RECORD_BYTES))
    except KeyError:
        faults.append("it has no RECORD")
    except csv.Error as error:
        faults.append(f"RECORD cannot be read: {error}")
    stem = path.name.split("-")
    return Distribution(
        normalised((headers.get("name") or stem)[0]),
        (headers.get("version") or stem[1:])[0],
        Path(folder),
        files,
        tuple(headers.get("requires-dist", ())),
        tuple(faults),
    )


def _text(archive: zipfile.ZipFile, name: str, limit: int) -> str:
    """A member's text up to `limit` bytes; KeyError where there is none of that name."""
    try:
        with archive.open(name) as file:
            return file.read(limit).decode("utf-8", errors="replace")
    except (zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise zipfile.BadZipFile(f"{name}: {error}") from None


def _groups(
    archive: zipfile.ZipFile, view: View, member: zipfile.ZipInfo, scratch: Path | None
) -> Groups:
    """The device code of one library of the wheel; what is wrong with it stands in `faults`."""
    try:
        if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
            return Groups.of(read(_stored(view, member)))
        with _unpacked(archive, member, scratch) as library:
            return Groups.of(read(library)) if library else Groups()
    except Damaged as damage:
        return Groups(faults=(f"damaged: {damage}",))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        return Groups(faults=(f"damaged: cannot be unpacked: {error}",))


def _stored(view: View, member: zipfile.ZipInfo) -> View:
    """The bytes of a member that is stored as it is, where they lie in the wheel."""
    magic, name_size, extra_size = view.unpack(_LOCAL_HEADER, member.header_offset)
    if magic != _LOCAL_MAGIC:
        raise Damaged(f"no member begins at {member.header_offset} of the wheel")
    data_at = member.header_offset + _LOCAL_HEADER.size + name_size + extra_size
    return view.part(data_at, member.file_size)


@contextmanager
def _unpacked(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, scratch: Path | None
) -> Iterator[View | None]:
    """The member on disk for as long as it is looked at; None where it is too short for an ELF."""
    if member.file_size < _SHORTEST_ELF:
        yield None
        return
    with tempfile.TemporaryFile(dir=scratch, prefix="meshpress-wheel-") as file:
        room = os.fstatvfs(file.fileno())
        if member.file_size > room.f_bavail * room.f_frsize:
            raise GuardError(
                f"{member.filename} needs {member.file_size} bytes to be unpacked in "
                f"{scratch or tempfile.gettempdir()}, which has "
                f"{room.f_bavail * room.f_frsize} free",
                "Set TMPDIR to a folder with more room.",
            )
        with archive.open(member) as packed:
            while piece := packed.read(PIECE_BYTES):
                file.write(piece)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield View(data, 0, len(data))
