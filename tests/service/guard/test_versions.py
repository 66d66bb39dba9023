"""Versions, clauses and markers: as the packaging library, which pip uses, reads them."""

from __future__ import annotations

import importlib.metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import Marker
from packaging.requirements import Requirement as Reference
from packaging.specifiers import SpecifierSet
from packaging.version import Version as ReferenceVersion

from service.guard.requirement import InvalidRequirement, evaluate, machine_of, parse
from service.guard.versions import InvalidVersion, Version, accepts

NUMBER = st.sampled_from(["0", "1", "2", "10"])
RELEASE = st.lists(NUMBER, min_size=1, max_size=4).map(".".join)
PRE = st.sampled_from(["", "a1", "b2", "rc1", ".alpha2", "-beta", "c0"])
POST = st.sampled_from(["", ".post1", "-2", "rev0", ".post"])
DEV = st.sampled_from(["", ".dev0", ".dev3"])
LOCAL = st.sampled_from(["", "+cpu", "+cu128", "+1", "+1.a"])
EPOCH = st.sampled_from(["", "0!", "1!"])
PUBLIC = st.tuples(EPOCH, RELEASE, PRE, POST, DEV).map("".join)
VERSION = st.tuples(PUBLIC, LOCAL).map("".join)
OPERATOR = st.sampled_from(["==", "!=", "<=", ">=", "<", ">"])


@given(VERSION, VERSION)
def test_order_is_pips(left: str, right: str) -> None:
    ours, theirs = (
        (Version(left), Version(right)),
        (ReferenceVersion(left), ReferenceVersion(right)),
    )
    assert (ours[0] < ours[1]) == (theirs[0] < theirs[1])
    assert (ours[0] == ours[1]) == (theirs[0] == theirs[1])


@given(VERSION, OPERATOR, PUBLIC)
def test_clauses_are_pips(have: str, operator: str, want: str) -> None:
    expected = SpecifierSet(operator + want).contains(have, prereleases=True)
    assert accepts(operator + want, have) == expected


@given(VERSION, st.sampled_from(["==", "!="]), RELEASE)
def test_prefixes_are_pips(have: str, operator: str, want: str) -> None:
    clause = f"{operator}{want}.*"
    assert accepts(clause, have) == SpecifierSet(clause).contains(have, prereleases=True)


@given(VERSION, st.lists(NUMBER, min_size=2, max_size=4).map(".".join))
def test_compatible_releases_are_pips(have: str, want: str) -> None:
    expected = SpecifierSet("~=" + want).contains(have, prereleases=True)
    assert accepts("~=" + want, have) == expected


def test_every_requirement_installed_here_is_read_as_pip_reads_it() -> None:
    lines = {text for d in importlib.metadata.distributions() for text in d.requires or ()}
    assert len(lines) > 100
    for text in lines:
        ours, theirs = parse(text), Reference(text)
        assert set(filter(None, ours.clauses.split(","))) == {str(c) for c in theirs.specifier}
        for extra in ("", "dev", "test"):
            expected = theirs.marker.evaluate({"extra": extra}) if theirs.marker else True
            assert ours.applies(machine_of(), extra) == expected, text


@pytest.mark.parametrize(
    "marker",
    [
        'python_version < "3.11" and (sys_platform == "linux" or os_name == "nt")',
        '"3.12" > python_version',
        "platform_machine in 'x86_64 AMD64'",
        'platform_system not in "Windows Darwin" or extra == "x"',
        'python_full_version >= "3.8.0rc1"',
    ],
)
def test_markers_are_pips(marker: str) -> None:
    assert evaluate(marker, {**machine_of(), "extra": ""}) == Marker(marker).evaluate({"extra": ""})


def test_markers_of_another_python() -> None:
    assert parse("tomli ; python_version < '3.11'").applies(machine_of((3, 10)))
    assert not parse("tomli ; python_version < '3.11'").applies(machine_of((3, 12)))


@pytest.mark.parametrize(
    "text", ["", "a b", "torch>=2 ; sys_platform", "x ; (os_name == 'a'", "x ; nonsense == 'a'"]
)
def test_what_is_no_requirement_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequirement):
        parse(text).applies(machine_of())


@pytest.mark.parametrize("text", ["two", "1.0-beta-x", "", ">=1.x"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidVersion):
        accepts(f">={text}", "1.0")
