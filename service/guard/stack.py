"""The GPU stack as a whole: what a build asks of the files, and what a start asks of the machine.

Knows the order of the checks and which failures something slower can make good; each check lives
with its subject. A build wants everything right; a start refuses only what it cannot do without.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from service.guard.audit import Audit, audit_environment, default_cache
from service.guard.choices import Choices, choose
from service.guard.coverage import check_coverage
from service.guard.driver import check_driver, installed_cuda
from service.guard.findings import Finding, Severity, info
from service.guard.headers import check_headers
from service.guard.installed import Environment
from service.guard.lock import check_lock, read_lock
from service.guard.machine import Machine, visible_devices
from service.guard.numpy_abi import check_numpy
from service.guard.nvrtc import check_nvrtc
from service.guard.owners import check_owners
from service.guard.pins import check_pins
from service.guard.targets import Target

# Packages whose failure leaves nothing to run on a GPU with; without the others a slower way or
# the CPU serves.
ESSENTIAL = ("torch", "nvidia-")


def check_files(
    environment: Environment,
    targets: Sequence[Target],
    *,
    lock: Path | None = None,
    running: bool = False,
) -> Iterator[Finding]:
    """Everything that files alone can tell of an environment: A1 to A6 and L1 to L4.

    lock:    compare with it, hash by hash; its packages are expected to carry what they should
    running: it is the environment of this interpreter, whose libraries may be asked

    Raises GuardError for a lock that cannot be read.
    """
    if lock is not None:
        read_lock(lock, environment.python)  # before minutes of reading
    for fault in environment.faults:
        yield info("L2", str(environment.root), fault)
    audit = audit_environment(environment, default_cache(environment))
    for target in targets:
        yield from check_coverage(audit, target)
        yield from check_nvrtc(environment, target, ask=running)
    yield from check_headers(environment)
    if lock is not None:
        yield from check_lock(environment, lock, files=True)
    yield from check_owners(environment)
    yield from check_pins(environment)
    yield from check_numpy(environment)


def check_start(
    environment: Environment,
    machine: Machine,
    *,
    devices: str = "auto",
    variant: str = "",
    dtype: str = "auto",
    attention: str = "auto",
    cache: Path | None = None,
) -> tuple[list[Finding], Choices]:
    """D1 to D5, A1 to A4 for the GPUs that are there, R1 to R3, and what they leave to choose.

    devices: "auto" falls back to the CPU with a warning; "cuda…" refuses instead
    cache:   of the audit; None: the user's
    """
    findings = list(
        check_driver(
            machine, environment, devices=devices, variant=variant, visible=visible_devices()
        )
    )
    findings += _torch(environment)
    targets = machine.targets if devices == "auto" or "cuda" in devices else []
    refused: set[str] = set()
    if targets and "torch" in environment.distributions:
        audit = audit_environment(environment, cache or default_cache(environment))
        judged = list(_judge(audit, targets))
        refused = refused_packages(judged)
        findings += softened(judged, keep_essential=True)
    if devices == "auto" and any(item.severity is Severity.FATAL for item in findings):
        findings = softened(findings, keep_essential=False)
        targets = []
    choices, told = choose(environment, targets, dtype=dtype, attention=attention, refused=refused)
    return [*findings, *told], choices


def refused_packages(findings: Iterable[Finding]) -> set[str]:
    """The packages of which nothing, or too little, loads."""
    fatal = (item for item in findings if item.severity is Severity.FATAL)
    return {item.subject.split()[0] for item in fatal}


def softened(findings: Iterable[Finding], *, keep_essential: bool) -> list[Finding]:
    """Failures that something slower makes good, as warnings.

    keep_essential: torch and NVIDIA's libraries stay fatal: the CPU was not asked for
    """
    return [
        item
        if item.severity is not Severity.FATAL
        or (keep_essential and item.subject.startswith(ESSENTIAL))
        else replace(
            item,
            severity=Severity.WARNING,
            message=f"{item.message} ({_instead(item.subject)})",
        )
        for item in findings
    ]


def _instead(subject: str) -> str:
    if subject.startswith(("flash-attn", "xformers")):
        return "another attention serves"
    if subject.startswith(ESSENTIAL) or subject in ("driver", "cuda-compat", "libcuda"):
        return "everything runs on the CPU"
    return "what needs it is not available here"


def _judge(audit: Audit, targets: Collection[Target]) -> Iterator[Finding]:
    for target in targets:
        yield from check_coverage(audit, target)


def _torch(environment: Environment) -> Iterator[Finding]:
    """Which torch it is, for whoever reads the report."""
    torch = environment.distributions.get("torch")
    if torch is None:
        yield info("torch", "torch", "not installed; the pipelines of the base install need none")
        return
    cuda = installed_cuda(environment)
    built = f"for CUDA {cuda[0]}.{cuda[1]}" if cuda else "without CUDA"
    yield info("torch", "torch", f"{torch.version}, {built}")
