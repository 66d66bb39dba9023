"""The packages we depend on: present, within the required versions, and importable.

Knows our own requirements and the environment that runs; no index, no network.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from service.guard.findings import Finding, fatal, ok, warning
from service.guard.requirement import parse

IMPORT_SECONDS = 120.0
IMPORT_NAMES = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "prometheus-client": "prometheus_client",
    "scikit-image": "skimage",
}


def module_of(name: str) -> str:
    """What to import of the package `name`."""
    return IMPORT_NAMES.get(name, name.replace("-", "_"))


def modules_of(required: Sequence[str]) -> list[str]:
    """What to import of the requirements that are installed; the others have their finding."""
    installed = []
    for requirement in map(parse, required):
        try:
            importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        installed.append(module_of(requirement.name))
    return installed


def check_packages(required: Sequence[str]) -> Iterator[Finding]:
    """Each requirement is installed in a version it allows. Imports nothing."""
    for requirement in map(parse, required):
        command = f"pip install '{requirement}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield fatal("packages", requirement.name, "not installed", command)
            continue
        if requirement.accepts(version):
            yield ok("packages", requirement.name, version)
        else:
            yield fatal(
                "packages",
                requirement.name,
                f"{version} is installed; needed: {requirement.clauses}",
                command,
            )


def check_imports(modules: Sequence[str]) -> Iterator[Finding]:
    """Each module imports, tried in one child process: a crash there does not end the guard."""
    if not modules:
        return
    command = [sys.executable, "-c", _IMPORT_ALL, *modules]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        told = error.stdout or ""
        told = told.decode(errors="replace") if isinstance(told, bytes) else told
        yield from _imported(modules, told, f"took more than {IMPORT_SECONDS:.0f} s")
        return
    yield from _imported(modules, child.stdout, f"ended the process ({child.returncode})")


def _imported(modules: Sequence[str], told: str, ending: str) -> Iterator[Finding]:
    """The child's lines as findings; the first module without one is what `ending` befell."""
    faults = dict(json.loads(line) for line in told.splitlines())
    silent = [module for module in modules if module not in faults]
    for module, fault in faults.items():
        if fault:
            yield fatal(
                "imports",
                module,
                f"does not import: {fault}",
                f"Reinstall the package that brings `{module}`; where a system library "
                "(lib….so) is named, install that.",
            )
    if silent:
        yield fatal(
            "imports",
            silent[0],
            f"importing it {ending}",
            f"python -X faulthandler -c 'import {silent[0]}'",
        )
        for module in silent[1:]:
            yield warning("imports", module, "not tried after that", "Repair the one above first.")
    if not silent and not any(faults.values()):
        yield ok("imports", f"{len(modules)} packages", "all import")


_IMPORT_ALL = """
import importlib, json, sys
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
        fault = ""
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    print(json.dumps([module, fault]), flush=True)
"""
