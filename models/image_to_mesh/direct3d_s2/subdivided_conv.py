"""A convolution on the children of voxels, computed on the voxels themselves.

After a subdivision all eight children carry their parent's features, so a 3^3 convolution on them
sees only the parent's 27 neighbours: it is one convolution there, with summed weights and eight
times the channels. The children need no kernel map, which at 1024^3 would take 5.5 GB.
It knows no network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.nn.resample import subdivided
from models.nn.sparse_conv.functional import submanifold_conv
from models.nn.sparse_tensor import SparseTensor

SEEN_FROM = (((1, 0, 0), (0, 1, 1), (0, 0, 0)), ((0, 0, 0), (1, 1, 0), (0, 0, 1)))
"""[child][parent][tap] along one axis: the first child's tap -1 is the parent at -1, its taps 0 and
1 stay in its own parent; the second child's tap 1 is the parent at 1."""


def subdivided_conv(
    x: SparseTensor,  # [N, Cin]
    weight: Tensor,  # [Cout, 3, 3, 3, Cin]
    bias: Tensor | None = None,  # [Cout]
) -> SparseTensor:  # [N * 8, Cout]: `subdivide`, then `submanifold_conv`
    folded = submanifold_conv(x, fold(weight), None if bias is None else bias.repeat(8))
    return SparseTensor.on(folded.feats.view(-1, weight.shape[0]), subdivided(x.sites))


def fold(weight: Tensor) -> Tensor:
    """[Cout, 3, 3, 3, Cin] -> [8 * Cout, 3, 3, 3, Cin], child after child, z fastest.

    Summed in fp32, rounded once.
    """
    seen = torch.tensor(SEEN_FROM, dtype=torch.float32, device=weight.device)
    folded = torch.einsum("axi,byj,czk,nijkm->abcnxyzm", seen, seen, seen, weight.float())
    return folded.flatten(0, 3).to(weight.dtype).contiguous()
