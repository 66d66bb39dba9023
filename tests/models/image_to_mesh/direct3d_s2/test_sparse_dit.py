"""The sparse DiT beyond its parity files: batches, order of rows, times known beforehand, release
1.0's image tokens, and configurations that no release has.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from models.image_to_mesh.direct3d_s2.image_tokens import (
    PATCH,
    WHOLE_IMAGE,
    no_object,
    object_patches,
    object_tokens,
)
from models.image_to_mesh.direct3d_s2.sparse_dit import SparseDiT
from models.nn.embeddings import position_embedding
from models.nn.sparse_tensor import SparseTensor
from models.nn.velocity import KnownTimes, SparseVelocity
from tests.models.nn.voxels import close, random_grid

ALIKE = 2e-5
"""fp32, values near 1: sums in another order."""

CONFIG = {
    "resolution": 16, "in_channels": 3, "out_channels": 3, "model_channels": 32,
    "cond_channels": 32, "num_blocks": 2, "num_heads": 4, "num_kv_heads": 2, "topk": 3,
    "selection_block_size": 4, "window_size": 4, "factor": 0.5, "qk_rms_norm": True,
    "use_fp16": True, "use_checkpoint": True, "pe_mode": "ape", "use_shift": True,
}  # fmt: skip
RELEASES = {
    "1.1": {"compression_block_size": 4, "compression_version": "v1", "sparse_conditions": False},
    "1.0": {"compression_block_size": 2, "compression_version": "v2", "sparse_conditions": True},
}


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.no_grad():
        yield


class Drawn:
    """A network of a release with random weights, voxels of two items, and what it is told."""

    def __init__(self, rng: np.random.Generator, release: str) -> None:
        self.seed = int(rng.integers(1 << 30))
        self.generator = torch.Generator().manual_seed(self.seed)
        # GroupNorm of compression has 32 groups: two heads of keys of 16 channels.
        wide = {"model_channels": 64, "cond_channels": 64} if release == "1.0" else {}
        self.flow = SparseDiT.from_config({**CONFIG, **RELEASES[release], **wide}).eval()
        for parameter in self.flow.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(self.normal(*parameter.shape) / fan**0.5)
        self.x = random_grid(self.seed, items=2, extent=(9, 6, 7), channels=3).tensor
        self.x = self.x.to(torch.float32)
        self.times = torch.tensor([200.0, 731.0])
        tokens = self.normal(2, WHOLE_IMAGE + 6, wide.get("cond_channels", 32))
        self.cond: Tensor | SparseTensor = tokens
        if release == "1.0":
            patches = torch.rand(2, 2, 3, generator=self.generator) < 0.5
            self.cond = object_tokens(tokens, patches)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)


@pytest.mark.parametrize("release", RELEASES)
def test_items_of_a_batch_are_apart_and_rows_in_any_order(
    rng: np.random.Generator, release: str
) -> None:
    drawn = Drawn(rng, release)
    out = drawn.flow(drawn.x, drawn.times, drawn.cond)
    assert out.sites is drawn.x.sites
    conds = (
        drawn.cond.items() if isinstance(drawn.cond, SparseTensor) else drawn.cond[:, None]
    )  # fmt: skip
    alone = [
        drawn.flow(item, drawn.times[i : i + 1], cond).feats
        for i, (item, cond) in enumerate(zip(drawn.x.items(), conds, strict=True))
    ]
    close(out.feats, torch.cat(alone), ALIKE)
    order = torch.cat(
        [torch.randperm(n) + r.start for n, r in zip(drawn.x.counts, drawn.x.layout, strict=True)]
    )
    moved = SparseTensor(drawn.x.feats[order], drawn.x.coords[order])
    close(drawn.flow(moved, drawn.times, drawn.cond).feats, out.feats[order], ALIKE)


@pytest.mark.parametrize("release", RELEASES)
def test_conditions_in_one_batch_and_times_known(rng: np.random.Generator, release: str) -> None:
    drawn = Drawn(rng, release)
    empty = no_object(drawn.cond) if isinstance(drawn.cond, SparseTensor) else drawn.cond * 0
    conditions = drawn.flow.contexts(drawn.cond), drawn.flow.contexts(empty)
    apart = SparseVelocity(drawn.flow, drawn.x)(drawn.x.feats, 0.25, conditions)
    clock = KnownTimes(drawn.flow.modulations, [0.5, 0.25], torch.device("cpu"))
    batched = SparseVelocity(drawn.flow, drawn.x, batched=True, clock=clock)
    for one, other in zip(apart, batched(drawn.x.feats, 0.25, conditions), strict=True):
        close(other, one, ALIKE)
    assert (apart[0] - apart[1]).abs().max() > 0.01  # the image matters


def test_tokens_of_the_object(rng: np.random.Generator) -> None:
    alpha = torch.zeros(2, 2 * PATCH, 3 * PATCH)
    alpha[0, PATCH - 1, 2 * PATCH] = 0.004  # a single pixel, the last row of its patch
    alpha[1, PATCH:] = 1
    patches = object_patches(alpha)
    assert patches.tolist() == [[[0, 0, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 1]]]
    tokens = torch.from_numpy(rng.standard_normal((2, WHOLE_IMAGE + 6, 4)))
    seen = object_tokens(tokens, patches)
    assert seen.counts == [WHOLE_IMAGE + 1, WHOLE_IMAGE + 3]
    whole = [[0, 0, 1]] * WHOLE_IMAGE
    first, second = (item.coords[:, 1:].tolist() for item in seen.items())
    assert first == [*whole, [2, 0, 0]]
    assert second == [*whole, [0, 1, 0], [1, 1, 0], [2, 1, 0]]
    expected = torch.cat((tokens[0, [0, 1, 2, 3, 4, 7]], tokens[1, [0, 1, 2, 3, 4, 8, 9, 10]]))
    assert torch.equal(seen.feats, expected)
    assert not no_object(seen).feats.any() and no_object(seen).sites is seen.sites
    with pytest.raises(ValueError, match="11 tokens are not 5 and one for each of 4 patches"):
        object_tokens(tokens, patches[:, :, :2])


def test_image_tokens_are_given_their_places(rng: np.random.Generator) -> None:
    drawn = Drawn(rng, "1.0")
    assert isinstance(drawn.cond, SparseTensor) and drawn.flow.cond_proj is not None
    tokens = drawn.flow.cond_proj(drawn.cond.feats)
    tokens = tokens + position_embedding(drawn.cond.coords[:, 1:], 64)
    expected = drawn.flow.blocks[1].cross_attn.to_kv(tokens).view(-1, 2, 4, 16)
    made = drawn.flow.contexts(drawn.cond)[1]
    close(torch.stack((made.k, made.v), dim=1), expected, ALIKE)
    assert list(made.rows.lengths) == drawn.cond.counts


def test_what_no_release_has(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="pe_mode is 'rope'; only 'ape' is known"):
        SparseDiT.from_config({**CONFIG, "pe_mode": "rope"})
    with pytest.raises(ValueError, match="an argument 'depth', which is not known"):
        SparseDiT.from_config({**CONFIG, "depth": 3})
    drawn = Drawn(rng, "1.1")
    with pytest.raises(ValueError, match="takes image tokens as a tensor"):
        drawn.flow.contexts(drawn.x)
    with pytest.raises(ValueError, match="takes image tokens as a SparseTensor"):
        Drawn(rng, "1.0").flow.contexts(torch.zeros(1, 5, 64))
