"""Work of TRELLIS' flows, counted from shapes: what is done, and what a plain network would do.

"done" is what the product computes: products of layers and of attention, and in the latent flow's
residual blocks of the pairs that exist. "plain" is what a network computes that projects the keys
and values of its context at every step, and lets a negative made of zeros attend to all of them.
Implementations compare by the latter: each does that work, or knows why it need not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.image_to_mesh.trellis.release import SamplerSettings
from models.image_to_mesh.trellis.slat_flow import SlatFlow
from models.nn.guidance import Guidance
from models.nn.resample import pooling
from models.nn.samplers import rescaled_times
from models.nn.sparse_conv.kernel_map import submanifold_map
from models.nn.sparse_tensor import SparseTensor


@dataclass(frozen=True)
class Work:
    done: float
    plain: float

    def __add__(self, other: Work) -> Work:
        return Work(self.done + other.done, self.plain + other.plain)

    def __mul__(self, times: int) -> Work:
        return Work(self.done * times, self.plain * times)


def block_work(rows: int, keys: int, attending: int, context: int, c: int = 1024) -> Work:
    """One block for one item: `rows` tokens, `keys` that each attends to, a context.

    attending: rows that have a choice of tokens in the context; to a plain block all have.
    """

    def counted(asking: int) -> int:
        layers = 2 * rows * c * c * (3 + 1 + 8) + 2 * asking * c * c * 2
        return layers + 4 * rows * keys * c + 4 * asking * context * c

    return Work(counted(attending), counted(rows) + 2 * context * c * 2 * c)


def guided_pair(tokens: int, context: int) -> Work:
    """One block for an image and its negative."""
    return block_work(tokens, tokens, tokens, context) + block_work(tokens, tokens, 0, context)


def flow_work(
    tokens: int, context: int, settings: SamplerSettings, blocks: int = 24
) -> tuple[Work, int]:
    """Of the blocks in a whole sampling; how often they are passed, guided steps twice."""
    times = rescaled_times(settings.steps, settings.rescale_t)[:-1]
    guidance = Guidance.added(settings.cfg_strength, settings.cfg_interval)
    guided = sum(guidance.acts_at(t) for t in times)
    alone = block_work(tokens, tokens, tokens, context)
    pairs = guided_pair(tokens, context) * guided
    return (alone * (len(times) - guided) + pairs) * blocks, len(times) + guided


def convolution_work(flow: SlatFlow, coords: Tensor) -> int:
    """Of the latent flow's residual blocks for one item and step: pairs that exist."""
    fine = SparseTensor(torch.zeros(len(coords), 1, device=coords.device), coords)
    levels = {False: fine.sites, True: pooling(fine.sites, 2).coarse}
    pairs = {
        coarse: int((submanifold_map(sites, (3, 3, 3), True).neighbours >= 0).sum())
        for coarse, sites in levels.items()
    }
    total = 0
    for block in (*flow.input_blocks, *flow.out_blocks):
        pair = pairs[block.updown == "down"]
        for layer in (block.conv1.conv, block.conv2.conv):
            out, *_, into = layer.weight.shape
            total += 2 * pair * out * into
        if isinstance(block.skip_connection, nn.Linear):
            rows = len(levels[block.updown is not None])
            total += 2 * rows * block.skip_connection.weight.numel()
    return total
