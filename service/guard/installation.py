"""Python and our own two packages: the right version, both from one tree.

Knows nothing of the packages we depend on. `service` and `models` are common names: another
package or a stray folder on the path can shadow one of them, and this is what notices.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from service import __version__
from service.guard.findings import Finding, fatal, info, ok

OLDEST_PYTHON, FIRST_UNTESTED_PYTHON = (3, 11), (3, 14)
DISTRIBUTION = "meshpress"


def check_python() -> Iterator[Finding]:
    """The interpreter is one we test with."""
    found = ".".join(map(str, sys.version_info[:3]))
    if OLDEST_PYTHON <= sys.version_info[:2] < FIRST_UNTESTED_PYTHON:
        yield ok("python", sys.executable, f"Python {found}")
        return
    yield fatal(
        "python",
        sys.executable,
        f"Python {found}; meshpress needs 3.11, 3.12 or 3.13",
        "Make the virtual environment with one of these: python3.12 -m venv .venv",
    )


def check_tree(service: Path | None = None, models: Path | None = None) -> Iterator[Finding]:
    """`service` and `models` lie in one folder. The arguments stand in for what Python finds."""
    service = service or Path(__file__).resolve().parents[1]
    models = models or _find_models()
    if models is None:
        yield fatal(
            "tree",
            str(service),
            "the package `models` is missing",
            "Install meshpress again: pip install --force-reinstall --no-deps meshpress",
        )
    elif models.parent != service.parent:
        yield fatal(
            "tree",
            str(models),
            f"the package `models` is not the one beside {service}; something shadows it",
            f"Remove {models.parent} from PYTHONPATH, leave that folder, or uninstall the "
            "package that brings its own `models`.",
        )
    else:
        yield ok("tree", str(service.parent), f"service and models {__version__}")


def check_version() -> Iterator[Finding]:
    """What pip believes is installed is what runs."""
    try:
        installed = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield info(
            "version",
            DISTRIBUTION,
            f"{__version__} runs from its source tree; it is not installed",
            "Nothing to do, unless you meant to run an installed one: pip install .",
        )
        return
    if installed == __version__:
        yield ok("version", DISTRIBUTION, f"{installed}, as installed")
    else:
        yield fatal(
            "version",
            DISTRIBUTION,
            f"{__version__} runs, but {installed} is installed",
            "Install this tree (pip install .) or leave its folder to run the installed one.",
        )


def requirements() -> list[str]:
    """The base requirements as text: of the tree that runs, else of the installed package."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file():
        table = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if table.get("name") == DISTRIBUTION:
            return list(table["dependencies"])
    try:
        listed = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [text for text in listed if "extra ==" not in text]


def _find_models() -> Path | None:
    spec = importlib.util.find_spec("models")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).resolve()
