"""The list of checks, in the order the report shows them.

Knows what to look at, not how: each check lives with its subject. A check yields findings and never
raises; should one do so all the same, that is a finding too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from service.guard.choices import Choices
from service.guard.errors import GuardError
from service.guard.findings import Finding, warning
from service.guard.installation import check_python, check_tree, check_version, requirements
from service.guard.installed import this_environment
from service.guard.machine import this_machine
from service.guard.owners import check_owners
from service.guard.packages import check_imports, check_packages, modules_of
from service.guard.pins import check_pins
from service.guard.places import check_caches, check_data_dir, check_port, check_temporary
from service.guard.stack import check_start
from service.guard.traps import check_traps

Check = Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class Verdict:
    """All findings, the good ones too, and what the workers are to use."""

    findings: list[Finding]
    choices: Choices


def run_checks(
    *,
    data_dir: Path = Path("meshpress-data"),
    min_free_bytes: int = 2**29,
    host: str = "127.0.0.1",
    port: int | None = 8080,
    devices: str = "auto",
    variant: str = "",
    dtype: str = "auto",
    attention: str = "auto",
    thorough: bool = False,
) -> Verdict:
    """Can this installation serve on this machine?

    port:     None where the caller holds the port already; 0 needs no check either
    variant:  the GPU target this installation was made for, as the images say
    thorough: also what takes seconds, for `doctor`: import every requirement in a child process,
              compare what all packages own and ask of each other
    """
    required = requirements()
    choices = Choices("cpu", "float32" if dtype == "auto" else dtype, "sdpa", False)

    def check_stack() -> Iterator[Finding]:
        nonlocal choices
        findings, choices = check_start(
            this_environment(),
            this_machine(),
            devices=devices,
            variant=variant,
            dtype=dtype,
            attention=attention,
        )
        yield from findings

    checks: dict[str, Check] = {
        "python": check_python,
        "tree": check_tree,
        "version": check_version,
        "packages": lambda: check_packages(required),
        "stack": check_stack,
        "R5": check_traps,
        "data_dir": lambda: check_data_dir(data_dir, min_free_bytes),
        "temporary": check_temporary,
        "R4": check_caches,
    }
    if thorough:
        checks["L2"] = lambda: check_owners(this_environment())
        checks["L3"] = lambda: check_pins(this_environment())
        checks["imports"] = lambda: check_imports(modules_of(required))
    if port:
        checks["port"] = lambda: check_port(host, port)
    findings = [finding for name, check in checks.items() for finding in guarded(name, check)]
    return Verdict(findings, choices)


def guarded(name: str, check: Check) -> Iterable[Finding]:
    """The check's findings, and its own failure as one more."""
    try:
        yield from check()
    except GuardError:
        raise  # the question was wrong, not the check
    except Exception as error:  # noqa: BLE001 - reported as a finding; the other checks still run
        yield warning(
            name,
            "the check itself",
            f"failed: {type(error).__name__}: {error}",
            "This check says nothing here; please report it with this line.",
        )
