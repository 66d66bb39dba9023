"""Versions of Python packages and the clauses they must meet: PEP 440, for what is installed.

Knows no package. Pre-releases are not put aside, as an installer does that chooses: what is
installed is compared as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, total_ordering
from typing import Any

_VERSION = re.compile(
    r"\s*v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<pre>alpha|beta|preview|pre|rc|a|b|c)[-_.]?(?P<pre_number>\d*))?"
    r"(?:-(?P<post_short>\d+)|(?P<post>[-_.]?(?:post|rev|r)[-_.]?(?P<post_number>\d*)))?"
    r"(?P<dev>[-_.]?dev[-_.]?(?P<dev_number>\d*))?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?\s*",
    re.IGNORECASE,
)
_PHASES = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_CLAUSE = re.compile(r"\s*(===|==|!=|<=|>=|~=|<|>)\s*([^\s]+)\s*")
_LAST = 2**63  # 1.0 comes after 1.0.dev1, whatever its number


class InvalidVersion(ValueError):
    """A version or clause that PEP 440 does not allow."""


@total_ordering
@dataclass(frozen=True, eq=False)
class Version:
    """A version as written; ordered as PEP 440 says."""

    text: str

    @cached_property
    def _parts(self) -> re.Match[str]:
        match = _VERSION.fullmatch(self.text)
        if match is None:
            raise InvalidVersion(f"{self.text!r} is no version")
        return match

    @property
    def release(self) -> tuple[int, ...]:
        """ "2.8.0.post1+cu128" to (2, 8, 0)."""
        return tuple(map(int, self._parts["release"].split(".")))

    @property
    def epoch(self) -> int:
        return int(self._parts["epoch"] or 0)

    @property
    def local(self) -> str:
        """What follows the plus sign, e.g. "cu128"; empty without one."""
        return (self._parts["local"] or "").lower()

    @property
    def is_pre(self) -> bool:
        return bool(self._parts["pre"] or self._parts["dev"])

    @property
    def is_dev(self) -> bool:
        return bool(self._parts["dev"])

    @property
    def phase(self) -> tuple[str, int]:
        """ "2.0rc1" to ("rc", 1), a final release to ("", 0)."""
        phase = (self._parts["pre"] or "").lower()
        return _PHASES.get(phase, phase), int(self._parts["pre_number"] or 0)

    @property
    def is_post(self) -> bool:
        return bool(self._parts["post"] or self._parts["post_short"])

    @property
    def post(self) -> int | None:
        """1 for "2.0.post1"; None for what is no post-release."""
        parts = self._parts
        return int(parts["post_short"] or parts["post_number"] or 0) if self.is_post else None

    @property
    def public(self) -> Version:
        """Without what follows the plus sign."""
        return Version(self.text.partition("+")[0])

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        parts = self._parts
        release = self.release
        while len(release) > 1 and release[-1] == 0:
            release = release[:-1]
        post = -1 if self.post is None else self.post
        dev = int(parts["dev_number"] or 0) if parts["dev"] else _LAST
        if parts["pre"]:
            pre = self.phase
        else:  # 1.0.dev1 comes before 1.0a1, 1.0 after 1.0rc1
            pre = ("", 0) if parts["dev"] and not self.is_post else ("z", 0)
        local = tuple(
            (1, int(word), "") if word.isdigit() else (0, 0, word)
            for word in re.split(r"[-_.]", self.local)
            if word
        )
        return self.epoch, release, pre, post, dev, local

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return bool(self._key < other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return self.text


def accepts(clauses: str, version: str) -> bool:
    """Whether `version` meets every clause of e.g. ">=2.0,<3". InvalidVersion for what is none."""
    return all(_meets(Version(version), *split) for split in split_clauses(clauses))


def split_clauses(clauses: str) -> list[tuple[str, str]]:
    """ ">=2.0,<3" to [(">=", "2.0"), ("<", "3")]."""
    found = []
    for clause in clauses.split(","):
        if not clause.strip():
            continue
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise InvalidVersion(f"{clause.strip()!r} is no version clause")
        found.append((match[1], match[2]))
    return found


def _meets(have: Version, operator: str, text: str) -> bool:
    if operator == "===":
        return have.text.strip().lower() == text.lower()
    if text.endswith(".*"):
        same = _starts_with(have, Version(text[:-2]))
        return same if operator == "==" else not same
    want = Version(text)
    if operator in ("==", "!="):
        same = (have if want.local else have.public) == want
        return same if operator == "==" else not same
    if operator == "~=":
        return have.public >= want and _starts_with(have, want, len(want.release) - 1)
    if operator == ">=":
        return have.public >= want
    if operator == "<=":
        return have.public <= want
    same_release = _starts_with(have, want) and _starts_with(want, have)
    if operator == "<":  # 2.0rc1 comes before 2.0 and yet does not meet <2.0
        same_post = (have.phase, have.post) == (want.phase, want.post)
        of_it = have.is_pre and same_release and not want.is_pre
        return have.public < want and not (of_it and (want.post is None or same_post))
    # 2.0.post1 comes after 2.0 and yet does not meet >2.0
    of_it = have.is_post and same_release and have.phase == want.phase and not want.is_post
    return have.public > want and not (of_it and not want.is_dev)


def _starts_with(have: Version, want: Version, width: int | None = None) -> bool:
    """Whether the first `width` numbers (default: all of `want`'s) are `want`'s."""
    width = len(want.release) if width is None else width
    padded = have.release + (0,) * (width - len(have.release))
    return have.epoch == want.epoch and padded[:width] == want.release[:width]
