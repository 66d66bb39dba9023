"""Spatial sparse attention as a module, under the parameter names of Direct3D-S2's checkpoints.

It knows voxels of one level, no time and no image. Queries, keys and values are projected once and
shared by the three branches; none of the projections has a bias.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.nn.attention import Window, partition
from models.nn.sparse_tensor import SparseTensor
from models.nn.spatial_sparse_attention.blocks import blocks_of, in_block_order
from models.nn.spatial_sparse_attention.compression import COMPRESSIONS
from models.nn.spatial_sparse_attention.functional import spatial_sparse_attention

Version = Literal["v1", "v2"]


class SpatialSparseAttention(nn.Module):
    """[N, C] -> [N, C], rows in any order; those in block order need not be moved.

    compression_block_size, selection_block_size: edges in voxels, the second a multiple.
    topk: selection blocks a voxel attends to, for each head of keys.
    window: of the window branch.
    """

    def __init__(
        self,
        hidden_size: int,
        num_q_heads: int,
        num_kv_heads: int,
        head_dim: int,
        compression_block_size: int,
        selection_block_size: int,
        topk: int,
        window: Window,
        compression_version: Version = "v2",
    ) -> None:
        super().__init__()
        if selection_block_size % compression_block_size:
            raise ValueError(
                f"Selection blocks of {selection_block_size} voxels are no whole number of "
                f"compression blocks of {compression_block_size}."
            )
        if num_q_heads % num_kv_heads:
            raise ValueError(f"{num_q_heads} heads of queries cannot share {num_kv_heads} of keys.")
        keys = num_kv_heads * head_dim
        self.head_dim = head_dim
        self.compression_block_size = compression_block_size
        self.selection_block_size = selection_block_size
        self.topk = topk
        self.window = window
        self.proj_q = nn.Linear(hidden_size, num_q_heads * head_dim, bias=False)
        self.proj_k = nn.Linear(hidden_size, keys, bias=False)
        self.proj_v = nn.Linear(hidden_size, keys, bias=False)
        self.proj_o = nn.Linear(num_q_heads * head_dim, hidden_size, bias=False)
        compression = COMPRESSIONS[compression_version]
        self.compression_key = compression(keys, compression_block_size)
        self.compression_value = compression(keys, compression_block_size)
        self.intra_block_pe = nn.Parameter(torch.zeros(*[compression_block_size] * 3, keys))
        self.gate = nn.Sequential(nn.Linear(hidden_size, 3, bias=False), nn.Sigmoid())

    def forward(self, x: SparseTensor) -> SparseTensor:
        ordered, back = in_block_order(x, self.selection_block_size)
        out: Tensor = self.proj_o(self.attend(ordered))
        return x.replace(out if back is None else out.index_select(0, back))

    def attend(self, x: SparseTensor) -> Tensor:
        """[N, C] in block order -> [N, H * D], before the projection out."""
        sites = x.sites
        q, k, v = self.proj_q(x.feats), self.proj_k(x.feats), self.proj_v(x.feats)
        placed = k + self._within_block(x).to(k.dtype)
        keys = self.compression_key(x.replace(placed)).feats
        values = self.compression_value(x.replace(v)).feats
        return spatial_sparse_attention(
            self._heads(q),
            self._heads(k),
            self._heads(v),
            self._heads(keys),
            self._heads(values),
            self.gate(x.feats),
            blocks_of(sites, self.compression_block_size, self.selection_block_size),
            partition(sites, self.window),
            self.topk,
        ).flatten(1)

    def _heads(self, rows: Tensor) -> Tensor:  # [n, heads * D] -> [n, heads, D]
        return rows.view(len(rows), -1, self.head_dim)

    def _within_block(self, x: SparseTensor) -> Tensor:
        """[N, G * D]: what each voxel's key is given for its place within its block."""
        size = self.compression_block_size

        def number() -> Tensor:
            x_, y, z = (x.coords[:, 1:].long() % size).unbind(1)
            return (x_ * size + y) * size + z

        cells = x.sites.cached(("cell_of_block", size), number)
        return self.intra_block_pe.flatten(0, 2).index_select(0, cells)
