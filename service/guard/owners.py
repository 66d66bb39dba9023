"""One file, one owner; one library, one major version: check L2.

Knows what packages say they installed, and opens none of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from service.guard.findings import Finding, fatal, ok, warning
from service.guard.installed import Distribution, Environment

# Packages of one project for several CUDA versions: they bring the same modules.
ONE_OF = (
    re.compile(r"cupy(-cuda\d+x|-cuda\d+)?"),
    re.compile(r"spconv(-cu\d+)?"),
    re.compile(r"cumm(-cu\d+)?"),
    re.compile(r"onnxruntime(-gpu)?"),
    re.compile(r"opencv(-contrib)?-python(-headless)?"),
)
_NVIDIA = re.compile(r"(nvidia-[a-z0-9-]+?)(?:-cu(\d+))?")


def check_owners(environment: Environment) -> Iterator[Finding]:
    """L2: rivals side by side, two majors of a vendor library, two owners of one file."""
    found = False
    for finding in (*_rivals(environment), *_majors(environment), *_shared_files(environment)):
        found = True
        yield finding
    if not found:
        yield ok("L2", "files", f"each of {len(environment.distributions)} packages owns its own")


def _rivals(environment: Environment) -> Iterator[Finding]:
    for pattern in ONE_OF:
        names = sorted(name for name in environment.distributions if pattern.fullmatch(name))
        if len(names) > 1:
            keep = _wanted(environment, names)
            others = [name for name in names if name != keep]
            yield fatal(
                "L2",
                names[0],
                f"{' and '.join(names)} bring the same modules.",
                f"Keep one: pip uninstall {' '.join(names)}; pip install {keep}",
                rivals=names,
                remove=others,
            )


def _majors(environment: Environment) -> Iterator[Finding]:
    """nvidia-cublas-cu11 beside nvidia-cublas-cu12, or beside nvidia-cublas 13."""
    by_library: dict[str, dict[str, str]] = defaultdict(dict)
    for name, package in environment.distributions.items():
        match = _NVIDIA.fullmatch(name)
        if match:
            # Since CUDA 13 the name has no suffix, and the version is the toolkit's.
            major = match[2] or "13"
            by_library[match[1]][major] = f"{name} {package.version}"
    for library, majors in sorted(by_library.items()):
        if len(majors) > 1:
            names = [majors[major] for major in sorted(majors, key=int)]
            keep = _wanted(environment, [name.split()[0] for name in names])
            others = " ".join(name.split()[0] for name in names if name.split()[0] != keep)
            yield warning(
                "L2",
                library,
                f"{' and '.join(names)} are majors of one library; which one is loaded depends "
                "on what is imported first.",
                f"pip uninstall {others}",
            )


def _wanted(environment: Environment, names: list[str]) -> str:
    """The one of `names` that torch asks for, else the last, which is the newest CUDA's."""
    torch = environment.distributions.get("torch")
    asked = [
        name for name in names for text in (torch.requires if torch else ()) if name in text.lower()
    ]
    return asked[0] if asked else names[-1]


def _shared_files(environment: Environment) -> Iterator[Finding]:
    """Files two packages installed with different content: the later one's is there."""
    owners: dict[Path, tuple[Distribution, str]] = {}
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for package in environment.distributions.values():
        for file, recorded in package.files.items():
            # Compiled files and empty namespace files are alike; without a hash nothing is known.
            if not recorded or file.endswith(".pyc"):
                continue
            first, hash_of_first = owners.setdefault(package.path_of(file), (package, recorded))
            if first is not package and hash_of_first != recorded:
                pairs[tuple(sorted((first.name, package.name)))].append(file)  # type: ignore[index]
    for (one, other), files in sorted(pairs.items()):
        if any(p.fullmatch(one) and p.fullmatch(other) for p in ONE_OF):
            continue  # said once already
        libraries = [file for file in files if ".so" in Path(file).name]
        file = (libraries or files)[0]
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        # A data file may be either's; of two libraries one does not fit its package.
        yield (fatal if libraries else warning)(
            "L2",
            f"{one}, {other}",
            f"{one} and {other} both provide {file}{more}.",
            f"Uninstall one: pip uninstall {other}; pip install --force-reinstall --no-deps {one}",
            files=files[:20],
        )
