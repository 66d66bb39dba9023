"""The device code of every shared library of an environment, and what of it a GPU can load.

Knows no package and no remedy; `coverage` judges. Imports nothing of what it reads. What a file
carries is kept in a cache by path, size and time of change: a second audit reads no library.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.guard.fatbin import Code, DeviceCode, read_file
from service.guard.installed import Distribution, Environment
from service.guard.targets import Loads, Target

THREADS = 8  # most of the time goes into waiting for the disk
CACHE_VERSION = 1
CACHE_BYTES = 2**26
_SHARED_LIBRARY = re.compile(r".+\.so(\.[0-9A-Za-z_.-]+)?")
# NVIDIA's own libraries hold many versions of a kernel and choose at run time among those that
# load; some wheels bring copies of them, renamed by auditwheel.
_VENDOR_FILE = re.compile(
    r"lib(cublas|cudnn|cufft|cufile|curand|cusolver|cusparse|cutensor|cudart|cupti|nccl|npp|nvblas"
    r"|nvfatbin|nvjpeg|nvjitlink|nvperf|nvrtc|nvshmem|nvtiff|nvvm)[A-Za-z_0-9]*[-.]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Groups:
    """What a library carries, container by container, told apart only by their codes.

    counts:     the codes of a container, sorted -> how many such containers; empty ones left out
    empty:      containers without a kernel
    link_input: containers of relocatable code, which are never loaded
    faults:     what is damaged
    """

    counts: Mapping[tuple[Code, ...], int] = field(default_factory=dict)
    empty: int = 0
    link_input: int = 0
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, code: DeviceCode) -> Groups:
        full = [container for container in code.containers if not container.empty]
        counts = Counter(
            tuple(sorted({entry.code for entry in container.entries}, key=str))
            for container in full
        )
        empty = len(code.containers) - len(full)
        return cls(dict(counts), empty, len(code.link_input), code.faults)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def codes(self) -> frozenset[Code]:
        """Every code met anywhere: for people; what loads is a matter of each container."""
        return frozenset(code for codes in self.counts for code in codes)

    @property
    def names(self) -> list[str]:
        """["sm_75", "sm_90a", "compute_90"]: machine code first, older first."""
        order = sorted(self.codes, key=lambda code: (code.kind != "sm", code.arch, code.suffix))
        return list(dict.fromkeys(code.name for code in order))


@dataclass(frozen=True)
class Coverage:
    """Of the containers of a library on one GPU: how many load natively, by JIT, not at all.

    jit: the PTX the driver compiles, one for each kind of container that needs it
    """

    native: int
    by_jit: int
    nothing: int
    jit: tuple[Code, ...] = ()

    @property
    def total(self) -> int:
        return self.native + self.by_jit + self.nothing


@dataclass(frozen=True)
class Library:
    """A shared library with device code, or a damaged one.

    owner:  the package whose RECORD names it; "" where none does
    file:   its path relative to site-packages
    vendor: NVIDIA's own, which chooses among its kernels at run time
    """

    path: Path
    file: str
    owner: str
    vendor: bool
    groups: Groups

    def coverage(self, target: Target) -> Coverage:
        return coverage_of(self.groups, target)


@dataclass(frozen=True)
class Audit:
    """Everything `coverage` needs to judge.

    libraries:     those with device code and damaged ones, by path
    distributions: every package, by name
    shared:        package -> its shared libraries on disk, with device code or without
    missing:       package -> shared libraries its RECORD names that are not there
    cuda_of_torch: "12.8" as torch/version.py says; "" for a CPU build; None where it says nothing
    read, cached:  how many files were opened, and how many the cache knew
    """

    libraries: tuple[Library, ...]
    distributions: Mapping[str, Distribution]
    shared: Mapping[str, int]
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cuda_of_torch: str | None = None
    read: int = 0
    cached: int = 0


def coverage_of(groups: Groups, target: Target) -> Coverage:
    """How many containers load on `target`, and how."""
    tally = {loads: 0 for loads in Loads}
    jit = set()
    for codes, count in groups.counts.items():
        loads = target.loads(codes)
        tally[loads] += count
        if loads is Loads.JIT and (ptx := target.compiles(codes)):
            jit.add(ptx)
    return Coverage(
        tally[Loads.NATIVE], tally[Loads.JIT], tally[Loads.NOT], tuple(sorted(jit, key=str))
    )


def audit_environment(
    environment: Environment, cache: Path | None = None, threads: int = THREADS
) -> Audit:
    """Every shared library below the environment's site-packages.

    cache: a file that is read and, if anything was new, written anew; None reads every library.
           A cache that cannot be read or written is no fault: the audit takes longer.
    """
    owners = _owners(environment.distributions.values())
    found = list(_shared_libraries(environment.site_packages))
    known = _read_cache(cache)
    keys = {path: key for path, _, key in found}
    unknown = [path for path, key in keys.items() if key not in known]
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        fresh = dict(zip((keys[path] for path in unknown), pool.map(_groups, unknown), strict=True))
    groups = {key: known[key] if key in known else fresh[key] for key in keys.values()}
    if cache is not None and (fresh or len(known) != len(groups)):
        _write_cache(cache, groups)
    libraries = []
    shared: Counter[str] = Counter()
    for path, file, key in found:
        owner = owners.get(path, "")
        shared[owner] += 1
        if groups[key].counts or groups[key].faults:
            libraries.append(Library(path, file, owner, is_vendor(owner, path.name), groups[key]))
    return Audit(
        tuple(libraries),
        environment.distributions,
        shared,
        _missing(environment.distributions.values()),
        _cuda_of_torch(environment.distributions.get("torch")),
        read=len(fresh),
        cached=len(keys) - len(unknown),
    )


def audit_library(path: Path) -> Groups:
    """The device code of one file; what is wrong with it stands in `faults`."""
    return Groups.of(read_file(path))


def default_cache(environment: Environment) -> Path:
    """Where the cache of an environment lies unless told otherwise.

    Inside the virtual environment that runs, so that an image carries what its build has read;
    in the user's cache folder for any other, which is not ours to write to.
    """
    inside = environment.root / ".guard-audit.json"
    running = sys.prefix != sys.base_prefix and environment.root == Path(sys.prefix)
    if running and (inside.exists() or os.access(environment.root, os.W_OK)):
        return inside
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(base):  # a user without a home
        base = tempfile.gettempdir()
    name = hashlib.sha256(str(environment.root).encode("utf-8", "surrogateescape")).hexdigest()
    return Path(base) / "meshpress" / f"guard-{name[:16]}.json"


def is_shared_library(name: str) -> bool:
    """Whether a file of this name would be loaded: "libtorch.so", "libcudart.so.12"."""
    return ".so" in name and _SHARED_LIBRARY.fullmatch(name) is not None


def is_vendor(owner: str, file_name: str) -> bool:
    """Whether a library is NVIDIA's own: it chooses among its kernels at run time."""
    return owner.startswith("nvidia-") or _VENDOR_FILE.match(file_name) is not None


