"""Runs the fused kernels and attention on CPU: `TRITON_INTERPRET=1 python -m MODULE SEED`.

A process of its own, since Triton decides when a kernel is defined whether it interprets. Prints
{case: error} against the plain reference in fp64, or against single operations where each rounds;
the test that started it judges.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from models.nn.attention import Segments, triton_attention
from models.nn.attention import reference as attention
from models.nn.fused import Norm, Update, reference, triton_norms

Draw = Callable[..., Tensor]


def relative(out: Tensor, exact: Tensor) -> float:
    return float((out.double() - exact.double()).norm() / exact.double().norm())


def doubled(record: Update | Norm | None) -> Update | Norm | None:
    if record is None:
        return None
    tensors = {name: value for name, value in vars(record).items() if isinstance(value, Tensor)}
    return replace(record, **{name: value.double() for name, value in tensors.items()})


def norms(normal: Draw) -> dict[str, float]:
    errors = {}
    for name, lengths in (("even", [9, 9, 9]), ("uneven", [3, 17, 1])):
        rows, channels = Segments(lengths), 40
        first = rows.head(2).total
        x, h = normal(rows.total, channels), normal(rows.total, channels)
        each, shared = normal(3, 6 * channels).chunk(6, -1), normal(1, 6 * channels).chunk(6, -1)
        cases: dict[str, tuple[Update | None, Norm | None]] = {
            "plain": (None, Norm(1e-6)),
            "each": (Update(h, each[0]), Norm(1e-6, scale=each[1], shift=each[2])),
            "shared": (Update(h, shared[0]), Norm(1e-6, scale=shared[1], shift=shared[2])),
            "affine": (
                Update(h),
                Norm(1e-6, normal(channels), normal(channels), silu=True, rows=5),
            ),
            "settled": (Update(h[:first], rest=normal(1, channels)), Norm(1e-6)),
            "nobody asks": (Update(h[:0], rest=normal(3, channels)), Norm(1e-6, rows=0)),
            "sum": (Update(h, each[3]), None),
        }
        for case, (update, norm) in cases.items():
            total, y = triton_norms.residual_norm(x, update, norm, rows)
            exact = reference.residual_norm(x.double(), doubled(update), doubled(norm), rows)
            errors[f"{name} {case}"] = relative(total, exact[0])
            if len(y):
                errors[f"{name} {case}, normed"] = relative(y, exact[1])
    return errors


def roundings(normal: Draw) -> dict[str, float]:
    """The part of a stepwise norm's numbers that PyTorch's operations, one after the other, do not
    make of the same normed rows."""
    differing = {}
    channels = 40
    for name, lengths in (("even", [9, 9, 9]), ("uneven", [3, 17, 1])):
        rows = Segments(lengths)
        item = rows.item_index(torch.device("cpu"))
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            x, h = normal(2, rows.total, channels).to(dtype)
            for whose, items in (("each", 3), ("shared", 1)):
                mod = normal(items, 6 * channels).to(dtype).chunk(6, -1)
                scale, shift = (
                    chunk if items == 1 else chunk.index_select(0, item) for chunk in mod[1:3]
                )
                norm = Norm(1e-6, scale=mod[1], shift=mod[2], stepwise=True)
                _, normed = triton_norms.residual_norm(x, None, Norm(1e-6), rows)
                expected = normed * (1 + scale) + shift
                _, y = triton_norms.residual_norm(x, None, norm, rows)
                differing[f"{name} {dtype} {whose}"] = part(y != expected)
                _, y = triton_norms.residual_norm(x, None, replace(norm, silu=True), rows)
                differing[f"{name} {dtype} {whose}, silu"] = part(y != silu(expected))
                total, y = triton_norms.residual_norm(x, Update(h, mod[0]), norm, rows)
                _, normed = triton_norms.residual_norm(total, None, Norm(1e-6), rows)
                expected = normed * (1 + scale) + shift
                differing[f"{name} {dtype} {whose}, updated"] = part(y != expected)
    return differing


def part(wrong: Tensor) -> float:
    return float(wrong.double().mean())


def silu(x: Tensor) -> Tensor:
    """In fp32 and as the kernel writes it, whose exponential is NumPy's here: rounded once."""
    wide = x.float()
    return (wide * (1 / (1 + torch.from_numpy(np.exp(-wide.numpy()))))).to(x.dtype)


def round_bfloat16() -> None:
    """The interpreter cuts fp32 off where it makes bfloat16 of it; a GPU rounds to nearest."""
    convert = interpreter._convert_float

    def rounding(numbers, source, target, mode):
        if (source, target) == (tl.float32, tl.bfloat16):
            return torch.tensor(numbers).bfloat16().view(torch.int16).numpy()
        return convert(numbers, source, target, mode)

    interpreter._convert_float = rounding


def qk_norm(normal: Draw) -> dict[str, float]:
    qkv, gammas = normal(13, 3, 3, 24), (normal(3, 24), normal(3, 24))
    exact = reference.qk_rms_norm(qkv.double(), *(gamma.double() for gamma in gammas))
    found = triton_norms.qk_rms_norm(qkv.clone(), *gammas)
    pairs = zip(found, exact, strict=True)
    return {f"qk norm {part}": relative(*pair) for part, pair in enumerate(pairs)}


def attentions(normal: Draw) -> dict[str, float]:
    queries, keys = Segments([5, 90, 1, 33]), Segments([70, 1, 12, 64])
    errors = {}
    for width in (16, 24):
        q, k, v = (normal(rows.total, 2, width) for rows in (queries, keys, keys))
        exact = attention.attend_varlen(q.double(), k.double(), v.double(), queries, keys)
        most = float((q.norm(dim=-1).max() * k.norm(dim=-1).max()) / width**0.5)
        for name, bound in (("free", None), ("bounded", most), ("beyond", 100.0)):
            out = triton_attention.attend_varlen(q, k, v, queries, keys, bound)
            errors[f"packed, {width} wide, {name}"] = relative(out, exact)
        q, k, v = normal(2, 70, 2, width), normal(2, 45, 2, width), normal(2, 45, 2, width)
        exact = attention.attend(q.double(), k.double(), v.double())
        errors[f"dense, {width} wide"] = relative(triton_attention.attend(q, k, v), exact)
    return errors


def main(seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    # There is no device to make the current one, and none whose capability could be asked.
    torch.cuda.device_of = lambda x: nullcontext()
    torch.cuda.get_device_capability = lambda device=None: (7, 5)
    round_bfloat16()
    return norms(normal) | roundings(normal) | qk_norm(normal) | attentions(normal)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(int(sys.argv[1]))))
