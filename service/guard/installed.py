"""Which packages lie in an environment, and which files each of them says it owns.

Reads `*.dist-info` and `*.egg-info` as plain files (PEP 376, PEP 627) and imports nothing of what
they describe; knows nothing of device code. A package with broken metadata is kept as far as it can
be read, and what is wrong with it stands in its `faults`.
"""

from __future__ import annotations

import csv
import io
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.guard.errors import GuardError

METADATA_BYTES = 2**20  # a METADATA longer than this is read so far: its headers come first
RECORD_BYTES = 2**26  # torch's is 1.5 MB
_NEXT_STEP = (
    "Give the folder of a virtual environment, a conda prefix, a site-packages folder, "
    "or what `pip install --target` wrote."
)
_FILENAME = re.compile(r"(?P<name>.+?)-(?P<version>[0-9][^-]*)(?:-.*)?")
_PYTHON = re.compile(r"python(\d+)\.(\d+)t?")


@dataclass(frozen=True)
class Distribution:
    """One installed package.

    name:      normalised (PEP 503), e.g. "nvidia-cublas-cu12"
    version:   as its metadata says; "" where that cannot be read
    dist_info: its *.dist-info or *.egg-info (a folder, or for old eggs a file)
    files:     path relative to site-packages -> hash as in RECORD, "sha256=..." (urlsafe base64
               without padding), or "" where none is recorded
    requires:  its Requires-Dist lines, as written
    faults:    what is wrong with its metadata, for people
    """

    name: str
    version: str
    dist_info: Path
    files: Mapping[str, str]
    requires: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def site_packages(self) -> Path:
        return self.dist_info.parent

    def path_of(self, file: str) -> Path:
        """The absolute path of one of `files`; nothing says that it exists."""
        return Path(os.path.normpath(self.site_packages / file))


@dataclass(frozen=True)
class Environment:
    """What one Python sees, or what lies in one folder.

    root:          the folder asked about
    python:        (3, 12); None where nothing tells
    site_packages: in the order in which Python searches them
    distributions: by name; of two with one name, the first as Python does
    faults:        what is wrong with it as a whole: duplicates, folders that cannot be read
    """

    root: Path
    python: tuple[int, int] | None
    site_packages: tuple[Path, ...]
    distributions: Mapping[str, Distribution]
    faults: tuple[str, ...] = field(default=())


def this_environment() -> Environment:
    """The environment this interpreter runs in: every folder on its path that holds packages."""
    folders = [Path(entry) for entry in sys.path if entry and Path(entry).is_dir()]
    own = Path(sysconfig.get_paths()["purelib"])
    folders = [folder for folder in folders if _holds_packages(folder) or folder == own]
    return _environment(Path(sys.prefix), sys.version_info[:2], folders or [own])


def environment_at(path: Path) -> Environment:
    """The environment in `path`: a venv, conda prefix, site-packages or `pip --target` folder.

    Raises GuardError when nothing of the kind lies there.
    """
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise GuardError(f"{path} {what}", _NEXT_STEP)
    path = path.resolve()
    # lib64 is usually a link to lib: resolved, so that it counts once.
    found: dict[Path, re.Match[str] | None] = {
        folder.resolve(): match
        for pattern in ("lib/python*/site-packages", "lib64/python*/site-packages")
        for folder in sorted(path.glob(pattern))
        if (match := _PYTHON.fullmatch(folder.parent.name)) and folder.is_dir()
    }
    for pattern in ("lib/python3/dist-packages", "local/lib/python*/dist-packages"):
        found.update({folder.resolve(): None for folder in sorted(path.glob(pattern))})
    if found:
        versions = {(int(match[1]), int(match[2])) for match in found.values() if match}
        python = versions.pop() if len(versions) == 1 else None
        return _environment(path, python, [*found, *_system_folders(path, python)])
    if path.name in ("site-packages", "dist-packages") or _holds_packages(path):
        match = _PYTHON.fullmatch(path.parent.name)
        return _environment(path, (int(match[1]), int(match[2])) if match else None, [path])
    raise GuardError(f"{path} holds no Python packages", _NEXT_STEP)


