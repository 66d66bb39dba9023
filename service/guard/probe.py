"""Runs one tiny kernel per installed library and says what became of each: check K.

Knows which libraries have a probe and what their errors mean; the kernels are in probes.py. Each
runs in a child process with a time limit: a crash or a CUDA error that sticks ends only that.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.guard.explain import explain, explain_code
from service.guard.findings import Finding, fatal, ok, warning
from service.guard.installed import Environment
from service.guard.nvrtc import compilers

PROBE_SECONDS = 120.0  # torch imports in 5 to 10 s, and a first JIT of spconv's PTX takes a minute
SCRIPT = Path(__file__).with_name("probes.py")
# Probe, and the package that has to be there.
LIBRARIES = (
    ("torch", re.compile("torch")),
    ("triton", re.compile("triton")),
    ("cupy", re.compile(r"cupy(-cuda\d+x?)?")),
    ("xformers", re.compile("xformers")),
    ("flash_attn", re.compile("flash-attn")),
    ("spconv", re.compile(r"spconv(-cu\d+)?")),
)
ESSENTIAL = frozenset({"driver", "torch"})  # without the others something slower serves


@dataclass(frozen=True)
class Outcome:
    """What one probe told. code: the CUDA error, 0 where there was none."""

    ran: bool
    text: str
    code: int = 0


def check_kernels(
    environment: Environment, *, index: int = 0, python: str = sys.executable
) -> Iterator[Finding]:
    """K for GPU number `index`: the driver first, then every library that is installed.

    python: the interpreter of `environment`
    """
    # Without its cache the driver has to compile, which is what is asked.
    first = probe("driver", index=index, python=python, CUDA_CACHE_DISABLE="1")
    yield _finding("driver", first)
    if not first.ran:
        return  # nothing else can run then, and each would take its time to say so
    for compiler in compilers(environment):
        outcome = probe("nvrtc", index=index, python=python, NVRTC=str(compiler.path))
        yield _finding(f"nvrtc {compiler.version} of {compiler.package}", outcome)
    for name, pattern in LIBRARIES:
        if any(pattern.fullmatch(package) for package in environment.distributions):
            yield _finding(name, probe(name, index=index, python=python))


def probe(
    name: str,
    *,
    index: int = 0,
    python: str = sys.executable,
    seconds: float = PROBE_SECONDS,
    **variables: str,
) -> Outcome:
    """One probe in a child process. Never raises."""
    try:
        child = subprocess.run(
            [python, str(SCRIPT), name, str(index)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            cwd=SCRIPT.anchor,  # so that no folder of ours shadows a package
            env={**os.environ, "PYTHONSAFEPATH": "1", **variables},
        )
    except subprocess.TimeoutExpired:
        return Outcome(False, f"no answer in {seconds:.0f} s")
    except OSError as error:
        return Outcome(False, f"{python} does not start: {error.strerror or error}")
    try:
        told = json.loads(child.stdout.strip().rpartition("\n")[2])
        return Outcome(
            told["ok"], told["what"] if told["ok"] else told["error"], told.get("code", 0)
        )
    except (ValueError, KeyError, TypeError):
        last = (child.stderr.strip().splitlines() or ["no word"])[-1]
        return Outcome(False, f"the process ended with status {child.returncode}: {last}")


def _finding(library: str, outcome: Outcome) -> Finding:
    if outcome.ran:
        return ok("K", library, f"a kernel ran ({outcome.text})")
    told = explain(outcome.text) or (explain_code(outcome.code) if outcome.code else None)
    cause = f" Most likely {told.check}: {told.meaning}" if told else ""
    return (fatal if library in ESSENTIAL else warning)(
        "K",
        library,
        f"{library}: {_short(outcome.text)}.{cause}",
        told.remedy
        if told
        else f"Run it by hand for the whole text: python {SCRIPT} {library.split()[0]}",
        code=outcome.code,
        cause=told.check if told else "",
    )


def _short(text: str) -> str:
    """The first line that says something, at most 200 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else text)[:200].rstrip(".")
