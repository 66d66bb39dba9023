"""What of this GPU's abilities is used: device, number format, attention; checks R1 to R3.

Knows a Machine, what is installed and what was asked for. A pipeline never asks the guard: the
supervisor decides once, before it starts the workers, and hands the answer over as the settings
ATTENTION_BACKEND and DTYPE. They reach a runner as the environment variables
MESHPRESS_ATTENTION_BACKEND and MESHPRESS_DTYPE, which `models.nn` reads where it picks a backend.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from service.guard import knowledge
from service.guard.findings import Finding, info, ok, warning
from service.guard.installed import Environment
from service.guard.targets import Target

ATTENTION = ("flash-attn", "xformers", "sdpa")  # the best first; PyTorch's own is always there
OUR_KERNEL = "triton"  # taken where asked for, or by the networks where it was measured the best
DTYPES = ("bfloat16", "float16", "float32")
FIRST_WITH_BFLOAT16 = Target(8, 0)


@dataclass(frozen=True)
class Choices:
    """device: "cuda" or "cpu". compiles: whether Triton, and with it torch.compile, may be used."""

    device: str
    dtype: str
    attention: str
    compiles: bool


def choose(
    environment: Environment,
    targets: Sequence[Target],
    *,
    dtype: str = "auto",
    attention: str = "auto",
    refused: Collection[str] = (),
) -> tuple[Choices, list[Finding]]:
    """The best that works on every one of `targets`, and what was asked for and does not.

    targets: capabilities of the GPUs in use; empty: the CPU
    refused: packages whose code does not load there, by name
    """
    if not targets or "torch" in refused or "torch" not in environment.distributions:
        return Choices("cpu", _on_cpu(dtype), "sdpa", False), []
    oldest = min(targets)
    findings = [
        *_dtype(dtype, oldest),
        *_attention(environment, targets, attention, refused),
        *_triton(environment, targets, refused),
    ]
    return (
        Choices(
            "cuda",
            _best_dtype(dtype, oldest),
            _best_attention(environment, targets, attention, refused),
            not _obstacle("triton", environment, targets, refused),
        ),
        findings,
    )


def _on_cpu(dtype: str) -> str:
    return "float32" if dtype == "auto" else dtype


def _best_dtype(asked: str, oldest: Target) -> str:
    if oldest >= FIRST_WITH_BFLOAT16:
        return "bfloat16" if asked == "auto" else asked
    return "float16" if asked in ("auto", "bfloat16") else asked


def _dtype(asked: str, oldest: Target) -> Iterator[Finding]:
    """R1. torch.cuda.is_bf16_supported() says True on a T4: it counts emulation."""
    best = _best_dtype(asked, oldest)
    if asked == "bfloat16" and best != asked:
        yield warning(
            "R1",
            str(oldest),
            f"bf16 is emulated and slow on {oldest}. Using float16.",
            "Set MESHPRESS_DTYPE=float16.",
        )
    else:
        yield ok("R1", str(oldest), f"computes in {best}")


def _best_attention(
    environment: Environment, targets: Sequence[Target], asked: str, refused: Collection[str]
) -> str:
    if asked == OUR_KERNEL and not _obstacle(OUR_KERNEL, environment, targets, refused):
        return OUR_KERNEL
    first = 0 if asked in ("auto", OUR_KERNEL) else ATTENTION.index(asked)
    return next(
        backend
        for backend in ATTENTION[first:]
        if backend == "sdpa" or not _obstacle(backend, environment, targets, refused)
    )


def _attention(
    environment: Environment, targets: Sequence[Target], asked: str, refused: Collection[str]
) -> Iterator[Finding]:
    """R2: what was asked for, or is installed, and cannot be used here."""
    best = _best_attention(environment, targets, asked, refused)
    for backend in (OUR_KERNEL, *ATTENTION[:-1]):
        installed = backend in environment.distributions and backend != OUR_KERNEL
        wanted = asked == backend or (asked == "auto" and installed)
        obstacle = _obstacle(backend, environment, targets, refused)
        if wanted and obstacle:
            yield warning(
                "R2",
                backend,
                f"{obstacle} Using {best}.",
                f"Set MESHPRESS_ATTENTION_BACKEND={best}, or uninstall {backend}.",
            )
    yield ok("R2", "attention", best)


def _triton(
    environment: Environment, targets: Sequence[Target], refused: Collection[str]
) -> Iterator[Finding]:
    """R3: the compiler behind torch.compile and our own kernels."""
    if "triton" not in environment.distributions:
        yield info("R3", "triton", "not installed: torch.compile is off")
        return
    obstacle = _obstacle("triton", environment, targets, refused)
    version = environment.distributions["triton"].version
    if obstacle:
        yield warning(
            "R3",
            "triton",
            f"triton {version} does not support {_outside('triton', version, targets)}. "
            "torch.compile is off.",
            "Nothing else is lost. The sm_75 stack pairs triton 3.2.0 with torch 2.6.0, the last "
            "that serve Turing; GPUs of sm_100 and above need triton >= 3.3.",
        )
    else:
        yield ok("R3", "triton", f"{version} compiles for {', '.join(map(str, targets))}")


def _obstacle(
    library: str, environment: Environment, targets: Sequence[Target], refused: Collection[str]
) -> str:
    """Why `library` cannot be used on these GPUs; empty when it can."""
    package = environment.distributions.get(library)
    if package is None:
        return f"{library} is not installed."
    if library in refused:
        return f"{library} {package.version} carries no code for these GPUs."
    outside = _outside(library, package.version, targets)
    if outside:
        known = knowledge.support(library, package.version)
        reason = f": {known.reason}" if known else ""
        return f"{library} {package.version} does not support {outside}{reason}."
    return ""


def _outside(library: str, version: str, targets: Sequence[Target]) -> str:
    """The first of `targets` outside what this version supports; empty when all are inside."""
    known = knowledge.support(library, version)
    if known is None:
        return ""
    for target in targets:
        too_old = known.oldest and target < Target.parse(known.oldest)
        too_new = known.newest and target > Target.parse(known.newest)
        if too_old or too_new:
            return str(target)
    return ""
