"""Runs the refiners' kernels on a CPU, prints errors: `TRITON_INTERPRET=1 python -m MODULE SEED`.

A process of its own, since Triton decides when a kernel is defined whether it interprets.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.nn.functional as F  # noqa: N812

from models.image_to_mesh.direct3d_s2 import adaptive, group_norm, unet3d
from models.image_to_mesh.direct3d_s2.conv3d import Conv3d, channels_last

SMOOTHED = {
    "smoothed, eight channels": ((1, 8, 7, 6, 9), torch.float32),
    "smoothed, channels that are no power of two, a batch": ((2, 3, 5, 8, 5), torch.float32),
    "smoothed, one channel, fp16": ((1, 1, 8, 8, 8), torch.float16),
}
NORMED = {
    # shape, groups, dtype, most programs of an item, whether there is an offset
    "normed, one part": ((1, 8, 5, 6, 7), 4, torch.float32, 256, True),
    "normed, no offset": ((1, 8, 9, 6, 7), 4, torch.float32, 256, False),
    "normed, a batch, parts of one block": ((2, 6, 19, 20, 21), 2, torch.float32, 256, True),
    "normed, parts of several blocks": ((1, 6, 33, 32, 28), 2, torch.float32, 4, True),
    "normed, fp16": ((1, 4, 17, 16, 20), 4, torch.float16, 2, True),
}


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found.double() - expected).abs().max() / expected.abs().max())


def smoothed(shape: tuple[int, ...], dtype: torch.dtype, seed: torch.Generator) -> float:
    x = torch.randn(shape, generator=seed).to(dtype)
    weights = torch.randn(shape[0], 27, *shape[2:], generator=seed).to(dtype)
    weights[0, :, 1, 2, 3] = 0  # nothing to norm
    expected = adaptive.smoothed(x.double(), weights.double())
    cut = channels_last(F.pad(weights, (0,) * 6 + (0, 5)))[:, :27]
    found = [adaptive.launch(channels_last(x), adaptive.planes_of(each)) for each in (weights, cut)]
    return max(off(each, expected) for each in found)


def normed(
    shape: tuple[int, ...],
    groups: int,
    dtype: torch.dtype,
    programs: int,
    moved: bool,
    seed: torch.Generator,
) -> float:
    """Far from zero, and each channel elsewhere."""
    group_norm.PROGRAMS = programs
    column = (-1, 1, 1, 1)
    x = torch.randn(shape, generator=seed) + torch.randn(shape[1], generator=seed).view(column) + 9
    x = channels_last(x.to(dtype))
    weight, bias, offset = torch.randn(3, shape[1], generator=seed)
    given = x.double() + offset.view(column).double() * moved
    expected = F.silu(F.group_norm(given, groups, weight.double(), bias.double(), 1e-5))
    found = group_norm.launch(x, groups, weight, bias, 1e-5, offset if moved else None)
    return off(found, expected)


def summed(seed: torch.Generator) -> float:
    h, skip = torch.randn(2, 2, 5, 7, 8, 9, generator=seed)
    h, skip = channels_last(h), channels_last(skip)
    bias = torch.randn(5, generator=seed)
    expected = h.double() + skip + bias.view(-1, 1, 1, 1)
    return off(unet3d.launch(h, skip, bias), expected)


@torch.no_grad()
def network(seed: torch.Generator) -> float:
    """A whole U-Net as on a GPU: layouts from part to part, channels that are no eights."""
    torch.manual_seed(int(torch.randint(2**31, (), generator=seed)))
    unet = unet3d.UNet3d(5, (6, 10), layers=1, layers_middle=0, groups=2)
    x = torch.randn(2, 5, 6, 4, 8, generator=seed)
    expected = unet(x)
    for module in (group_norm, unet3d):
        module.channels_last_on_gpu, module.ours_compute = channels_last, lambda x: True
    Conv3d._convolved = Conv3d.by_eights
    return off(unet(x), expected)


def main(seed: int) -> dict[str, float]:
    drawn = torch.Generator().manual_seed(seed)
    errors = {name: smoothed(*case, drawn) for name, case in SMOOTHED.items()}
    errors |= {name: normed(*case, drawn) for name, case in NORMED.items()}
    return errors | {"summed": summed(drawn), "network": network(drawn)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
