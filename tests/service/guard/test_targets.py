"""Which device code a GPU takes: NVIDIA's rules, one line each."""

from __future__ import annotations

import pytest

from service.guard.errors import GuardError
from service.guard.fatbin import Code
from service.guard.targets import Loads, Target, driver_for


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sm_120", Target(12, 0)),
        ("12.0", Target(12, 0)),
        ("120", Target(12, 0)),
        ("SM75", Target(7, 5)),
        (" 7.5 ", Target(7, 5)),
        ("sm_90a", Target(9, 0)),
        ("compute_103", Target(10, 3)),
    ],
)
def test_a_target_is_written_in_many_ways(text: str, expected: Target) -> None:
    assert Target.parse(text) == expected


@pytest.mark.parametrize("text", ["", "sm_", "7", "12.0.1", "gfx90a", "120.0", "sm_10", "t4"])
def test_what_is_no_target_is_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(GuardError) as caught:
        Target.parse(text)
    assert repr(text) in caught.value.message
    assert "sm_75" in caught.value.next_step


def test_a_target_prints_as_nvcc_and_as_torch_write_it() -> None:
    assert (str(Target(12, 0)), Target(12, 0).capability) == ("sm_120", "12.0")


@pytest.mark.parametrize(
    ("code", "on", "not_on"),
    [
        # Machine code: its own generation, from its own minor version on.
        ("sm_80", ["8.0", "8.6", "8.9"], ["7.5", "9.0", "12.0"]),
        ("sm_86", ["8.6", "8.9"], ["8.0", "7.5", "9.0"]),
        ("sm_50", ["5.0", "5.2"], ["6.0"]),
        ("sm_120", ["12.0", "12.1"], ["10.0", "9.0"]),
        # That chip alone; its family.
        ("sm_90a", ["9.0"], ["8.9", "10.0"]),
        ("sm_120a", ["12.0"], ["12.1"]),
        ("sm_100f", ["10.0", "10.3"], ["12.0", "11.0"]),
        ("sm_103f", ["10.3"], ["10.0"]),
        # PTX: anything from its own capability on, but for the suffixes.
        ("compute_90@8.4", ["9.0", "10.0", "12.0"], ["8.9"]),
        ("compute_50@8.4", ["5.2", "12.0"], []),
        ("compute_90a@8.4", ["9.0"], ["12.0"]),
        ("compute_120f@9.0", ["12.0", "12.1"], ["10.3"]),
        # Never loaded.
        ("lto_86", [], ["8.6", "8.9"]),
        ("other_86", [], ["8.6"]),
    ],
)
def test_what_loads_where(code: str, on: list[str], not_on: list[str]) -> None:
    parsed = Code.parse(code)
    assert all(Target.parse(text).takes(parsed) for text in on)
    assert not any(Target.parse(text).takes(parsed) for text in not_on)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("sm_86 compute_86@9.0", Loads.NATIVE),
        ("sm_75 compute_75@9.0", Loads.JIT),
        ("sm_75 sm_90a", Loads.NOT),
        ("", Loads.NOT),
    ],
)
def test_machine_code_is_preferred_to_ptx(codes: str, expected: Loads) -> None:
    assert Target(8, 9).loads(map(Code.parse, codes.split())) is expected


def test_the_newest_ptx_is_compiled() -> None:
    codes = [Code.parse(text) for text in "compute_50@8.4 compute_80@8.4 compute_90a@8.7".split()]
    assert str(Target(12, 0).compiles(codes)) == "compute_80@8.4"
    assert Target(12, 0).compiles([Code.parse("sm_120")]) is None


@pytest.mark.parametrize(
    ("target", "ptx", "driver"),
    [
        ("8.6", "compute_80@8.4", "550"),  # CUDA 12.4 wrote it
        ("12.0", "compute_90@8.4", "570"),  # its driver is older than the first to know 12.0
        ("9.0", "compute_90@9.0", "580"),
        ("8.6", "compute_80@8.6", "570"),  # a version between two toolkits: the next one
        ("8.6", "compute_80@99.0", "580"),  # newer than all we know: at least the newest
    ],
)
def test_ptx_needs_the_driver_of_the_toolkit_that_wrote_it(
    target: str, ptx: str, driver: str
) -> None:
    assert driver_for(Target.parse(target), Code.parse(ptx)) == driver
