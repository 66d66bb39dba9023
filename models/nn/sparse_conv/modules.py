"""Sparse convolution as modules whose parameters carry a checkpoint's names, shapes and layout.

They know no network; what is computed is in `functional`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.nn.backends import SparseName
from models.nn.sparse_conv.functional import inverse_conv, strided_conv, submanifold_conv
from models.nn.sparse_conv.kernel_map import Size
from models.nn.sparse_conv.layouts import Layout, from_stored, parameter_name, stored_shape
from models.nn.sparse_tensor import SparseTensor


class StoredConv3d(nn.Module):
    """A weight as its checkpoint stores it (`layouts`), a bias, and the convolution they make.

    Parameters: `weight`, or `kernel` in torchsparse's layout; `bias` [Cout]. TRELLIS.2 (FlexGEMM)
    has this module itself where TRELLIS 1 and Direct3D-S2 have it as the `conv` of another.
    stride 1 is submanifold; more is strided, without padding. inverse goes back from that.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int | Size,
        *,
        layout: Layout,
        stride: int = 1,
        inverse: bool = False,
        bias: bool = True,
        backend: SparseName | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size: Size = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        self.layout: Layout = layout
        self.stride = stride
        self.inverse = inverse
        self.backend: SparseName | None = backend
        shape = stored_shape(layout, channels_out, self.kernel_size, channels_in)
        reach = 1 / math.sqrt(channels_in * math.prod(self.kernel_size))
        stored = nn.Parameter(torch.empty(shape).uniform_(-reach, reach))
        self.register_parameter(parameter_name(layout), stored)
        self.bias = (
            nn.Parameter(torch.empty(channels_out).uniform_(-reach, reach)) if bias else None
        )

    @property
    def engine_weight(self) -> Tensor:
        """[Cout, KX, KY, KZ, Cin], contiguous: the stored numbers where the layouts agree."""
        stored: Tensor = self.get_parameter(parameter_name(self.layout))
        return from_stored(stored, self.layout, self.kernel_size).contiguous()

    def forward(self, x: SparseTensor) -> SparseTensor:
        weight = self.engine_weight
        if self.inverse:
            return inverse_conv(x, weight, self.bias, stride=self.stride, backend=self.backend)
        if self.stride > 1:
            return strided_conv(x, weight, self.bias, stride=self.stride, backend=self.backend)
        return submanifold_conv(x, weight, self.bias, self.backend)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, layout={self.layout}"


class SparseConv3d(nn.Module):
    """A `StoredConv3d` whose parameters are called `conv.…`, as the wrappers of TRELLIS 1 have it.

    layout "spconv" is TRELLIS 1, "torchsparse" Direct3D-S2 (there the weight is `conv.kernel`).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        *,
        layout: Layout = "spconv",
        stride: int = 1,
        inverse: bool = False,
        bias: bool = True,
        backend: SparseName | None = None,
    ) -> None:
        super().__init__()
        self.conv = StoredConv3d(
            channels_in,
            channels_out,
            kernel_size,
            layout=layout,
            stride=stride,
            inverse=inverse,
            bias=bias,
            backend=backend,
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        out: SparseTensor = self.conv(x)
        return out
