"""One line of Requires-Dist: the name, which versions, and on which machines: PEP 508.

Knows no environment but the one it is given. Extras are read; nothing they bring is.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from service.guard.installed import normalised
from service.guard.versions import InvalidVersion, Version, accepts, split_clauses

_REQUIREMENT = re.compile(
    r"\s*(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[(?P<extras>[^]]*)\])?\s*"
    r"(?:@\s*(?P<url>[^\s;]+)|\(?(?P<clauses>[^;()]*)\)?)\s*(?:;(?P<marker>.*))?",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"\s*(?:(?P<string>'[^']*'|\"[^\"]*\")|(?P<operator>===|==|!=|<=|>=|~=|<|>|\(|\))"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_.]*))"
)
_AS_VERSIONS = frozenset({"python_version", "python_full_version", "implementation_version"})


class InvalidRequirement(ValueError):
    """Text that PEP 508 does not allow."""


@dataclass(frozen=True)
class Requirement:
    """name: normalised. clauses: e.g. ">=2.0,<3"; empty for any version. marker: as written."""

    name: str
    clauses: str
    extras: tuple[str, ...] = ()
    marker: str = ""

    def accepts(self, version: str) -> bool:
        """Whether `version` will do. InvalidVersion for what is none."""
        return accepts(self.clauses, version)

    def applies(self, machine: Mapping[str, str], extra: str = "") -> bool:
        """Whether it holds on this machine, for a package installed with `extra`."""
        return not self.marker or evaluate(self.marker, {**machine, "extra": extra})

    def __str__(self) -> str:
        return self.name + self.clauses


def parse(text: str) -> Requirement:
    """One requirement. Raises InvalidRequirement."""
    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        raise InvalidRequirement(f"{text!r} is no requirement")
    extras = tuple(normalised(item.strip()) for item in (match["extras"] or "").split(",") if item)
    clauses = re.sub(r"\s+", "", match["clauses"] or "")
    try:
        split_clauses(clauses)
    except InvalidVersion as error:
        raise InvalidRequirement(f"{text!r}: {error}") from None
    return Requirement(normalised(match["name"]), clauses, extras, (match["marker"] or "").strip())


def machine_of(python: tuple[int, int] | None = None) -> dict[str, str]:
    """The marker variables of this machine, for a Python of version `python` (default: this)."""
    running = python is None or python == sys.version_info[:2]
    version = sys.version_info[:2] if python is None else python
    full = platform.python_version() if running else f"{version[0]}.{version[1]}.0"
    return {
        "os_name": os.name,
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "platform_system": platform.system(),
        "platform_release": platform.release(),
        "platform_version": platform.version(),
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "implementation_version": full,
        "python_version": f"{version[0]}.{version[1]}",
        "python_full_version": full,
    }


def evaluate(marker: str, machine: Mapping[str, str]) -> bool:
    """A marker such as `python_version < "3.11" and extra == "gpu"`. InvalidRequirement if none."""
    tokens = list(_tokens(marker))
    value = _any(tokens, machine)
    if tokens:
        raise InvalidRequirement(f"{marker!r}: {tokens[0]!r} is not expected there")
    return value


def _tokens(marker: str) -> Iterator[str]:
    position = 0
    while marker[position:].strip():
        match = _TOKEN.match(marker, position)
        if match is None:
            raise InvalidRequirement(f"{marker!r} cannot be read at {marker[position:]!r}")
        yield match[0].strip()
        position = match.end()


def _any(tokens: list[str], machine: Mapping[str, str]) -> bool:
    value = _all(tokens, machine)
    while tokens and tokens[0] == "or":
        tokens.pop(0)
        value = _all(tokens, machine) or value  # the right side is read in any case
    return value


def _all(tokens: list[str], machine: Mapping[str, str]) -> bool:
    value = _one(tokens, machine)
    while tokens and tokens[0] == "and":
        tokens.pop(0)
        value = _one(tokens, machine) and value
    return value


def _one(tokens: list[str], machine: Mapping[str, str]) -> bool:
    if not tokens:
        raise InvalidRequirement("a marker ends too early")
    if tokens[0] == "(":
        tokens.pop(0)
        value = _any(tokens, machine)
        if not tokens or tokens.pop(0) != ")":
            raise InvalidRequirement("a marker lacks a closing bracket")
        return value
    words = [tokens.pop(0)]
    while tokens and len(words) < (4 if words[1:2] == ["not"] else 3):
        words.append(tokens.pop(0))
    if len(words) < 3:
        raise InvalidRequirement(f"a marker ends after {' '.join(words)!r}")
    operator = " ".join(words[1:-1])
    left, right = (_value(word, machine) for word in (words[0], words[-1]))
    if operator in ("in", "not in"):
        return (left in right) == (operator == "in")
    if words[0] in _AS_VERSIONS or words[-1] in _AS_VERSIONS:
        swapped = words[-1] in _AS_VERSIONS
        try:
            if swapped:
                return accepts(_MIRRORED.get(operator, operator) + left, right)
            return accepts(operator + right, left)
        except InvalidVersion:
            pass  # PEP 508: what is no version is compared as text
    return _compare(left, operator, right)


_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def _compare(left: str, operator: str, right: str) -> bool:
    if operator in ("==", "==="):
        return left == right
    if operator == "!=":
        return left != right
    if operator in ("<", "<=", ">", ">="):
        return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[
            operator
        ]
    raise InvalidRequirement(f"{operator!r} does not compare texts")


def _value(word: str, machine: Mapping[str, str]) -> str:
    if word[0] in "'\"":
        return word[1:-1]
    try:
        return machine[word.replace("os.name", "os_name").replace("sys.platform", "sys_platform")]
    except KeyError:
        raise InvalidRequirement(f"{word!r} is no marker variable") from None


def same_version(left: str, right: str) -> bool:
    """Whether two versions are one: 2.8 and 2.8.0 are, 2.8.0 and 2.8.0+cpu are not."""
    try:
        return Version(left) == Version(right)
    except InvalidVersion:
        return left == right
