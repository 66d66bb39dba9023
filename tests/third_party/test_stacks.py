"""The locks of the GPU stacks: hashed, free of addresses, and true to pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STACKS = ROOT / "third_party" / "stacks"
NAMES = ("sm_75", "sm_86", "sm_120")
ALL = ("cpu", *NAMES)
PINNED = re.compile(r"([a-z0-9-]+(?:\[[a-z,]+\])?)==([^ ]+)(?: ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def lock(name: str) -> dict[str, tuple[str, int]]:
    """Package -> (version, number of hashes); fails at a line that is no pin, hash or note."""
    found: dict[str, tuple[str, int]] = {}
    package = ""
    for line in (STACKS / f"{name}.lock").read_text().splitlines():
        if pin := PINNED.fullmatch(line):
            package = pin[1]
            found[package] = (pin[2], 0)
        elif HASH.fullmatch(line):
            version, count = found[package]
            found[package] = (version, count + 1)
        else:
            assert line.lstrip().startswith("#"), line
    return found


@pytest.mark.parametrize("name", ALL)
def test_every_package_has_hashes(name: str) -> None:
    packages = lock(name)
    assert len(packages) > 50
    assert [package for package, (_, hashes) in packages.items() if not hashes] == []


@pytest.mark.parametrize("name", ALL)
def test_no_line_names_a_host_or_a_folder_of_a_machine(name: str) -> None:
    for suffix in (".lock", ".in"):
        text = (STACKS / f"{name}{suffix}").read_text()
        assert not re.search(r"://|--(extra-)?index|--find-links|@ |(?<![\w.])/\w", text)


@pytest.mark.parametrize("name", NAMES)
def test_the_lock_holds_what_its_source_pins(name: str) -> None:
    packages = lock(name)
    lines = (STACKS / f"{name}.in").read_text().splitlines()
    for line in filter(lambda line: line and not line.startswith("#"), lines):
        package, version = line.split("==")
        assert packages[package][0] == version


@pytest.mark.parametrize("name", NAMES)
def test_the_lock_holds_every_requirement_of_the_project(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["gpu"], *extras["torch"]]
    names = {re.split(r"[^a-z0-9-]", text.lower())[0] for text in wanted} - {"meshpress"}
    assert names - set(lock(name)) == set()


def test_what_a_family_cannot_run_is_not_in_its_lock() -> None:
    assert "xformers" not in lock("sm_120")  # its kernels stop at 9.0
    assert lock("sm_75")["triton"][0].startswith("3.2.")  # the last for Turing
    major, minor = map(int, lock("sm_75")["torch"][0].split(".")[:2])
    assert (major, minor) <= (2, 10)  # later ones lack linear algebra for 7.5
    for name in NAMES:
        assert "flash-attn" not in lock(name)  # no wheel: built, where it can run