def cuda_in_version_file(text: str) -> str | None:
    """What torch/version.py says of CUDA: "12.8"; "" for None; None where it says nothing."""
    match = re.search(r"^cuda\b[^=\n]*=\s*(?:None|['\"]([0-9.]+)['\"])", text, re.MULTILINE)
    return None if match is None else match[1] or ""


# -- finding the files -----------------------------------------------------------------------


def _shared_libraries(folders: Iterable[Path]) -> Iterator[tuple[Path, str, str]]:
    """(path, path relative to its site-packages, cache key) of each, once, links left out."""
    seen = set()
    for folder in folders:
        for path, entry in sorted(_walk(folder)):
            stat = entry.stat(follow_symlinks=False)
            if (stat.st_dev, stat.st_ino) in seen:
                continue
            seen.add((stat.st_dev, stat.st_ino))
            # Seconds: image layers keep no finer time, so a cache made in a build stays good.
            key = f"{path}|{stat.st_size}|{stat.st_mtime_ns // 10**9}"
            yield Path(path), os.path.relpath(path, folder), key


def _walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every shared library below `folder`; folders that cannot be read are passed over."""
    pending = [str(folder)]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    pending.append(entry.path)
            elif is_shared_library(entry.name) and entry.is_file(follow_symlinks=False):
                yield entry.path, entry


def _owners(distributions: Iterable[Distribution]) -> dict[Path, str]:
    """Shared library -> the package that says it owns it; of two, the first by name."""
    owners: dict[Path, str] = {}
    for distribution in distributions:
        for file in distribution.files:
            if is_shared_library(os.path.basename(file)):
                owners.setdefault(distribution.path_of(file), distribution.name)
    return owners


def _missing(distributions: Iterable[Distribution]) -> dict[str, tuple[str, ...]]:
    lacking: dict[str, tuple[str, ...]] = {}
    for distribution in distributions:
        named = (file for file in distribution.files if is_shared_library(os.path.basename(file)))
        files = tuple(file for file in named if not distribution.path_of(file).exists())
        if files:
            lacking[distribution.name] = files
    return lacking


def _cuda_of_torch(torch: Distribution | None) -> str | None:
    if torch is None:
        return None
    try:
        text = torch.path_of("torch/version.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return cuda_in_version_file(text)


def _groups(path: Path) -> Groups:
    return Groups.of(read_file(path))


# -- the cache -------------------------------------------------------------------------------


def _read_cache(path: Path | None) -> dict[str, Groups]:
    """Cache key -> groups; nothing where there is no cache, or one we cannot use."""
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            facts = json.loads(file.read(CACHE_BYTES))
        if facts["version"] != CACHE_VERSION:
            return {}
        return {key: _groups_from(row) for key, row in facts["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _write_cache(path: Path, groups: Mapping[str, Groups]) -> None:
    """All or nothing: readers see the old cache or the new one."""
    facts = {
        "version": CACHE_VERSION,
        "files": {key: _groups_to(row) for key, row in groups.items()},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
                json.dump(facts, file, separators=(",", ":"))
            os.chmod(name, 0o644)  # the image is built as root and runs as somebody else
            os.replace(name, path)
        except OSError:
            os.unlink(name)
    except OSError:
        return  # a read-only disk: the next audit reads the libraries again


def _groups_to(groups: Groups) -> list[Any]:
    """A library without device code, most of them, is an empty list."""
    if groups == Groups():
        return []
    counts = [[" ".join(map(str, codes)), count] for codes, count in groups.counts.items()]
    return [counts, groups.empty, groups.link_input, list(groups.faults)]


def _groups_from(row: list[Any]) -> Groups:
    """ValueError or TypeError where `row` is not what `_groups_to` gives."""
    if not row:
        return Groups()
    counts, empty, link_input, faults = row
    parsed = {tuple(map(Code.parse, text.split())): int(count) for text, count in counts}
    return Groups(parsed, int(empty), int(link_input), tuple(map(str, faults)))
