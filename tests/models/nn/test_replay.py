"""Which passes are recorded, and which are run as they are; recordings are fakes here.

What a CUDA graph computes is in tests/gpu/test_trellis_gpu.py.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from models.nn import replay
from models.nn.attention import KeysValues, Segments
from models.nn.backends import use_backends
from models.nn.replay import KEPT, LARGEST_BYTES, Pass, Replayed, pays


class Network:
    """Doubles x, and remembers how many rows it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(
        self, x: Tensor, time: tuple[Tensor, ...], condition: tuple[KeysValues, ...]
    ) -> Tensor:
        self.asked.append(len(x))
        return 2 * x


class Recorder:
    """Records nothing: what it makes adds a hundred, so that one sees who answered."""

    def __init__(self, *errors: Exception) -> None:
        self.made: list[int] = []
        self.errors = list(errors)

    def __call__(
        self,
        function: Pass,
        x: Tensor,
        time: tuple[Tensor, ...],
        condition: tuple[KeysValues, ...],
    ) -> Pass:
        self.made.append(len(x))
        if self.errors:
            raise self.errors.pop()
        return lambda x, time, condition: 2 * x + 100


def led_by(tokens: int) -> tuple[KeysValues, ...]:
    k = torch.empty(tokens, 1, 1024, device="meta")
    return (KeysValues(k, k, Segments([tokens])),)


def answers(replayed: Replayed, rows: int, calls: int, tokens: int = 3) -> list[float]:
    x = torch.ones(rows, 1)
    return [float(replayed(x, (), led_by(tokens))[0]) for _ in range(calls)]


def test_each_shape_is_run_once_then_recorded_once() -> None:
    network, recorder = Network(), Recorder()
    replayed = Replayed(network, recorder)
    assert answers(replayed, 5, 3) == [2, 102, 102]
    assert answers(replayed, 5, 2, tokens=4) == [2, 102]
    assert answers(replayed, 6, 2) == [2, 102]
    assert (network.asked, recorder.made) == ([5, 5, 6], [5, 5, 6])


def test_a_pass_that_cannot_be_recorded_is_run_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """Recording cannot give the allocator's cache back, the pass itself can."""
    recorder = Recorder(torch.OutOfMemoryError("12 GB are in use"))
    replayed = Replayed(Network(), recorder)
    assert answers(replayed, 5, 4) == [2, 2, 2, 2]
    assert recorder.made == [5]  # not tried at each step
    assert "[5, 1] is not recorded: 12 GB are in use" in caplog.text
    (record,) = caplog.records
    assert record.args == ([5, 1], "12 GB are in use")  # an error would hold its frames' tensors
    assert answers(replayed, 6, 2) == [2, 102]  # another may


def test_other_errors_pass() -> None:
    replayed = Replayed(Network(), Recorder(KeyError("of ours")))
    with pytest.raises(KeyError):
        answers(replayed, 5, 2)


def test_the_latest_used_are_kept() -> None:
    """A service that meets 1 to 16 images must not keep what leads each number of them."""
    recorder = Recorder()
    replayed = Replayed(Network(), recorder)
    for rows in range(1, KEPT + 1):
        answers(replayed, rows, 2)
    answers(replayed, 1, 1)
    answers(replayed, KEPT + 1, 2)  # in place of 2, which was used longest ago
    recorder.made.clear()
    assert answers(replayed, 1, 1) == [102]
    assert recorder.made == []
    assert answers(replayed, 2, 1) == [102]
    assert recorder.made == [2]


def test_what_takes_too_much_is_not_copied(caplog: pytest.LogCaptureFixture) -> None:
    fits = LARGEST_BYTES // (2 * 4 * 1024)
    recorder = Recorder()
    replayed = Replayed(Network(), recorder)
    assert answers(replayed, 5, 3, tokens=fits + 1) == [2, 2, 2]
    assert recorder.made == []
    assert answers(replayed, 5, 2, tokens=fits) == [2, 102]
    assert caplog.text == ""  # it is no failure


class Graph:
    """A recording that ends as it is told to."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def capture_begin(self, **how: object) -> None:
        pass

    def capture_end(self) -> None:
        if self.errors:
            raise self.errors.pop()

    def pool(self) -> tuple[int, int]:
        return 0, 7


@pytest.mark.parametrize("end", ["_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"])
@pytest.mark.parametrize("told", [False, True], ids=["before_2_12", "from_2_12"])
def test_the_allocator_knows_of_every_end(
    monkeypatch: pytest.MonkeyPatch, end: str, told: bool
) -> None:
    """Else no memory is given back any more once a pass has waited for its device."""
    calls: list[tuple[object, ...]] = []

    def ended(*place: object) -> None:
        calls.append((end, *place))
        if told:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    monkeypatch.setattr(
        torch,
        "_C",
        SimpleNamespace(**{end: ended, "_cuda_releasePool": lambda *p: calls.append(p)}),
    )
    graph = Graph(RuntimeError("capture invalidated"))
    stream = SimpleNamespace(device=torch.device("cuda", 3), wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda entered: nullcontext())
    desk = object.__new__(replay._Desk)
    desk.stream, desk._anchor = stream, Graph()
    with pytest.raises(RuntimeError, match="capture invalidated"):
        desk.record(lambda: torch.ones(1))
    assert calls == [(end, 3, (0, 7)), (3, (0, 7))][: 1 if told else 2]
    calls.clear()
    desk.record(lambda: torch.ones(1))
    assert calls == []


def test_what_is_recorded_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own steps read tables that the host copies: they are run as they are."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with use_backends(sparse="triton"):
        assert pays(torch.device("cuda", 0))
        assert not pays(torch.device("cpu"))
    with use_backends(sparse="torch"):
        assert not pays(torch.device("cuda", 0))
