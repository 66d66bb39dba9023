"""Pickles become safetensors in a child process, bit by bit, or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.context import Unavailable
from models.weights.convert_pickle import main
from models.weights.pickles import convert


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


def test_every_bit_of_nested_tensors_arrives(source: Path, rng: np.random.Generator) -> None:
    whole = torch.from_numpy(rng.integers(-(2**15), 2**15, (6, 4), dtype=np.int16))
    half = whole.view(torch.float16)
    tree = {
        "vae": {"w": half, "b": torch.zeros(0)},
        "dit": {
            "w": whole.clone().view(torch.bfloat16).T,
            "shared": half[2:4],
            "step": torch.tensor(3),
        },
        "epoch": 7,
    }
    torch.save(tree, source)
    target = source.with_name("out") / "model.safetensors"
    assert convert(source, target) == ["epoch"]
    found = load_file(target)
    expected = {f"{n}.{k}": t for n in ("vae", "dit") for k, t in tree[n].items()}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        bits = (t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor))
        assert torch.equal(*bits)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_the_older_format_is_read_too(source: Path) -> None:
    torch.save({"w": torch.arange(3)}, source, _use_new_zipfile_serialization=False)
    target = source.with_suffix(".safetensors")
    assert main(source, target) == {"tensors": 1, "left_out": []}
    assert load_file(target)["w"].tolist() == [0, 1, 2]


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


def test_code_in_a_pickle_does_not_run(source: Path) -> None:
    sprung = source.with_name("sprung")
    torch.save({"w": torch.zeros(2), "trap": Trap(sprung)}, source)
    with pytest.raises(Unavailable) as caught:
        convert(source, source.with_suffix(".safetensors"))
    assert caught.value.code == "weights_pickle_unfit"
    assert [path.name for path in source.parent.iterdir()] == [source.name]
    source.write_bytes(pickle.dumps({"w": 1, "trap": Trap(sprung)}, protocol=2))
    with pytest.raises(pickle.UnpicklingError):
        main(source, source.with_suffix(".safetensors"))
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"w": torch.zeros(2), "o": [1, 2]}, "o is a list, not a tensor"),
        ({"step": 3}, "it holds no tensor"),
        (torch.zeros(2), "it holds a Tensor, not a dictionary"),
        ({"a": {"b": torch.zeros(1)}, "a.b": torch.zeros(1)}, "would be called a.b"),
    ],
)
def test_what_is_no_dictionary_of_tensors_is_refused(
    source: Path, tree: object, words: str
) -> None:
    torch.save(tree, source)
    with pytest.raises(ValueError, match=words):
        main(source, source.with_suffix(".safetensors"))
    assert [path.name for path in source.parent.iterdir()] == [source.name]


def test_what_was_not_written_as_it_was_read_is_not_kept(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(tensors: dict[str, torch.Tensor], path: Path) -> None:
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, path)

    monkeypatch.setattr("safetensors.torch.save_file", careless)
    torch.save({"w": torch.zeros(2)}, source)
    with pytest.raises(ValueError, match="w was not written as it was read"):
        main(source, source.with_suffix(".safetensors"))
    assert [path.name for path in source.parent.iterdir()] == [source.name]
