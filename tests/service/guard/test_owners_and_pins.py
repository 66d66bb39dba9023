"""L2 and L3: one owner for each file, and packages that meet each other's requirements."""

from __future__ import annotations

from typing import Any

import pytest

from service.guard.findings import Finding, Severity
from service.guard.owners import check_owners
from service.guard.pins import check_pins


def faults(findings: Any) -> list[Finding]:
    return [item for item in findings if item.severity in (Severity.WARNING, Severity.FATAL)]


# -- L3 --------------------------------------------------------------------------------------


def test_xformers_with_the_wrong_torch(fake_environment: Any) -> None:
    env = fake_environment
    env.install("torch", "2.8.0")
    env.install("xformers", "0.0.29.post3", requires=("torch==2.6.0", "numpy"))
    env.install("numpy", "2.2.6")
    (finding,) = faults(check_pins(env.read()))
    assert (finding.check, finding.severity) == ("L3", Severity.FATAL)
    assert finding.message == "xformers 0.0.29.post3 was built for torch 2.6.0; installed: 2.8.0."
    assert finding.remedy == (
        "Install xformers==0.0.32.post2: pip install --no-deps xformers==0.0.32.post2"
    )


def test_xformers_for_a_torch_that_none_is_known_for(fake_environment: Any) -> None:
    env = fake_environment
    env.install("torch", "2.15.0")
    env.install("xformers", "0.0.34")  # its metadata is silent: the pin is known all the same
    (finding,) = faults(check_pins(env.read()))
    assert "was built for torch 2.10.0; installed: 2.15.0." in finding.message
    assert finding.remedy == (
        "No release of xformers for torch 2.15.0 is known: uninstall it (pip uninstall xformers), "
        "or pip install 'torch==2.10.0'"
    )


def test_cumm_0_8_2_with_spconv_2_3_8(fake_environment: Any) -> None:
    env = fake_environment
    env.install("spconv-cu124", "2.3.8", requires=("cumm-cu124<0.8.0,>=0.7.11",))
    env.install("cumm-cu124", "0.8.2")
    (finding,) = faults(check_pins(env.read()))
    assert finding.severity is Severity.FATAL
    assert finding.message == (
        "spconv-cu124 2.3.8 requires cumm-cu124<0.8.0,>=0.7.11; installed: 0.8.2."
    )
    assert finding.remedy == "pip install --no-deps 'cumm-cu124<0.8.0,>=0.7.11'"


def test_triton_of_another_torch(fake_environment: Any) -> None:
    env = fake_environment
    env.install("torch", "2.7.1", requires=("triton==3.3.1 ; platform_system == 'Linux'",))
    env.install("triton", "3.1.0")
    (finding,) = faults(check_pins(env.read()))
    assert finding.message == "torch 2.7.1 requires triton==3.3.1; installed: 3.1.0."
    assert finding.remedy == "pip install --no-deps 'triton==3.3.1'"


def test_extras_and_other_machines_do_not_count(fake_environment: Any) -> None:
    env = fake_environment
    env.install(
        "thing",
        "1",
        requires=(
            "absent>=2 ; extra == 'x'",
            "pywin32 ; sys_platform == 'win32'",
            "tomli ; python_version < '3.11'",
        ),
    )
    assert faults(check_pins(env.read())) == []


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        ("other>=2", "thing 1 requires other>=2; installed: 1.5."),
        ("gone", "thing 1 requires gone, which is not installed."),
    ],
)
def test_what_may_work_all_the_same_is_a_warning(
    fake_environment: Any, requires: str, message: str
) -> None:
    env = fake_environment
    env.install("other", "1.5")
    env.install("thing", "1", requires=(requires,))
    (finding,) = faults(check_pins(env.read()))
    assert (finding.severity, finding.message) == (Severity.WARNING, message)


def test_a_requirement_nobody_can_read_is_told_and_no_fault(fake_environment: Any) -> None:
    fake_environment.install("odd", "1", requires=("!!",))
    (finding,) = check_pins(fake_environment.read())
    assert finding.severity is Severity.INFO


# -- L2 --------------------------------------------------------------------------------------


def test_two_owners_of_a_library(fake_environment: Any) -> None:
    env = fake_environment
    env.install("one", "1", {"shared/lib.so": b"1", "shared/__init__.py": b""})
    env.install("two", "2", {"shared/lib.so": b"2", "shared/__init__.py": b""})
    (finding,) = faults(check_owners(env.read()))
    assert finding.severity is Severity.FATAL
    assert finding.message == "one and two both provide shared/lib.so."
    assert finding.remedy == (
        "Uninstall one: pip uninstall two; pip install --force-reinstall --no-deps one"
    )


def test_files_that_are_alike_have_no_quarrel(fake_environment: Any) -> None:
    env = fake_environment
    env.install("one", "1", {"nvidia/__init__.py": b""})
    env.install("two", "2", {"nvidia/__init__.py": b""})
    (finding,) = check_owners(env.read())
    assert finding.severity is Severity.OK


def test_two_majors_of_a_vendor_library(fake_environment: Any) -> None:
    env = fake_environment
    env.install("torch", "2.8.0", requires=("nvidia-cublas-cu12==12.8.4.1",))
    env.install("nvidia-cublas-cu11", "11.11.3.6")
    env.install("nvidia-cublas-cu12", "12.8.4.1")
    env.install("nvidia-cublas", "13.1.0.3")
    (finding,) = faults(check_owners(env.read()))
    assert finding.message.startswith(
        "nvidia-cublas-cu11 11.11.3.6 and nvidia-cublas-cu12 12.8.4.1 and nvidia-cublas 13.1.0.3 "
        "are majors of one library"
    )
    assert finding.remedy == "pip uninstall nvidia-cublas-cu11 nvidia-cublas"


def test_cupy_for_two_cudas(fake_environment: Any) -> None:
    env = fake_environment
    env.install("cupy-cuda11x", "13.6.0", {"cupy/core.so": b"11"})
    env.install("cupy-cuda12x", "13.6.0", {"cupy/core.so": b"12"})
    (finding,) = faults(check_owners(env.read()))
    assert finding.severity is Severity.FATAL
    assert finding.message == "cupy-cuda11x and cupy-cuda12x bring the same modules."
    assert finding.remedy == (
        "Keep one: pip uninstall cupy-cuda11x cupy-cuda12x; pip install cupy-cuda12x"
    )
