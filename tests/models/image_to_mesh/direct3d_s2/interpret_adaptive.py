"""Runs the smoothing kernel on a CPU: `TRITON_INTERPRET=1 python FILE SEED`; prints its errors.

A process of its own, since Triton decides when a kernel is defined whether it interprets.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.nn.functional as F  # noqa: N812

from models.image_to_mesh.direct3d_s2.adaptive import launch, smoothed_by_taps

CASES = {
    "eight channels": ((1, 8, 7, 6, 9), torch.float32),
    "channels that are no power of two, a batch": ((2, 3, 5, 8, 5), torch.float32),
    "one channel, fp16": ((1, 1, 8, 8, 8), torch.float16),
}


def error(shape: tuple[int, ...], dtype: torch.dtype, seed: torch.Generator) -> float:
    """Largest difference over the largest value, the plain one in fp64."""
    x = torch.randn(shape, generator=seed).to(dtype)
    weights = torch.randn(shape[0], 27, *shape[2:], generator=seed)
    weights = F.normalize(weights, p=1, dim=1).to(dtype)
    expected = smoothed_by_taps(x.double(), weights.double())
    return float((launch(x, weights).double() - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    drawn = torch.Generator().manual_seed(int(sys.argv[1]))
    print(json.dumps({name: error(*case, drawn) for name, case in CASES.items()}))
