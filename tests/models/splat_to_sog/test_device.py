"""Choosing a GPU on a machine without one: each thing that may be missing has its own answer."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest

from models.context import Unavailable
from models.splat_to_sog.device import import_cupy, kernel, on_device


class CUDARuntimeError(RuntimeError):
    pass


class CompileException(Exception):
    pass


class Card(nullcontext):
    """One card of compute capability 7.0 at index 0, one of 12.0 at index 1, and no more."""

    def __init__(self, index: int) -> None:
        super().__init__()
        if index > 1:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.compute_capability = ["70", "120"][index]


class RawModule:
    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        if "mistake" in code:
            raise CompileException("1 error detected")
        self.code = code

    def get_function(self, name: str) -> tuple[RawModule, str]:
        return self, name


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    fake = ModuleType("cupy")
    fake.cuda = SimpleNamespace(
        Device=Card,
        runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError),
        compiler=SimpleNamespace(CompileException=CompileException),
    )
    fake.RawModule = RawModule
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


def test_the_card_that_is_named(cupy: ModuleType) -> None:
    library, card = import_cupy("cuda:1")
    assert library is cupy and card.compute_capability == "120"
    with on_device("cuda:1") as current:
        assert current is cupy


@pytest.mark.parametrize(
    ("device", "says"),
    [("cuda", "7.5 and up"), ("cuda:0", "7.0;"), ("cuda:2", "ordinal"), ("cuda:first", "first")],
)
def test_a_card_that_does_not_serve(cupy: ModuleType, device: str, says: str) -> None:
    with pytest.raises(Unavailable, match=says) as raised:
        import_cupy(device)
    assert raised.value.code == "device_unavailable" and device in raised.value.message
    assert raised.value.next_step


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(Unavailable, match="CuPy") as raised, on_device("cuda:0"):
        pass
    assert raised.value.code == "cupy_missing" and raised.value.next_step


def test_kernels_of_one_source_are_compiled_together(cupy: ModuleType) -> None:
    (first, one), (second, two) = kernel("source", "one"), kernel("source", "two")
    assert first is second and (one, two) == ("one", "two")
    assert kernel("other source", "one")[0] is not first


def test_a_compiler_that_does_not_know_the_card(cupy: ModuleType) -> None:
    with pytest.raises(Unavailable, match="'one'.*1 error") as raised:
        kernel("mistake", "one")
    assert raised.value.code == "kernel_compiler" and "nvrtc" in raised.value.next_step
