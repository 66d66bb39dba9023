"""Spatial sparse attention of Direct3D-S2 (Wu et al. 2025, sec. 3.2): three branches, one sum.

    compression  every voxel attends to one key and value for each block of its item;
    selection    and to all voxels of the few blocks that mattered most there;
    window       and to all voxels of its own window.

It knows voxels and heads, no images and no time. `SpatialSparseAttention` is the module with the
official names; `reference` is what `triton_kernels` is held to.
"""

from models.nn.spatial_sparse_attention.blocks import Blocks, block_order, blocks_of, in_block_order
from models.nn.spatial_sparse_attention.functional import spatial_sparse_attention
from models.nn.spatial_sparse_attention.module import SpatialSparseAttention

__all__ = [
    "Blocks",
    "SpatialSparseAttention",
    "block_order",
    "blocks_of",
    "in_block_order",
    "spatial_sparse_attention",
]
