"""The installed stacks themselves: each fits its own GPU and is told what it lacks on another.

MESHPRESS_STACKS is a folder of virtual environments sm_75, sm_86 and sm_120, each made from its
lock in third_party/stacks (7 GB each). Without it none of this is collected.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.guard.audit import Audit, audit_environment
from service.guard.coverage import check_coverage
from service.guard.findings import Finding, Severity
from service.guard.installed import environment_at
from service.guard.targets import Target

if "MESHPRESS_STACKS" not in os.environ:
    pytest.skip("MESHPRESS_STACKS names no installed stacks", allow_module_level=True)
STACKS = Path(os.environ["MESHPRESS_STACKS"])


@pytest.fixture(scope="module", params=["sm_75", "sm_86", "sm_120"])
def stack(request: pytest.FixtureRequest) -> tuple[str, Audit]:
    return request.param, audit_environment(environment_at(STACKS / request.param))


def faults(audit: Audit, target: str) -> list[Finding]:
    found = check_coverage(audit, Target.parse(target))
    return [item for item in found if item.severity in (Severity.WARNING, Severity.FATAL)]


def test_each_stack_fits_its_own_gpu(stack: tuple[str, Audit]) -> None:
    name, audit = stack
    found = {(item.check, item.subject, item.severity) for item in faults(audit, name)}
    expected = {("A2", "spconv-cu124 2.3.8", Severity.WARNING)} if name == "sm_120" else set()
    assert found == expected


def test_torch_on_the_gpu_it_has_no_code_for(stack: tuple[str, Audit]) -> None:
    name, audit = stack
    if name != "sm_75":
        assert not [item for item in faults(audit, "sm_100") if item.subject.startswith("torch ")]
        return
    (finding,) = [item for item in faults(audit, "sm_120") if item.subject == "torch 2.6.0"]
    assert (finding.check, finding.severity) == ("A1", Severity.FATAL)
    assert finding.remedy.startswith("Install torch==2.8.0 (first PyPI release with sm_120)")


def test_spconv_is_not_taken_for_what_its_empty_containers_say(stack: tuple[str, Audit]) -> None:
    _, audit = stack
    (library,) = [item for item in audit.libraries if item.owner == "spconv-cu124"]
    assert (library.groups.total, library.groups.empty) == (363, 243)
    assert library.coverage(Target(5, 2)).nothing == 278