def normalised(name: str) -> str:
    """PEP 503: "NVIDIA_cuBLAS.cu12" to "nvidia-cublas-cu12"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions_in(site_packages: Path) -> Iterator[Distribution]:
    """Every package with metadata in `site_packages`, by name. OSError if that is unreadable."""
    for entry in sorted(site_packages.iterdir()):
        # pip renames what it could not remove to "~name": left-overs that Python does not import.
        if entry.suffix in (".dist-info", ".egg-info") and not entry.name.startswith("~"):
            yield read_distribution(entry)


def read_distribution(dist_info: Path) -> Distribution:
    """The package described by one *.dist-info or *.egg-info. Never raises; see `faults`."""
    faults: list[str] = []
    metadata = dist_info
    if dist_info.is_dir():
        metadata = dist_info / ("METADATA" if dist_info.suffix == ".dist-info" else "PKG-INFO")
    headers = read_headers(_text(metadata, METADATA_BYTES, faults))
    named = _FILENAME.fullmatch(dist_info.stem)
    name = (headers.get("name") or [named["name"] if named else dist_info.stem])[0]
    version = (headers.get("version") or [named["version"] if named else ""])[0]
    if not headers.get("name"):
        faults.append(f"{metadata.name} gives no name: taken from the folder's")
    files = _files(dist_info, faults)
    return Distribution(
        normalised(name),
        version,
        dist_info,
        files,
        tuple(headers.get("requires-dist", ())),
        tuple(faults),
    )


def read_headers(text: str) -> dict[str, list[str]]:
    """The headers of a METADATA file: lower-case name -> values in order. Folded lines joined."""
    headers: dict[str, list[str]] = {}
    last: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            break  # the description follows
        if line[0] in " \t" and last:
            last[-1] += " " + line.strip()
            continue
        key, colon, value = line.partition(":")
        if colon:
            last = headers.setdefault(key.strip().lower(), [])
            last.append(value.strip())
    return headers


def read_record(text: str) -> dict[str, str]:
    """A RECORD: path -> hash. csv.Error where it is no CSV."""
    files = {}
    for row in csv.reader(io.StringIO(text.replace("\0", ""))):
        if row and row[0]:
            files[os.path.normpath(row[0].replace("\\", "/"))] = row[1] if len(row) > 1 else ""
    return files


def _files(dist_info: Path, faults: list[str]) -> dict[str, str]:
    """What the package owns, from RECORD, or from an egg's list of files."""
    if not dist_info.is_dir():
        return {}
    record = dist_info / "RECORD"
    if dist_info.suffix == ".dist-info":
        text = _text(record, RECORD_BYTES, faults)
        try:
            files = read_record(text)
        except csv.Error as error:
            faults.append(f"RECORD cannot be read: {error}")
            return {}
        if text and not files:
            faults.append("RECORD names no file")
        return files
    listed = dist_info / "installed-files.txt"
    if not listed.is_file():
        return {}
    lines = _text(listed, RECORD_BYTES, faults).splitlines()
    return {os.path.normpath(os.path.join(dist_info.name, line)): "" for line in lines if line}


def _text(path: Path, limit: int, faults: list[str]) -> str:
    """The file's text up to `limit` bytes; "" with a fault where there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(limit)
    except OSError as error:
        faults.append(f"{path.name} cannot be read: {error.strerror or error}")
        return ""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        faults.append(f"{path.name} is not UTF-8")
        return data.decode("utf-8", errors="surrogateescape")


def _environment(
    root: Path, python: tuple[int, int] | None, folders: Iterable[Path]
) -> Environment:
    site_packages = tuple(dict.fromkeys(folder.resolve() for folder in folders))
    distributions: dict[str, Distribution] = {}
    faults: list[str] = []
    for folder in site_packages:
        try:
            for found in distributions_in(folder):
                first = distributions.setdefault(found.name, found)
                if first is not found:
                    faults.append(
                        f"{found.name} is there twice: {first.version} in {first.dist_info}, "
                        f"{found.version} in {found.dist_info}"
                    )
        except OSError as error:
            faults.append(f"{folder} cannot be read: {error.strerror or error}")
    return Environment(root, python, site_packages, distributions, tuple(faults))


def _holds_packages(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith((".dist-info", ".egg-info")) for entry in entries)
    except OSError:
        return False


def _system_folders(root: Path, python: tuple[int, int] | None) -> list[Path]:
    """The packages of the base Python, where the venv's pyvenv.cfg lets them in."""
    try:
        text = (root / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    settings = {
        key.strip().lower(): value.strip()
        for key, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }
    home = settings.get("home")
    if python is None or not home or settings.get("include-system-site-packages") != "true":
        return []
    base = Path(home).parent
    version = f"python{python[0]}.{python[1]}"
    candidates = (
        base / "lib" / version / "site-packages",
        base / "local/lib" / version / "dist-packages",
        base / "lib/python3/dist-packages",
    )
    return [folder for folder in candidates if folder.is_dir()]
