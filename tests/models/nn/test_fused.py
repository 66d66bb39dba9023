"""The fused steps and our attention without a GPU: kernels interpreted, and compiled for each card.

What a GPU computes is in tests/gpu/test_trellis_gpu.py and test_attention_gpu.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.nn.attention import Segments, triton_backend
from models.nn.attention.triton_attention import NARROWEST, tile
from models.nn.backends import use_backends
from models.nn.fused import Norm, Update, linear_gelu, qk_rms_norm, residual_norm
from models.nn.fused.functional import laid_out
from models.nn.fused.triton_norms import HEADS, WARPS, options, tile_rows
from tests.models.interpreted import interpreted
from tests.models.nn.test_triton_compile import SERVED, SHARED_LIMIT, reports

SINGLE = 1e-5
"""Of the norm: fp32 sums of up to a hundred numbers against fp64."""


def test_interpreted_kernels_are_the_reference() -> None:
    errors = interpreted("tests.models.nn.interpret_fused", 11)
    assert len(errors) == 26 + 36 + 3 + 8
    assert {case: error for case, error in errors.items() if not error < SINGLE} == {}


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape)).float()


def test_residual_and_norm_written_out(rng: np.random.Generator) -> None:
    rows = Segments([4, 3, 5])
    x, h = normal(rng, 12, 16), normal(rng, 7, 16)
    gate, rest = normal(rng, 3, 16), normal(rng, 1, 16)
    scale, shift = normal(rng, 3, 16), normal(rng, 3, 16)
    total, y = residual_norm(
        x, Update(h, gate, rest), Norm(1e-6, scale=scale, shift=shift, silu=True, rows=9), rows
    )
    assert len(y) == 9
    for row in range(12):
        item = (row >= 4) + (row >= 7)
        added = x[row] + gate[item] * (h[row] if row < 7 else rest[0])
        torch.testing.assert_close(total[row], added)
        if row < 9:
            spread = (added - added.mean()) / (added.var(correction=0) + 1e-6).sqrt()
            torch.testing.assert_close(y[row], F.silu(spread * (1 + scale[item]) + shift[item]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("items", [1, 3])
def test_each_operation_rounds(rng: np.random.Generator, dtype: torch.dtype, items: int) -> None:
    rows = Segments([4, 3, 5])
    x = normal(rng, 12, 16).to(dtype)
    scale, shift = normal(rng, items, 16).to(dtype), normal(rng, items, 16).to(dtype)
    by = Norm(1e-6, scale=scale, shift=shift, stepwise=True, rows=9)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for row, y in enumerate(residual_norm(x, None, by, rows)[1]):
        item = (row >= 4) + (row >= 7) if items == 3 else 0
        out = F.layer_norm(x[row].to(wide), (16,), eps=1e-6).to(dtype)
        for operation, other in ((torch.mul, 1 + scale[item]), (torch.add, shift[item])):
            out = operation(out.double(), other.double()).to(dtype)
        assert torch.equal(y, out)


@pytest.mark.parametrize(
    ("expected", "update", "norm"),
    [
        (True, lambda each, one, h: Update(h, each[0]), lambda each, one: (each[1], each[2])),
        (True, lambda each, one, h: Update(h, one[0]), lambda each, one: (one[1], one[2])),
        (True, lambda each, one, h: Update(h, rest=one[0][0, None]), lambda each, one: None),
        (False, lambda each, one, h: Update(h, one[0]), lambda each, one: (each[1], each[2])),
        (False, lambda each, one, h: Update(h, each[0]), lambda each, one: (each[0].clone(),) * 2),
        (False, lambda each, one, h: Update(h.T), lambda each, one: None),
    ],
    ids=["each", "one", "settled", "one gate for all", "two tables", "columns"],
)
def test_kernels_take_what_lies_as_they_read_it(
    rng: np.random.Generator, expected: bool, update: Callable, norm: Callable
) -> None:
    each, one = normal(rng, 3, 24).chunk(3, -1), normal(rng, 1, 24).chunk(3, -1)
    scales = norm(each, one)
    by = Norm(1e-6) if scales is None else Norm(1e-6, scale=scales[0], shift=scales[1])
    assert laid_out(update(each, one, normal(rng, 8, 8)), by) is expected


def test_qk_norm_leaves_values_alone(rng: np.random.Generator) -> None:
    qkv, gamma = normal(rng, 5, 3, 2, 8), normal(rng, 2, 8)
    q, k, v = qk_rms_norm(qkv.clone(), gamma, 2 * gamma)
    assert torch.equal(v, qkv[:, 2])
    for found, given, gain in ((q, qkv[:, 0], gamma), (k, qkv[:, 1], 2 * gamma)):
        torch.testing.assert_close(found, given / given.norm(dim=-1, keepdim=True) * gain * 8**0.5)


def test_gelu_is_the_tanh_form(rng: np.random.Generator) -> None:
    x, weight, bias = normal(rng, 5, 8), normal(rng, 6, 8), normal(rng, 6)
    y = x.double() @ weight.double().T + bias.double()
    exact = y / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (y + 0.044715 * y**3)))
    torch.testing.assert_close(linear_gelu(x, weight, bias).double(), exact, atol=1e-6, rtol=1e-5)


def test_our_attention_says_what_it_cannot() -> None:
    cpu = torch.device("cpu")
    assert "not on cpu" in triton_backend.obstacle(cpu, torch.float16, 64)
    with use_backends(attention="triton"):  # fp32 on a CPU: PyTorch's computes it
        q = torch.zeros(1, 2, 1, 4)
        from models.nn.attention import attend

        assert attend(q, q, q, bound=1.0).shape == q.shape


# -- ahead of time -------------------------------------------------------------------------------

NAMES = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
TYPES = {
    "attention": "q k v out blocks:*i32 q_starts:*i32 k_starts:*i32 q_length:i32 k_length:i32"
    " scale:fp32 bound:fp32 q_row:i32 k_row:i32 v_row:i32 out_row:i32 q_head:i32 k_head:i32"
    " v_head:i32 out_head:i32",
    "residual_norm": "x h rest gate scale shift out_x out_y items:*i32 n:i32 n_h:i32 n_y:i32"
    " length:i32 first_rest:i32 stride:i32 eps:fp32",
    "qk_rms_norm": "qkv q_gamma:*fp32 k_gamma:*fp32 n:i32 gain:fp32",
}


def case(
    module: str, kernel: str, dtype: torch.dtype, constants: dict[str, Any], **options: int
) -> dict[str, Any]:
    pairs = (word.partition(":") for word in TYPES[kernel].split())
    types = {name: kind or NAMES[dtype] for name, _, kind in pairs}
    strides = [name for name in types if name.endswith(("_row", "_head")) or name == "stride"]
    return {
        "module": module,
        "kernel": kernel,
        "types": types,
        "constants": constants,
        "aligned": strides,
        **options,
    }


def attention_case(
    capability: int, dtype: torch.dtype, width: int, bounded: bool, uniform: bool
) -> dict[str, Any]:
    rows, columns, warps, stages = tile(capability, width)
    constants = {
        "BOUNDED": bounded, "UNIFORM": uniform, "D": width, "BLOCK_M": rows, "BLOCK_N": columns,
        "BLOCK_D": max(NARROWEST, 1 << (width - 1).bit_length()),
    }  # fmt: skip
    return case(
        "attention/triton_kernels", "attention", dtype, constants, warps=warps, stages=stages
    )


def norm_case(dtype: torch.dtype, channels: int, *flags: str) -> dict[str, Any]:
    names = ("ADD", "REST", "GATE", "NORM", "AFFINE", "MODULATE", "SILU", "STEPWISE", "ITEMS")
    rows, block = tile_rows(channels)
    made = options("STEPWISE" in flags)
    constants = {name: name in flags for name in names}
    constants |= {"C": channels, "ROWS": rows, "BLOCK": block}
    found = case(
        "fused/triton_norm_kernels", "residual_norm", dtype, constants, stages=3,
        warps=made["num_warps"], fusion=made["enable_fp_fusion"],
    )  # fmt: skip
    if "AFFINE" in flags:
        found["types"] |= {"scale": "*fp32", "shift": "*fp32"}
    return found


@pytest.mark.parametrize(("version", "capability"), SERVED)
def test_kernels_compile_for_every_card(version: str, capability: int, tmp_path: Path) -> None:
    dtype = torch.bfloat16 if capability >= 80 else torch.float16
    products = [
        attention_case(capability, dtype, width, bounded, uniform)
        for width, bounded, uniform in (
            (64, capability >= 80, True), (64, False, False),
            (64, False, True), (128, False, False),
        )
    ]  # fmt: skip
    stepwise = ("ADD", "GATE", "NORM", "MODULATE", "STEPWISE")
    steps = [
        norm_case(torch.float16, 1024, *stepwise),
        norm_case(torch.float16, 1024, *stepwise, "REST", "ITEMS"),
        norm_case(dtype, 1024, *stepwise),
        norm_case(dtype, 1024, "ADD", "GATE", "NORM", "MODULATE"),
        norm_case(dtype, 1024, "ADD", "REST", "GATE", "NORM", "MODULATE", "ITEMS"),
        norm_case(dtype, 2048, "NORM", "AFFINE", "SILU"),
        norm_case(torch.float32, 768, "ADD", "NORM"),
        case(
            "fused/triton_norm_kernels", "qk_rms_norm", dtype,
            {"H": 16, "D": 64, "ROWS": HEADS, "BLOCK": 64}, warps=WARPS, stages=3,
        ),
    ]  # fmt: skip
    found = reports(version, capability, products + steps, tmp_path)
    for report in found:
        assert report["shared"] <= SHARED_LIMIT[capability], report
        assert (report["stack"], report["local"]) == (0, 0), report
    for report in found[: len(products)]:
        assert report["wgmma" if capability == 90 else "mma"], report
    # In bf16 sm_86 has no other instruction for a single product or sum than an FMA.
    rounding = found[len(products) :]
    assert [report["contracts"] for report in (*rounding[:2], rounding[3])] == [False, False, True]
