"""Findings as a table for people, JSON for programs, an exit code for scripts.

Knows no check. Good findings of one check share a line; each other one has its remedy below it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from service.guard.catalogue import label
from service.guard.findings import Finding, Severity

SIGNS = {Severity.OK: "ok", Severity.INFO: "info", Severity.WARNING: "WARN", Severity.FATAL: "FAIL"}
MOST_SHOWN = 3


@dataclass(frozen=True)
class Claim:
    """What the findings were looked for, as the two ways the summary may begin."""

    holds: str
    fails: str


SERVES = Claim("meshpress can serve here", "meshpress cannot serve here")


def exit_code(findings: Sequence[Finding]) -> int:
    """0 fine, 1 with warnings, 2 when it cannot serve."""
    severities = {finding.severity for finding in findings}
    if Severity.FATAL in severities:
        return 2
    return 1 if Severity.WARNING in severities else 0


def summary(findings: Sequence[Finding], claim: Claim = SERVES) -> str:
    """One line: the last of a log, the reason a probe shows."""
    worst = [finding for finding in findings if finding.severity is Severity.FATAL]
    if worst:
        reasons = "; ".join(f"{item.subject}: {item.message}" for item in worst[:MOST_SHOWN])
        more = f" (and {len(worst) - MOST_SHOWN} more)" if len(worst) > MOST_SHOWN else ""
        return f"{claim.fails}: {reasons}{more}"
    warnings = sum(finding.severity is Severity.WARNING for finding in findings)
    if warnings:
        return f"{claim.holds}, with {warnings} warning{'s' if warnings > 1 else ''}"
    return claim.holds


def to_text(findings: Sequence[Finding], claim: Claim = SERVES) -> str:
    """A line per finding, what is wrong with its remedy, and the summary last."""
    lines = []
    for (check, severity), group in groupby(findings, lambda item: (item.check, item.severity)):
        items = list(group)
        if severity is Severity.OK and len(items) > MOST_SHOWN:
            lines.append(_line(severity, check, f"{len(items)} as they should be"))
            continue
        for item in items:
            lines.append(_line(severity, check, f"{item.subject}: {item.message}"))
            if item.remedy:
                lines.append(f"{'':<18}-> {item.remedy}")
    return "\n".join([*lines, "", summary(findings, claim)])


def to_json(findings: Sequence[Finding], claim: Claim = SERVES) -> str:
    """{"exit_code", "summary", "findings": [{check, severity, subject, message, …}]}."""
    facts = {
        "exit_code": exit_code(findings),
        "summary": summary(findings, claim),
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(facts, indent=2)


def _line(severity: Severity, check: str, text: str) -> str:
    return f"{SIGNS[severity]:<5} {label(check):<11} {text}"
