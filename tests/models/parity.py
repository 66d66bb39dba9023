"""Files of the reference networks: read, their weights put into ours, their outputs compared.

It does not know which networks they are of. The fixtures `golden`, `device` and `computing`, which
a test file may replace, are in `conftest.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.nn.backends import AttentionName, use_backends

N = TypeVar("N", bound=nn.Module)

RELATIVE = 1e-4
"""Of the largest value: what the files allow fp32 paths."""


class Golden:
    """One file: tensors by name (`in/…`, `out/…`, `w/…`), its configuration, its neighbours."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.path, self.device = path, device
        with safe_open(path, "pt", device=device) as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
            self.metadata = file.metadata()
        self.config = json.loads(self.metadata["config"])

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def beside(self, name: str) -> Golden:
        return Golden(self.path.with_name(f"{name}.safetensors"), self.device)

    def weights(self) -> dict[str, Tensor]:
        """In fp32; empty where the file stores only a seed."""
        return {k[2:]: t.float() for k, t in self.tensors.items() if k.startswith("w/")}

    def load(self, module: N) -> N:
        """With every weight of the file; the module must have exactly these, in these shapes."""
        module.load_state_dict(self.weights(), strict=True)
        return module.to(self.device).eval()

    def fill(self, module: N, **within: float) -> N:
        """With the weights of the file's seed; the sums it stores agree (`pytest.approx`)."""
        fill_as_the_reference(module, int(self.metadata["weight_seed"]))
        sums = json.loads(self.metadata["weight_abs_sums"])
        assert {name for name, _ in module.named_parameters()} == set(sums)
        for name, parameter in module.named_parameters():
            total = parameter.double().abs().sum().item()
            assert total == pytest.approx(sums[name], **within), name
        return module.to(self.device).eval()


@torch.no_grad()
def fill_as_the_reference(module: nn.Module, seed: int) -> None:
    """The random weights of files that store only a seed, as `rand_init.py` beside them draws."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        drawn = torch.randn(parameter.shape, generator=generator)
        leaf = name.rpartition(".")[2]
        if leaf == "gamma" or (leaf == "weight" and parameter.dim() == 1):
            values = 1 + 0.1 * drawn
        elif leaf == "bias" or parameter.dim() < 2:
            values = 0.1 * drawn
        else:
            fan = parameter.shape[-2] if leaf == "kernel" else parameter[0].numel()
            values = drawn / max(fan, 1) ** 0.5
        parameter.copy_(values.half())


def file(*names: str) -> pytest.MarkDecorator:
    """The files that `golden` is, by name, which is in the test's id."""
    params = [pytest.param(name, id=name) for name in names]
    return pytest.mark.parametrize("golden", params, indirect=True)


def agree(out: Tensor, expected: Tensor, within: float = RELATIVE) -> None:
    assert out.shape == expected.shape
    assert (out - expected).abs().max() <= within * expected.abs().max()


@contextmanager
def triton_on_cuda(device: str, attention: AttentionName) -> Iterator[None]:
    """Our own kernels convolve on CUDA, and `attention` is theirs there; PyTorch on a CPU.

    Tolerances are the same on both devices: dense convolutions compute in whole fp32 too.
    """
    cuda = device == "cuda"
    backends = use_backends(
        sparse="triton" if cuda else "torch", attention=attention if cuda else "sdpa"
    )
    whole = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with backends, whole, torch.no_grad():
        yield
