"""Runs the refiners' kernels on a CPU: `TRITON_INTERPRET=1 python FILE SEED`; prints their errors.

A process of its own, since Triton decides when a kernel is defined whether it interprets.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.nn.functional as F  # noqa: N812

from models.image_to_mesh.direct3d_s2 import adaptive, group_norm, unet3d
from models.image_to_mesh.direct3d_s2.conv3d import LAYOUT

SMOOTHED = {
    "smoothed, eight channels": ((1, 8, 7, 6, 9), torch.float32),
    "smoothed, channels that are no power of two, a batch": ((2, 3, 5, 8, 5), torch.float32),
    "smoothed, one channel, fp16": ((1, 1, 8, 8, 8), torch.float16),
}
NORMED = {
    # shape, groups, dtype, most programs of an item
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
    weights = torch.randn(shape[0], 32, *shape[2:], generator=seed).to(dtype)
    x, weights = (each.contiguous(memory_format=LAYOUT) for each in (x, weights))
    expected = adaptive.smoothed(x.double(), weights[:, :27].double())
    return off(adaptive.launch(x, weights[:, :27]), expected)


def normed(
    shape: tuple[int, ...], groups: int, dtype: torch.dtype, programs: int, seed: torch.Generator
) -> float:
    """Far from zero, and each channel elsewhere; with an offset in fp32, where none is rounded."""
    group_norm.PROGRAMS = programs
    column = (-1, 1, 1, 1)
    x = torch.randn(shape, generator=seed) + torch.randn(shape[1], generator=seed).view(column) + 9
    x = x.to(dtype).contiguous(memory_format=LAYOUT)
    weight, bias, offset = torch.randn(3, shape[1], generator=seed)
    given = x.double() + offset.view(column).double()
    expected = F.silu(F.group_norm(given, groups, weight.double(), bias.double(), 1e-5))
    return off(group_norm.launch(x, groups, weight, bias, 1e-5, offset), expected)


def summed(seed: torch.Generator) -> float:
    h, skip = torch.randn(2, 2, 5, 7, 8, 9, generator=seed)
    h, skip = (each.contiguous(memory_format=LAYOUT) for each in (h, skip))
    bias = torch.randn(5, generator=seed)
    expected = h.double() + skip + bias.view(-1, 1, 1, 1)
    return off(unet3d.launch(h, skip, bias), expected)


def main(seed: int) -> dict[str, float]:
    drawn = torch.Generator().manual_seed(seed)
    errors = {name: smoothed(*case, drawn) for name, case in SMOOTHED.items()}
    errors |= {name: normed(*case, drawn) for name, case in NORMED.items()}
    return errors | {"summed": summed(drawn)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
