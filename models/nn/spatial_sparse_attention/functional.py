"""The three branches and their gated sum: by Triton kernels where they can, in PyTorch elsewhere.

Knows neither modules nor sites.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.nn.attention import Partition
from models.nn.backends import own_kernels
from models.nn.spatial_sparse_attention import reference
from models.nn.spatial_sparse_attention.blocks import Blocks

FIRST_WITH_BFLOAT16 = (8, 0)


def spatial_sparse_attention(
    q: Tensor,  # [N, H, D], in block order
    k: Tensor,  # [N, G, D]
    v: Tensor,  # [N, G, D]
    compressed_k: Tensor,  # [M, G, D], of compression blocks
    compressed_v: Tensor,  # [M, G, D]
    gates: Tensor,  # [N, 3]: of compression, selection and window
    blocks: Blocks,
    windows: Partition,
    topk: int,  # selection blocks a query attends to
) -> Tensor:  # [N, H, D]
    """gates . (compression, selection, window), each softmax(q k^T / sqrt(D)) v over its keys.

    Selection takes the blocks to which compression gave most weight, summed over the heads that
    share keys; of equal ones the first. For inference: by Triton no gradient flows.
    """
    compute = reference.spatial_sparse_attention
    if len(q) and by_triton(q, k.shape[1]):
        from models.nn.spatial_sparse_attention import triton_attention

        compute = triton_attention.spatial_sparse_attention
    return compute(q, k, v, compressed_k, compressed_v, gates, blocks, windows, topk)


def by_triton(q: Tensor, key_heads: int) -> bool:
    """Half precision on a CUDA device, heads that fill tiles, and nobody asked for others."""
    if not (q.is_cuda and own_kernels()):
        return False
    share, width = q.shape[1] // key_heads, q.shape[2]
    whole = share & (share - 1) == 0 and width & (width - 1) == 0 and 16 <= width <= 128
    if q.dtype == torch.bfloat16:
        return whole and torch.cuda.get_device_capability(q.device) >= FIRST_WITH_BFLOAT16
    return whole and q.dtype == torch.float16
