"""Where networks lie between their turns, on a device with a given amount of free memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.nn.residency import Residency, should_offload


@pytest.mark.parametrize(
    ("free", "asked", "expected"),
    [
        (8, None, True),
        (16, None, False),
        (8, "auto", True),
        (8, "off", False),
        (16, "on", True),
    ],
)
def test_free_memory_decides_unless_a_setting_does(
    monkeypatch: pytest.MonkeyPatch, free: int, asked: str | None, expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: (free, 80))
    environ = {} if asked is None else {"MESHPRESS_OFFLOAD": asked}
    assert should_offload("cuda:0", 12, environ) is expected
    assert should_offload("cpu", 12, environ) is False


class _Page(Tensor):
    """What lies in the machine's memory; the device takes a copy while it has room."""

    room = 0

    def to(self, *args: object, **kwargs: object) -> Tensor:  # type: ignore[override]
        if _Page.room == 0:
            raise torch.OutOfMemoryError("the card is full")
        _Page.room -= 1
        return self.as_subclass(Tensor).clone()


class _Card(Residency):
    """A device of this machine's own memory."""

    def __init__(self, room: int) -> None:
        super().__init__("cpu")
        self.offload, _Page.room = True, room

    def _home(self, tensor: Tensor) -> Tensor:
        return tensor.data.as_subclass(_Page)


@pytest.mark.parametrize("room", [2, 1])
def test_networks_go_home_though_the_card_is_full_before_all_came(room: int) -> None:
    network = torch.nn.Linear(3, 2)
    homes = [parameter.data_ptr() for parameter in network.parameters()]
    places: list[int] = []

    def work() -> None:
        with _Card(room).at_work(network):
            places.extend(parameter.data_ptr() for parameter in network.parameters())

    if room == 2:
        work()
        assert not set(places) & set(homes)
    else:
        with pytest.raises(torch.OutOfMemoryError):
            work()
        assert places == []
    assert [parameter.data_ptr() for parameter in network.parameters()] == homes


@pytest.mark.parametrize(("device", "made_current"), [("cuda:1", ["cuda:1"]), ("cpu", [])])
def test_a_gpu_becomes_the_current_one(
    monkeypatch: pytest.MonkeyPatch, device: str, made_current: list[str]
) -> None:
    """Where several workers share a host, each GPU's kernels start on that GPU."""
    seen: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda place: seen.append(str(place)))
    Residency(device)
    assert seen == made_current
