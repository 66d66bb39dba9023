"""The sparse convolutions: checks once, finds the kernel map, hands it to the backend.

They know neither modules nor checkpoints; weights are [Cout, KX, KY, KZ, Cin], and mean what they
say: out = sum over k of weight[:, k] @ in. How others store them is in `layouts`.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.nn.backends import SparseName
from models.nn.resample import subdivided
from models.nn.sparse_conv.backend import load_backend, pick_backend
from models.nn.sparse_conv.kernel_map import KernelMap, Size, strided_map, submanifold_map
from models.nn.sparse_tensor import SparseTensor


def submanifold_conv(
    x: SparseTensor,  # [N, Cin]
    weight: Tensor,  # [Cout, KX, KY, KZ, Cin], odd sizes
    bias: Tensor | None = None,  # [Cout]
    backend: SparseName | None = None,
) -> SparseTensor:  # [N, Cout] on the same sites
    """A dense convolution with zero padding, computed on the active sites alone (Graham 2018)."""
    size = _check(x, weight, bias)
    if size == (1, 1, 1):
        return x.replace(F.linear(x.feats, weight[:, 0, 0, 0], bias))
    name = pick_backend(backend, x.device, x.dtype)
    kernel_map = submanifold_map(x.sites, size, by_triton=name == "triton")
    return x.replace(_convolve(x, weight, bias, kernel_map, name))


def strided_conv(
    x: SparseTensor,  # [N, Cin]
    weight: Tensor,  # [Cout, KX, KY, KZ, Cin]
    bias: Tensor | None = None,  # [Cout]
    *,
    stride: int,
    padding: int = 0,
    extent: Size | None = None,
    backend: SparseName | None = None,
) -> SparseTensor:  # [M, Cout] on every site that reaches an input; ascending
    """F.conv3d(..., stride, padding) where its window holds a voxel. extent: see `strided_map`."""
    size = _check(x, weight, bias)
    sites, kernel_map = strided_map(x.sites, size, stride, padding, extent)
    feats = _convolve(x, weight, bias, kernel_map, backend)
    return SparseTensor.on(feats, sites, (*x.finer, x.sites))


def inverse_conv(
    x: SparseTensor,  # [M, Cin], from a strided convolution with the same numbers
    weight: Tensor,  # [Cout, KX, KY, KZ, Cin]
    bias: Tensor | None = None,  # [Cout]
    *,
    stride: int,
    padding: int = 0,
    extent: Size | None = None,
    backend: SparseName | None = None,
) -> SparseTensor:  # [N, Cout] on the sites before that convolution
    """The transposed convolution back to the sites that the strided one was given."""
    size = _check(x, weight, bias)
    if not x.finer:
        raise ValueError(f"{x!r} comes from no strided convolution: there is nothing to invert.")
    fine = x.finer[-1]
    sites, kernel_map = strided_map(fine, size, stride, padding, extent)
    if sites is not x.sites:
        raise ValueError(
            f"{x!r} comes from another convolution than kernel {size}, stride {stride}, "
            f"padding {padding}, extent {extent}."
        )
    feats = _convolve(x, weight, bias, kernel_map.transposed(), backend)
    return SparseTensor.on(feats, fine, x.finer[:-1])


def upsampling_conv(
    x: SparseTensor,  # [N, Cin]
    weight: Tensor,  # [Cout, K, K, K, Cin]
    bias: Tensor | None = None,  # [Cout]
) -> SparseTensor:  # [N * K^3, Cout]: all children of each voxel, z fastest
    """A transposed convolution of kernel and stride K onto every child: F.conv_transpose3d.

    Each child has one parent and one weight offset, so this is one matrix product on any backend.
    """
    size = _check(x, weight, bias)
    if len(set(size)) != 1:
        raise ValueError(f"An up-sampling kernel must be as large along each axis, not {size}.")
    matrix = weight.permute(1, 2, 3, 0, 4).reshape(-1, weight.shape[-1])  # [V * Cout, Cin]
    feats = F.linear(x.feats, matrix).view(-1, weight.shape[0])
    sites = subdivided(x.sites, size[0])
    return SparseTensor.on(feats if bias is None else feats + bias, sites)


def _convolve(
    x: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_map: KernelMap,
    backend: SparseName | None,
) -> Tensor:
    run = load_backend(pick_backend(backend, x.device, x.dtype))
    return run(x.feats, weight, bias, kernel_map)


def _check(x: SparseTensor, weight: Tensor, bias: Tensor | None) -> Size:
    """The kernel's size; ValueError where weight and features do not fit each other."""
    channels = x.feats.shape[1]
    if weight.ndim != 5 or weight.shape[4] != channels:
        raise ValueError(
            f"weight must be [Cout, KX, KY, KZ, {channels}], not {list(weight.shape)}."
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [{weight.shape[0]}], not {list(bias.shape)}.")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and (tensor.dtype, tensor.device) != (x.dtype, x.device):
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, feats are {x.dtype} on {x.device}."
            )
    return (weight.shape[1], weight.shape[2], weight.shape[3])
