"""Extensions fit the NumPy that is installed: check L4.

Looks for what NumPy's own headers leave in a compiled module; imports nothing. A module built with
the headers of NumPy 2 runs on 1.x and 2.x, one built with those of 1.x runs on 1.x alone.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from service.guard.findings import Finding, info, ok, warning
from service.guard.installed import Distribution, Environment

EXTENSION = re.compile(r"\.(cpython-[^.]+|abi3)\.so$|^[A-Za-z0-9_]+\.so$")
# import_array() looks its table up by these names; NumPy 2's tries the new one first.
_OLD = (b"numpy.core.multiarray\0", b"numpy.core._multiarray_umath\0")
_NEW = b"numpy._core"
# What such a module says when it is imported: here so that `doctor explain` knows it too.
REFUSALS = (
    "A module that was compiled using NumPy 1.x cannot be run in",
    "numpy.core.multiarray failed to import",
    "numpy.dtype size changed",
    "module compiled against ABI version",
    "_ARRAY_API not found",
)


def check_numpy(environment: Environment) -> Iterator[Finding]:
    """L4: where NumPy 2 is installed, no extension was compiled for NumPy 1."""
    numpy = environment.distributions.get("numpy")
    if numpy is None:
        yield info("L4", "numpy", "not installed")
        return
    if not numpy.version.startswith("2"):
        yield ok("L4", "numpy", f"{numpy.version}; extensions built for NumPy 1 and 2 both run")
        return
    found, count = False, 0
    for package in environment.distributions.values():
        if package.name == "numpy":
            continue
        old = [file for file in _extensions(package) if needs_numpy_1(package.path_of(file))]
        count += 1
        if old:
            found = True
            more = f" and {len(old) - 1} more" if len(old) > 1 else ""
            yield warning(
                "L4",
                package.name,
                f"{old[0]}{more} was compiled for NumPy 1; NumPy {numpy.version} is installed.",
                f"Upgrade {package.name} (pip install -U {package.name}), or pin numpy<2.",
                files=old,
            )
    if not found:
        yield ok("L4", "numpy", f"{numpy.version}; nothing in {count} packages is built for 1.x")


def _extensions(package: Distribution) -> Iterator[str]:
    return (file for file in package.files if EXTENSION.search(Path(file).name))


def needs_numpy_1(path: Path) -> bool:
    """Whether a compiled module knows only the names of NumPy 1. False for what has no file."""
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return data.find(_NEW) < 0 and any(data.find(name) >= 0 for name in _OLD)
    except OSError:
        return False
