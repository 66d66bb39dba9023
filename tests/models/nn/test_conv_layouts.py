"""Stored weights: each layout's own formula, read from its source, against F.conv3d."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.nn.sparse_conv import SparseConv3d, StoredConv3d
from models.nn.sparse_conv.layouts import (
    Layout,
    from_stored,
    parameter_name,
    stored_shape,
    to_stored,
)
from tests.models.nn.voxels import Size, close, dense_conv, random_grid

LAYOUTS: list[Layout] = ["spconv", "flexgemm", "torchsparse"]
SIZES: list[Size] = [(3, 3, 3), (1, 1, 1), (3, 5, 1)]


def torchsparse_offsets(size: Size) -> list[Size]:
    """(kx, ky, kz) of each row of `kernel`, as torchsparse/nn/utils/kernel.py numbers them."""
    x, y, z = (range(k) for k in size)
    if size[0] * size[1] * size[2] % 2 == 1:
        return [(i, j, k) for k in z for j in y for i in x]
    return [(i, j, k) for i in x for j in y for k in z]


def stored_by(layout: Layout, dense: Tensor) -> Tensor:
    """F.conv3d's weight [Cout, Cin, KX, KY, KZ] in the words of each library."""
    size = (dense.shape[2], dense.shape[3], dense.shape[4])
    if layout == "torchsparse":
        rows = [dense[:, :, x, y, z].T for x, y, z in torchsparse_offsets(size)]
        return rows[0] if len(rows) == 1 else torch.stack(rows)
    if layout == "spconv" and size == (1, 1, 1):
        as_used = dense[
            :, :, 0, 0, 0
        ].T  # x @ this; stored as its memory, called [Cout, 1, 1, 1, Cin]
        return as_used.contiguous().view(dense.shape[0], 1, 1, 1, dense.shape[1])
    return dense.permute(0, 2, 3, 4, 1).contiguous()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [*SIZES, (2, 2, 2), (3, 2, 1)])
def test_both_directions(layout: Layout, size: Size) -> None:
    dense = torch.randn(5, 3, *size)
    stored = stored_by(layout, dense)
    assert list(stored.shape) == stored_shape(layout, 5, size, 3)
    weight = from_stored(stored, layout, size)
    assert torch.equal(weight, dense.permute(0, 2, 3, 4, 1))
    back = to_stored(weight, layout)
    assert torch.equal(back, stored) and back.is_contiguous()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_modules_compute_the_dense_convolution(layout: Layout, size: Size) -> None:
    grid = random_grid(7, channels=3)
    dense, bias = grid.normal(5, 3, *size), grid.normal(5)
    module = StoredConv3d(3, 5, size, layout=layout).double()
    name = parameter_name(layout)
    module.load_state_dict({name: stored_by(layout, dense), "bias": bias})
    expected = dense_conv(grid.dense(), dense.permute(0, 2, 3, 4, 1), bias)
    close(module(grid.tensor).feats, grid.at(expected, grid.tensor.coords), 1e-12)


def test_no_copy_where_the_layouts_agree() -> None:
    module = StoredConv3d(3, 5, 3, layout="spconv")
    assert module.engine_weight.data_ptr() == module.weight.data_ptr()


@pytest.mark.parametrize(
    ("file", "layer", "make"),
    [
        (
            "trellis_slat_dec_mesh_swin8_B_64l8m256c",
            "upsample.0.out_layers.0",
            lambda: SparseConv3d(768, 192, 3),
        ),
        (
            "trellis_slat_dec_mesh_swin8_B_64l8m256c",
            "upsample.1.skip_connection",
            lambda: SparseConv3d(192, 96, 1),
        ),
        (
            "direct3d_s2_v11_sparse_vae_512",
            "encoder.downsample.0.skip_connection",
            lambda: SparseConv3d(32, 64, 1, layout="torchsparse"),
        ),
        (
            "direct3d_s2_v11_sparse_vae_512",
            "decoder.upsample.0.out_layers.0",
            lambda: SparseConv3d(128, 128, 3, layout="torchsparse"),
        ),
        (
            "trellis2_shape_dec_next_dc_f16c32",
            "blocks.3.4.conv2",
            lambda: StoredConv3d(64, 64, 3, layout="flexgemm"),
        ),
    ],
)
def test_parameters_of_official_checkpoints(
    shared: Callable[[str], Path], file: str, layer: str, make: Callable[[], torch.nn.Module]
) -> None:
    table = json.loads(shared(f"data/state_dicts/{file}.json").read_text())["tensors"]
    stored = {
        name.removeprefix(layer + "."): entry["shape"]
        for name, entry in table.items()
        if name.startswith(layer + ".")
    }
    ours = {name: list(tensor.shape) for name, tensor in make().state_dict().items()}
    assert stored and ours == stored


def test_offsets_of_an_odd_kernel_run_along_x_first() -> None:
    """The fact the layout rests on, as the facts of Direct3D-S2 state it: k = kx + 3 ky + 9 kz."""
    for x, y, z in product(range(3), repeat=3):
        assert torchsparse_offsets((3, 3, 3))[x + 3 * y + 9 * z] == (x, y, z)
