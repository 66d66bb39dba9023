"""Loading weights: on the meta device, strict, and clear about what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.context import Unavailable
from models.nn.residency import Residency, should_offload
from models.nn.weights import WeightsUnfit, load_weights, on_meta


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.safetensors"


def test_meta_network_gets_the_numbers_in_its_own_dtypes(path: Path) -> None:
    source = network()
    save_file({k: t.half() for k, t in source.state_dict().items()}, path)
    empty = on_meta(network)
    assert next(empty.parameters()).is_meta
    loaded = load_weights(empty, path)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, source.state_dict()[name].half().float())
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded(torch.zeros(1, 3)).shape == (1, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.bias": None}, r"of 4 tensors, 1 missing \(0\.bias\)\."),
        ({"lora": torch.zeros(1)}, r"1 unexpected \(lora\)"),
        (
            {"0.weight": torch.zeros(4, 5)},
            r"1 of another shape \(0\.weight \[4, 5\] for \[4, 3\]\)",
        ),
        (dict.fromkeys("abcde", torch.zeros(1)), r"5 unexpected \(a, b, c, …\)"),
    ],
)
def test_what_does_not_fit_is_named(
    path: Path, change: dict[str, torch.Tensor | None], words: str
) -> None:
    state = {**network().state_dict(), **change}
    save_file({name: t.clone() for name, t in state.items() if t is not None}, path)
    with pytest.raises(WeightsUnfit, match=words):
        load_weights(on_meta(network), path)


def test_damaged_file_is_no_traceback(path: Path) -> None:
    save_file(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(WeightsUnfit, match=r"net\.safetensors cannot be read"):
        load_weights(on_meta(network), path)


def test_absent_file_is_unavailable(path: Path) -> None:
    with pytest.raises(Unavailable, match="There are no weights at"):
        load_weights(on_meta(network), path)


def test_cpu_is_never_offloaded_to_itself() -> None:
    residency, net = Residency("cpu", offload=True), network()
    before = net[0].weight.data_ptr()
    with residency.at_work(net):
        assert net[0].weight.data_ptr() == before
    assert not residency.offload
    assert not should_offload("cpu", 1 << 60)


def test_offloading_is_what_was_asked_for_or_follows_free_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: (8 << 30, 80 << 30))
    for asked, needed, answer in (
        ("auto", 12 << 30, True),
        ("auto", 7 << 30, False),
        ("on", 1, True),
        ("off", 12 << 30, False),
    ):
        assert should_offload("cuda", needed, {"MESHPRESS_OFFLOAD": asked}) is answer
    assert should_offload("cuda", 12 << 30, {})
    assert not should_offload("cpu", 1, {"MESHPRESS_OFFLOAD": "on"})
    with pytest.raises(ValueError, match="'maybe', not auto, on or off"):
        should_offload("cuda", 1, {"MESHPRESS_OFFLOAD": "maybe"})
