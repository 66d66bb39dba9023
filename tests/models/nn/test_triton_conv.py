"""The Triton backend without a GPU: kernels interpreted, plans chosen, plans kept.

What a GPU computes is in tests/gpu/test_sparse_conv_gpu.py, what compiles for which card in
test_triton_compile.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.nn.sparse_conv import triton_tuning
from models.nn.sparse_conv.triton_tiles import (
    Card,
    Plan,
    Problem,
    choose_plan,
    precision_of,
    tiles_of,
)
from tests.models.interpreted import interpreted

H200, T4 = Card(90, 132), Card(75, 40)
HALF, SINGLE = torch.float16, torch.float32
INTEGERS = ["map", "every row once", "table", "masks", "padding", "infinities"]
CONVOLUTIONS = {
    "96 channels in two parts": 5e-4,  # fp16 rounds the result once: 2^-11 at most
    "channels no tile divides": 1e-6,
    "three splits": 5e-4,
    "more splits than some tiles have offsets": 1e-6,
    "neither bias nor residual": 5e-4,
    "strided": 1e-6,
    "its inverse": 1e-6,
}


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    return interpreted("tests.models.nn.interpret_triton", 7)


@pytest.mark.parametrize("what", INTEGERS)
def test_map_arrangement_and_who_sees_whom(errors: dict[str, float], what: str) -> None:
    assert errors[what] == 0


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_against_fp64(errors: dict[str, float], case: str) -> None:
    assert errors[case] < CONVOLUTIONS[case]


def test_every_interpreted_case_is_judged(errors: dict[str, float]) -> None:
    assert set(errors) == {*INTEGERS, *CONVOLUTIONS}


channels = st.integers(1, 1100)
problems = st.builds(
    Problem,
    dtype=st.sampled_from((HALF, torch.bfloat16, SINGLE)),
    rows=st.integers(1, 3_000_000),
    channels_in=channels,
    channels_out=channels,
    volume=st.sampled_from((1, 8, 27)),
    precision=st.sampled_from(("ieee", "tf32", "tf32x3")),
)


@given(problem=problems, capability=st.sampled_from((75, 80, 86, 89, 90, 100, 120)))
def test_any_problem_has_a_plan(problem: Problem, capability: int) -> None:
    card = Card(capability, 48)
    plan = choose_plan(card, problem)
    assert plan == choose_plan(card, problem)
    assert 16 <= plan.tile.depth <= 64
    assert 1 <= plan.splits <= problem.volume
    widths = [tile.width for tile in tiles_of(capability, problem.dtype)]
    padded = -(-problem.channels_out // plan.tile.width) * plan.tile.width
    assert padded == min(-(-problem.channels_out // width) * width for width in widths)


@pytest.mark.parametrize(
    ("channels_out", "width"), [(1, 32), (96, 96), (128, 128), (192, 192), (384, 192), (512, 256)]
)
def test_widths_of_networks_leave_no_column_idle(channels_out: int, width: int) -> None:
    plan = choose_plan(H200, Problem(HALF, 220_000, 256, channels_out, 27))
    assert (plan.tile.width, plan.splits) == (width, 1)


@pytest.mark.parametrize(
    ("channels_in", "depth"), [(512, 64), (96, 32), (48, 16), (8, 16), (40, 64), (20, 32)]
)
def test_depth_divides_the_channels_where_it_can(channels_in: int, depth: int) -> None:
    assert choose_plan(H200, Problem(HALF, 220_000, channels_in, 256, 27)).tile.depth == depth


def test_few_rows_are_split_and_many_are_not() -> None:
    assert choose_plan(H200, Problem(HALF, 5_000, 128, 128, 27)).splits >= 3
    assert choose_plan(H200, Problem(HALF, 20_000, 128, 128, 27)).splits == 1
    assert choose_plan(H200, Problem(HALF, 5_000, 128, 128, 1)).splits == 1


def test_fp32_is_rounded_to_tf32_only_where_it_may_and_can() -> None:
    assert precision_of(90, SINGLE, tf32=False) == "tf32x3"
    assert precision_of(90, SINGLE, tf32=True) == "tf32"
    assert precision_of(75, SINGLE, tf32=True) == precision_of(90, HALF, tf32=True) == "ieee"


@pytest.fixture
def no_plans():
    triton_tuning.forget_plans()
    yield
    triton_tuning.forget_plans()


def test_a_measured_plan_is_kept_in_a_file(no_plans, tmp_path: Path) -> None:
    problem = Problem(HALF, 200_000, 96, 192, 27)
    table = triton_tuning.plan_for(T4, problem)

    def milliseconds(plan: Plan) -> float:  # the narrower, the faster
        return plan.tile.width

    best = triton_tuning.measure_plan(T4, problem, milliseconds)
    assert best.tile.width == 32 != table.tile.width
    triton_tuning.save_plans(tmp_path / "plans.json")
    triton_tuning.forget_plans()
    assert triton_tuning.plan_for(T4, problem) == table

    triton_tuning.load_plans(tmp_path / "plans.json")
    assert triton_tuning.plan_for(T4, problem) == best
    assert triton_tuning.plan_for(T4, Problem(HALF, 150_000, 96, 192, 27)) == best  # same octave
    for other in (
        Problem(HALF, 100_000, 96, 192, 27),
        Problem(SINGLE, 200_000, 96, 192, 27),
        Problem(HALF, 200_000, 192, 96, 27),
    ):
        assert triton_tuning.plan_for(T4, other) == choose_plan(T4, other)
    assert triton_tuning.plan_for(H200, problem) == choose_plan(H200, problem)
