"""What a check found: which check, how bad, on what, in which words, and what to do about it.

Knows no check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How bad a finding is; from FATAL on, strict mode does not serve."""

    OK = "ok"  # as it should be
    INFO = "info"  # a fact worth knowing
    WARNING = "warning"  # it serves, but slower or with less than it could
    FATAL = "fatal"  # it cannot serve


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    check:   stable name of the check, e.g. "packages"; `subject` is what it looked at
    remedy:  what to do; empty when nothing is to be done
    details: plain JSON, for programs
    """

    check: str
    severity: Severity
    subject: str
    message: str
    remedy: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def ok(check: str, subject: str, message: str, **details: Any) -> Finding:
    return Finding(check, Severity.OK, subject, message, details=details)


def info(check: str, subject: str, message: str, remedy: str = "", **details: Any) -> Finding:
    return Finding(check, Severity.INFO, subject, message, remedy, details)


def warning(check: str, subject: str, message: str, remedy: str, **details: Any) -> Finding:
    return Finding(check, Severity.WARNING, subject, message, remedy, details)


def fatal(check: str, subject: str, message: str, remedy: str, **details: Any) -> Finding:
    return Finding(check, Severity.FATAL, subject, message, remedy, details)
