"""Sparse convolution on the voxels of a `SparseTensor`: functions, modules, three backends.

It knows no network. `functional` checks and finds the kernel map (`kernel_map`); a backend
(`torch_conv`, `triton_conv`, `spconv_conv`; chosen in `backend`) multiplies; `modules` hold
parameters as checkpoints store them (`layouts`).
"""

from models.nn.sparse_conv.functional import (
    inverse_conv,
    strided_conv,
    submanifold_conv,
    upsampling_conv,
)
from models.nn.sparse_conv.modules import SparseConv3d, StoredConv3d

__all__ = [
    "SparseConv3d",
    "StoredConv3d",
    "inverse_conv",
    "strided_conv",
    "submanifold_conv",
    "upsampling_conv",
]
