"""Sparse convolution, pooling and group normalisation against files of the reference networks."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.nn.backends import SparseName
from models.nn.resample import SparseDownsample, SparseSubdivide, SparseUpsample
from models.nn.sparse_conv import SparseConv3d
from models.nn.sparse_layers import SparseGroupNorm32
from models.nn.sparse_tensor import SparseTensor

RELATIVE = 1e-4
"""Of the largest value: what the files allow fp32 paths."""

Tensors = dict[str, Tensor]
BACKENDS: list[object] = ["torch", pytest.param("triton", marks=pytest.mark.gpu)]
if find_spec("spconv"):
    BACKENDS.append("spconv")

pytestmark = pytest.mark.filterwarnings("ignore:'locale.getdefaultlocale':DeprecationWarning")


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> SparseName:
    if request.param == "triton" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    name: SparseName = request.param
    return name


@pytest.fixture
def file(
    shared: Callable[[str], Path], request: pytest.FixtureRequest, backend: SparseName
) -> Tensors:
    """On the device that the backend computes on."""
    path = shared(f"data/parity/{request.param}.safetensors")
    return load_file(path, device="cuda" if backend == "triton" else "cpu")


def of(*names: str) -> pytest.MarkDecorator:
    cases = [pytest.param(name, id=name) for name in names]
    return pytest.mark.parametrize("file", cases, indirect=True)


def given(file: Tensors) -> SparseTensor:
    return SparseTensor(file["in/feats"], file["in/coords"])


def load(module: nn.Module, file: Tensors) -> None:
    """Every weight of the file, in fp32; the module must have exactly these, in these shapes."""
    weights = {name[2:]: t for name, t in file.items() if name.startswith("w/")}
    module.load_state_dict(weights)
    module.to(file["in/feats"].device).eval()


def agree(out: Tensor, expected: Tensor) -> None:
    assert out.shape == expected.shape
    assert (out - expected).abs().max() <= RELATIVE * expected.abs().max()


@of("trellis_subm_conv_k1", "trellis_subm_conv_k3")
@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@torch.no_grad()
def test_submanifold(file: Tensors, backend: SparseName) -> None:
    size = file["w/conv.weight"].shape[1]
    module = SparseConv3d(16, 24, size, backend=backend)
    load(module, file)
    agree(module(given(file)).feats, file["out/feats"])


@of("trellis_subm_conv_k1")
@pytest.mark.parametrize("backend", ["torch"], indirect=True)
@torch.no_grad()
def test_a_transpose_would_be_noise(file: Tensors) -> None:
    """The trap this file is for: the other layouts' reading of the same weight."""
    module = SparseConv3d(16, 24, 1, layout="flexgemm")
    load(module, file)
    assert (module(given(file)).feats - file["out/feats"]).abs().max() > 1


@of("spconv_strided_k2s2")
@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@torch.no_grad()
def test_strided_and_inverse(file: Tensors, backend: SparseName) -> None:
    down = SparseConv3d(16, 24, 2, stride=2, backend=backend)
    back = SparseConv3d(24, 16, 2, stride=2, inverse=True, backend=backend)
    for module, prefix in ((down, "in/"), (back, "in/inv_")):
        names = ("weight", "bias")
        module.load_state_dict({f"conv.{name}": file[prefix + name] for name in names})
        module.to(file["in/feats"].device)
    x = given(file)
    coarse = down(x)
    assert torch.equal(coarse.coords, file["out/coords_sorted"])
    agree(coarse.feats, file["out/feats_sorted"])
    fine = back(coarse)
    assert fine.sites is x.sites
    agree(fine.feats, file["out/inverse_feats"])


@of("trellis_sparse_resample")
@pytest.mark.parametrize("backend", BACKENDS[:2], indirect=True)
def test_resample(file: Tensors) -> None:
    x = given(file)
    coarse = SparseDownsample(2, mean="trellis")(x)
    assert torch.equal(coarse.coords, file["out/down_coords"])
    agree(coarse.feats, file["out/down_feats"])
    returned = SparseUpsample(2)(coarse)
    assert torch.equal(returned.coords, file["out/up_coords"])
    agree(returned.feats, file["out/up_feats"])
    children = SparseSubdivide()(x)
    assert torch.equal(children.coords, file["out/sub_coords"])
    assert torch.equal(children.feats, x.feats.repeat_interleave(8, dim=0))


@of("trellis_sparse_resample")
@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_the_true_mean_is_another(file: Tensors) -> None:
    coarse = SparseDownsample(2, mean="true")(given(file))
    assert (coarse.feats - file["out/down_feats"]).abs().max() > 1


@of("trellis_sparse_groupnorm")
@pytest.mark.parametrize("backend", BACKENDS[:2], indirect=True)
@torch.no_grad()
def test_group_norm(file: Tensors) -> None:
    module = SparseGroupNorm32(4, 16)
    load(module, file)
    agree(module(given(file)).feats, file["out/feats"])
