"""The list of checks, in the order the report shows them.

Knows what to look at, not how: each check lives with its subject. A check yields findings and never
raises; should one do so all the same, that is a finding too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from service.guard.device import check_driver, check_torch, check_traps
from service.guard.findings import Finding, warning
from service.guard.installation import check_python, check_tree, check_version, requirements
from service.guard.packages import check_imports, check_packages, modules_of
from service.guard.places import check_caches, check_data_dir, check_port, check_temporary

Check = Callable[[], Iterable[Finding]]


def run_checks(
    *,
    data_dir: Path = Path("meshpress-data"),
    min_free_bytes: int = 2**29,
    host: str = "127.0.0.1",
    port: int | None = 8080,
    devices: str = "auto",
    import_packages: bool = False,
) -> list[Finding]:
    """All findings, the good ones too.

    port:            None where the caller holds the port already; 0 needs no check either
    import_packages: also import every requirement in a child process: a few seconds, for `doctor`
    """
    required = requirements()
    checks: dict[str, Check] = {
        "python": check_python,
        "tree": check_tree,
        "version": check_version,
        "packages": lambda: check_packages(required),
        "torch": check_torch,
        "driver": lambda: check_driver(devices),
        "environment": check_traps,
        "data_dir": lambda: check_data_dir(data_dir, min_free_bytes),
        "temporary": check_temporary,
        "caches": check_caches,
    }
    if import_packages:
        checks["imports"] = lambda: check_imports(modules_of(required))
    if port:
        checks["port"] = lambda: check_port(host, port)
    return [finding for name, check in checks.items() for finding in guarded(name, check)]


def guarded(name: str, check: Check) -> Iterator[Finding]:
    """The check's findings, and its own failure as one more."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - reported as a finding; the other checks still run
        yield warning(
            name,
            "the check itself",
            f"failed: {type(error).__name__}: {error}",
            "This check says nothing here; please report it with this line.",
        )
