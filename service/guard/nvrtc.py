"""The run-time compilers of an environment and the newest GPU each compiles for: check A5.

Knows file names, versions and, for the environment that runs, what the library itself answers. A
library of another environment is never loaded.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.guard import knowledge
from service.guard.findings import Finding, info, ok, warning
from service.guard.installed import Distribution, Environment
from service.guard.targets import Target

ASK_SECONDS = 20.0
# "libnvrtc.so.12", and as auditwheel renames it: "libnvrtc-6d168ef8.so.12.4.127".
_LIBRARY = re.compile(r"libnvrtc(?:-[0-9a-f]{6,})?\.so(?:\.(\d+(?:\.\d+)*))?")
_BUILTINS = re.compile(r"libnvrtc-builtins(?:-[0-9a-f]{6,})?\.so\.(\d+\.\d+)(?:\.\d+)*")


@dataclass(frozen=True)
class Compiler:
    """One copy of NVRTC. toolkit: (12, 4); (0, 0) where nothing tells."""

    path: Path
    file: str
    package: str
    toolkit: tuple[int, int]

    @property
    def version(self) -> str:
        return ".".join(map(str, self.toolkit)) if any(self.toolkit) else "of unknown version"


def compilers(environment: Environment) -> list[Compiler]:
    """Every copy of NVRTC that a package brought."""
    return [
        Compiler(package.path_of(file), file, package.name, _toolkit(package, file))
        for package in environment.distributions.values()
        for file in package.files
        if _LIBRARY.fullmatch(Path(file).name)
    ]


def check_nvrtc(
    environment: Environment, target: Target, *, ask: bool = False
) -> Iterator[Finding]:
    """A5: what is compiled at run time can be compiled for `target`.

    ask: load each library in a child process and ask it; for the environment that runs alone
    """
    for compiler in compilers(environment):
        newest, how = newest_target(compiler, ask=ask)
        where = f"{compiler.file} is NVRTC {compiler.version}"
        if not newest:
            yield info("A5", compiler.package, f"{where}: its targets are not known")
        elif target.arch <= newest:
            yield ok("A5", compiler.package, f"{where}: compiles for {target} ({how})")
        else:
            yield warning(
                "A5",
                compiler.package,
                f"{where}: its newest target is sm_{newest}. Kernels that are not prebuilt will "
                f"fail on {target} with 'invalid value for --gpu-architecture'.",
                _remedy(compiler, target),
                path=str(compiler.path),
                newest=newest,
            )


def newest_target(compiler: Compiler, *, ask: bool) -> tuple[int, str]:
    """The newest architecture (120), 0 if unknown, and how we know: "asked" or "by version"."""
    answered = _ask(compiler.path) if ask else 0
    if answered:
        return answered, "asked"
    if not any(compiler.toolkit):
        return 0, ""
    return Target.parse(knowledge.newest_target(compiler.toolkit)).arch, "by version"


def _remedy(compiler: Compiler, target: Target) -> str:
    architecture = knowledge.architecture(str(target))
    toolkit = architecture.added if architecture else "a newer toolkit"
    if compiler.package.startswith(("cumm", "spconv")):
        return (
            "Restrict spconv to prebuilt algorithms, or build cumm and spconv "
            f"from source with CUDA >= {toolkit}."
        )
    first = knowledge.first_release("torch", str(target))
    torch = f"torch>={first} brings one" if first else "the torch release for it brings one"
    return f"Install what brings NVRTC >= {toolkit}: {torch}."


def _toolkit(package: Distribution, file: str) -> tuple[int, int]:
    """From the library's own name, the builtins beside it, or its package's version."""
    match = _LIBRARY.fullmatch(Path(file).name)
    own = (match[1] or "").split(".") if match else []
    if len(own) >= 2:
        return int(own[0]), int(own[1])
    folder = Path(file).parent
    for other in package.files:
        builtins = _BUILTINS.fullmatch(Path(other).name)
        if builtins and Path(other).parent == folder:
            return knowledge.number(builtins[1])
    if package.name.startswith("nvidia-cuda-nvrtc"):
        numbers = re.findall(r"\d+", package.version)
        return (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else (0, 0)
    return 0, 0


def _ask(path: Path) -> int:
    """The library's own answer, given in a child process; 0 where it does not answer."""
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-c", _TARGETS, str(path)],
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
        )
        return max(json.loads(child.stdout), default=0)
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return 0  # its version answers instead


_TARGETS = """
import ctypes, json, sys
library = ctypes.CDLL(sys.argv[1])
count = ctypes.c_int()
if library.nvrtcGetNumSupportedArchs(ctypes.byref(count)):
    sys.exit(1)
targets = (ctypes.c_int * count.value)()
if library.nvrtcGetSupportedArchs(targets):
    sys.exit(1)
print(json.dumps(list(targets)))
"""
