"""`meshpress doctor`: the guard's checks as a table or JSON.

Knows which checks answer which question, and nothing of the checks. The same report, when even
click is broken: `python -m service.guard`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # the guard is loaded when it is asked, not for `--help`
    from service.guard.findings import Finding
    from service.guard.report import Claim
    from service.guard.targets import Target

EXISTING = click.Path(exists=True, path_type=Path)
UNKNOWN = 1


class Refused(click.ClickException):
    """A question the guard cannot answer: a path that holds nothing, a GPU that is none."""

    exit_code = 2


@click.group(
    "doctor",
    invoke_without_command=True,
    short_help="Check this installation and machine, an environment or a wheel.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="SM",
    help="Judge the files for this GPU (sm_75, sm_86, sm_120 or 8.6; cpu for none); none has to be "
    "there. Repeat it for several.",
)
@click.option("--env", type=EXISTING, help="Audit this virtual environment instead of our own.")
@click.option("--wheel", type=EXISTING, help="Audit this wheel instead of an environment.")
@click.option(
    "--lock",
    type=EXISTING,
    help="Compare with this requirements lock: versions, and each file's hash with its RECORD.",
)
@click.option("--probe", is_flag=True, help="Run one tiny kernel of each library on the GPU.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--quick", is_flag=True, help="Leave out what takes seconds: imports, requirements.")
@click.pass_context
def doctor(
    context: click.Context,
    targets: Sequence[str],
    env: Path | None,
    wheel: Path | None,
    lock: Path | None,
    probe: bool,
    as_json: bool,
    quick: bool,
) -> int:
    """Check this installation and machine: exit code 0 fine, 1 warnings, 2 cannot serve.

    With --target, --env, --wheel or --lock it judges files alone, for any package's extensions as
    well as ours: exit code 0 fit, 1 warnings, 2 not fit.
    """
    if context.invoked_subcommand is not None:
        return 0
    from service.guard.errors import GuardError
    from service.guard.report import SERVES, exit_code, to_json, to_text

    if wheel is not None and (env is not None or lock is not None or probe):
        raise click.UsageError("--wheel stands alone, with --target: a wheel is not installed.")
    claim = SERVES
    try:
        if wheel is not None:
            findings, claim = _wheel(wheel, targets)
        elif targets or env is not None or lock is not None:
            findings, claim = _files(env, targets, lock)
        else:
            findings = _machine(quick)
        if probe:
            findings += _kernels(env)
    except GuardError as error:
        raise Refused(f"{error.message}. {error.next_step}") from None
    click.echo(to_json(findings, claim) if as_json else to_text(findings, claim))
    return exit_code(findings)


@doctor.command("explain", short_help="What an error text means, and what to do.")
@click.argument("text", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def explain(text: Sequence[str], as_json: bool) -> int:
    """Say what a pasted error TEXT means here: which check finds the cause, and the remedy.

    TEXT `-` reads it from stdin. Exit code 1 for an error that is not known.
    """
    from service.guard import explain as errors
    from service.guard.catalogue import label

    words = " ".join(text)
    found = errors.explain(sys.stdin.read() if words == "-" else words)
    if as_json:
        click.echo(json.dumps(asdict(found) if found else None, indent=2))
    elif found:
        click.echo(f"{label(found.check)}: {found.meaning}\n-> {found.remedy}")
    else:
        click.echo(
            "This error is not one we know. `meshpress doctor --target sm_XX` checks the files, "
            "`meshpress doctor --probe` runs a kernel of each library."
        )
    return 0 if found else UNKNOWN


def _machine(quick: bool) -> list[Finding]:
    from service.guard.checks import run_checks
    from service.settings import read_settings

    settings = read_settings()
    return run_checks(
        data_dir=settings.data_dir,
        min_free_bytes=settings.min_free_bytes,
        host=settings.host,
        port=settings.port,
        devices=settings.devices,
        variant=settings.variant,
        dtype=settings.dtype,
        attention=settings.attention_backend,
        thorough=not quick,
    ).findings


def _files(
    env: Path | None, targets: Sequence[str], lock: Path | None
) -> tuple[list[Finding], Claim]:
    from service.guard.installed import environment_at, this_environment
    from service.guard.stack import check_files

    environment = environment_at(env) if env else this_environment()
    judged = _targets(targets)
    findings = list(check_files(environment, judged, lock=lock, running=env is None))
    return findings, _claim(str(env or "this environment"), judged)


def _wheel(wheel: Path, targets: Sequence[str]) -> tuple[list[Finding], Claim]:
    from service.guard.coverage import check_coverage
    from service.guard.wheel import audit_wheel

    judged = _targets(targets)
    if not judged:
        raise click.UsageError("There is no GPU here: say for which one with --target.")
    audit = audit_wheel(wheel).audit
    findings = [finding for target in judged for finding in check_coverage(audit, target)]
    return findings, _claim(wheel.name, judged)


def _kernels(env: Path | None) -> Iterator[Finding]:
    """On one GPU of each kind that is here."""
    from service.guard.installed import environment_at, this_environment
    from service.guard.machine import this_machine
    from service.guard.probe import check_kernels

    environment = environment_at(env) if env else this_environment()
    python = env / "bin/python" if env else Path(sys.executable)
    firsts = {gpu.target: gpu.index for gpu in reversed(this_machine().gpus)}
    for index in sorted(firsts.values()) or [0]:
        yield from check_kernels(
            environment,
            index=index,
            python=str(python) if python.exists() else sys.executable,
        )


def _targets(words: Sequence[str]) -> list[Target]:
    """Those asked for, else those of the GPUs that are here; "cpu" is none."""
    from service.guard.machine import this_machine
    from service.guard.targets import Target

    if not words:
        return this_machine().targets
    return [Target.parse(word) for word in words if word.lower() != "cpu"]


def _claim(what: str, targets: Sequence[Target]) -> Claim:
    from service.guard.report import Claim

    gpus = f" for {', '.join(map(str, targets))}" if targets else ""
    return Claim(f"{what} is fit{gpus}", f"{what} is not fit{gpus}")
