"""Sparse convolution, pooling and group normalisation against files of the reference networks."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from models.nn.backends import SparseName
from models.nn.resample import SparseDownsample, SparseSubdivide, SparseUpsample
from models.nn.sparse_conv import SparseConv3d
from models.nn.sparse_layers import SparseGroupNorm32
from models.nn.sparse_tensor import SparseTensor
from tests.models.parity import Golden, agree, file

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
def device(backend: SparseName) -> str:
    """That the backend computes on."""
    return "cuda" if backend == "triton" else "cpu"


def given(golden: Golden) -> SparseTensor:
    return SparseTensor(golden["in/feats"], golden["in/coords"])


@file("trellis_subm_conv_k1", "trellis_subm_conv_k3")
@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@torch.no_grad()
def test_submanifold(golden: Golden, backend: SparseName) -> None:
    size = golden["w/conv.weight"].shape[1]
    module = golden.load(SparseConv3d(16, 24, size, backend=backend))
    agree(module(given(golden)).feats, golden["out/feats"])


@file("trellis_subm_conv_k1")
@pytest.mark.parametrize("backend", ["torch"], indirect=True)
@torch.no_grad()
def test_a_transpose_would_be_noise(golden: Golden) -> None:
    """The trap this file is for: the other layouts' reading of the same weight."""
    module = golden.load(SparseConv3d(16, 24, 1, layout="flexgemm"))
    assert (module(given(golden)).feats - golden["out/feats"]).abs().max() > 1


@file("spconv_strided_k2s2")
@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@torch.no_grad()
def test_strided_and_inverse(golden: Golden, backend: SparseName) -> None:
    down = SparseConv3d(16, 24, 2, stride=2, backend=backend)
    back = SparseConv3d(24, 16, 2, stride=2, inverse=True, backend=backend)
    for module, prefix in ((down, "in/"), (back, "in/inv_")):
        names = ("weight", "bias")
        module.load_state_dict({f"conv.{name}": golden[prefix + name] for name in names})
        module.to(golden.device)
    x = given(golden)
    coarse = down(x)
    assert torch.equal(coarse.coords, golden["out/coords_sorted"])
    agree(coarse.feats, golden["out/feats_sorted"])
    fine = back(coarse)
    assert fine.sites is x.sites
    agree(fine.feats, golden["out/inverse_feats"])


@file("trellis_sparse_resample")
@pytest.mark.parametrize("backend", BACKENDS[:2], indirect=True)
def test_resample(golden: Golden) -> None:
    x = given(golden)
    coarse = SparseDownsample(2, mean="trellis")(x)
    assert torch.equal(coarse.coords, golden["out/down_coords"])
    agree(coarse.feats, golden["out/down_feats"])
    returned = SparseUpsample(2)(coarse)
    assert torch.equal(returned.coords, golden["out/up_coords"])
    agree(returned.feats, golden["out/up_feats"])
    children = SparseSubdivide()(x)
    assert torch.equal(children.coords, golden["out/sub_coords"])
    assert torch.equal(children.feats, x.feats.repeat_interleave(8, dim=0))


@file("trellis_sparse_resample")
@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_the_true_mean_is_another(golden: Golden) -> None:
    coarse = SparseDownsample(2, mean="true")(given(golden))
    assert (coarse.feats - golden["out/down_feats"]).abs().max() > 1


@file("trellis_sparse_groupnorm")
@pytest.mark.parametrize("backend", BACKENDS[:2], indirect=True)
@torch.no_grad()
def test_group_norm(golden: Golden) -> None:
    module = golden.load(SparseGroupNorm32(4, 16))
    agree(module(given(golden)).feats, golden["out/feats"])
