"""Runs the refiners' kernels on a CPU: `TRITON_INTERPRET=1 python FILE SEED`; prints their errors.

A process of its own, since Triton decides when a kernel is defined whether it interprets.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.nn.functional as F  # noqa: N812

from models.image_to_mesh.direct3d_s2 import adaptive, group_norm

SMOOTHED = {
    "smoothed, eight channels": ((1, 8, 7, 6, 9), torch.float32),
    "smoothed, channels that are no power of two, a batch": ((2, 3, 5, 8, 5), torch.float32),
    "smoothed, one channel, fp16": ((1, 1, 8, 8, 8), torch.float16),
}
NORMED = {
    # shape, groups, dtype, most programs of a group
    "normed, one part": ((1, 8, 5, 6, 7), 4, torch.float32, 256),
    "normed, a batch, parts of one block": ((2, 6, 19, 20, 21), 2, torch.float32, 256),
    "normed, parts of several blocks": ((1, 6, 33, 32, 28), 2, torch.float32, 4),
    "normed, fp16": ((1, 4, 17, 16, 20), 4, torch.float16, 2),
}


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found.double() - expected).abs().max() / expected.abs().max())


def smoothed(shape: tuple[int, ...], dtype: torch.dtype, seed: torch.Generator) -> float:
    x = torch.randn(shape, generator=seed).to(dtype)
    weights = torch.randn(shape[0], 27, *shape[2:], generator=seed)
    weights = F.normalize(weights, p=1, dim=1).to(dtype)
    expected = adaptive.smoothed_by_taps(x.double(), weights.double())
    return off(adaptive.launch(x, weights), expected)


def normed(
    shape: tuple[int, ...], groups: int, dtype: torch.dtype, programs: int, seed: torch.Generator
) -> float:
    """Far from zero, and each channel elsewhere."""
    group_norm.PROGRAMS = programs
    column = (-1, 1, 1, 1)
    x = torch.randn(shape, generator=seed) + torch.randn(shape[1], generator=seed).view(column) + 9
    x = x.to(dtype)
    weight, bias = torch.randn(2, shape[1], generator=seed)
    expected = F.silu(F.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-5))
    return off(group_norm.launch(x, groups, weight, bias, 1e-5), expected)


def main(seed: int) -> dict[str, float]:
    drawn = torch.Generator().manual_seed(seed)
    errors = {name: smoothed(*case, drawn) for name, case in SMOOTHED.items()}
    return errors | {name: normed(*case, drawn) for name, case in NORMED.items()}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
