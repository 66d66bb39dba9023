"""Guidance, mixing of conditions and Euler steps, on networks of one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from models.context import Cancelled, Unavailable
from models.nn.attention import CrossAttention, KeysValues
from models.nn.guidance import SIGMA_MIN, Guidance, predict_x0, spread, velocity_to
from models.nn.samplers import Step, rescaled_times, sample, shifted_times
from models.nn.sparse_tensor import SparseTensor
from models.nn.sparse_transformer import ModulatedSparseCrossBlock
from models.nn.transformer import ModulatedCrossBlock
from models.nn.velocity import DenseVelocity, Joiner, SparseVelocity, join


class Constant:
    """A velocity that is its condition everywhere, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, list[float]]] = []

    def __call__(self, x: Tensor, t: float, conditions: list[float]) -> list[Tensor]:
        self.asked.append((t, list(conditions)))
        return [torch.full_like(x, condition) for condition in conditions]


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape)).float()


def error(out: Tensor, expected: Tensor) -> float:
    assert out.shape == expected.shape
    return float((out.double() - expected.double()).abs().max())


# -- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("factor", [1.0, 3.0, 8.0])
def test_times_fall_from_one_to_zero(steps: int, factor: float) -> None:
    for times in (rescaled_times(steps, factor), shifted_times(steps, factor)):
        assert len(times) == steps + 1
        assert (times[0], times[-1]) == (1.0, 0.0)
        assert all(a > b for a, b in zip(times, times[1:], strict=False))


def test_rescaling_keeps_the_odds_in_proportion() -> None:
    even, bent = rescaled_times(10), rescaled_times(10, 3.0)
    for a, b in list(zip(even, bent, strict=True))[1:-1]:
        assert b / (1 - b) == pytest.approx(3 * a / (1 - a), rel=1e-12)


@pytest.mark.parametrize("schedule", [rescaled_times, shifted_times])
def test_no_steps_are_no_schedule(schedule) -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        schedule(0, 3.0)


# -- guidance ------------------------------------------------------------------------------------


def test_a_straight_flow_is_followed_exactly() -> None:
    """Velocity 2 from t = 1 to 0 moves by -2, however the steps are spaced."""
    out = sample(Constant(), torch.zeros(1, 3), [2.0], times=rescaled_times(9, 5.0))
    assert error(out, torch.full((1, 3), -2.0)) < 1e-6


def test_guidance_acts_within_its_interval_both_ends_included() -> None:
    velocity = Constant()
    times = rescaled_times(4)  # 1, 0.75, 0.5, 0.25, 0
    guidance = Guidance(3.0, (0.5, 0.75))
    out = sample(velocity, torch.zeros(1, 1), [1.0], times=times, negative=0.5, guidance=guidance)
    assert velocity.asked == [(1.0, [1.0]), (0.75, [1.0, 0.5]), (0.5, [1.0, 0.5]), (0.25, [1.0])]
    guided = 3 * 1.0 - 2 * 0.5
    assert float(out) == pytest.approx(-(0.5 * 1.0 + 0.5 * guided), abs=1e-6)


def test_the_two_conventions() -> None:
    """TRELLIS adds its strength to the condition; the others weigh condition against negative."""
    x, positive, negative = (torch.tensor([[value]]) for value in (0.0, 1.0, 0.25))
    assert float(Guidance.added(5.0).combine(positive, negative, x, 0.7)) == 6 * 1.0 - 5 * 0.25
    assert float(Guidance(5.0).combine(positive, negative, x, 0.7)) == 5 * 1.0 - 4 * 0.25
    for none in (Guidance.added(0.0), Guidance(1.0)):
        velocity = Constant()
        sample(velocity, x, [1.0], times=[1.0, 0.0], negative=0.5, guidance=none)
        assert velocity.asked == [(1.0, [1.0])]


def test_a_prediction_and_its_velocity_undo_each_other(rng: np.random.Generator) -> None:
    """x at t is (1 - t) x0 + (s + (1 - s) t) noise; its velocity is (1 - s) noise - x0."""
    x0, noise, t, s = normal(rng, 2, 5).double(), normal(rng, 2, 5).double(), 0.37, SIGMA_MIN
    x, velocity = (1 - t) * x0 + (s + (1 - s) * t) * noise, (1 - s) * noise - x0
    assert error(predict_x0(x, velocity, t), x0) < 1e-12
    assert error(velocity_to(x, x0, t), velocity) < 1e-12


@pytest.mark.parametrize("rescale", [0.0, 0.4, 1.0])
def test_rescaled_guidance_brings_the_spread_back(rng: np.random.Generator, rescale: float) -> None:
    x, positive, negative = (normal(rng, 3, 4, 5).double() for _ in range(3))
    t = 0.8
    plain = predict_x0(x, 7.5 * positive - 6.5 * negative, t)
    target = predict_x0(x, positive, t)
    out = predict_x0(x, Guidance(7.5, rescale=rescale).combine(positive, negative, x, t), t)
    for item in range(3):
        factor = rescale * target[item].std() / plain[item].std() + 1 - rescale
        assert error(out[item], factor * plain[item]) < 1e-9


def test_the_spread_of_packed_items_is_each_ones_own(rng: np.random.Generator) -> None:
    x, rows = normal(rng, 12, 3), [slice(0, 5), slice(5, 12)]
    out = spread(x, rows).expand(12, 3)
    assert error(out[:5], x[:5].std().expand(5, 3)) < 1e-6
    assert error(out[5:], x[5:].std().expand(7, 3)) < 1e-6
    dense = spread(x.view(2, 6, 3), None)
    assert dense.shape == (2, 1, 1)
    assert float(dense[1]) == pytest.approx(float(x[6:].std()))


# -- several images ------------------------------------------------------------------------------


def test_stochastic_takes_one_image_a_step_in_turn() -> None:
    velocity = Constant()
    out = sample(velocity, torch.zeros(1, 1), [1.0, 2.0, 6.0], times=rescaled_times(4))
    assert [conditions for _, conditions in velocity.asked] == [[1.0], [2.0], [6.0], [1.0]]
    assert float(out) == pytest.approx(-10 / 4)


def test_multidiffusion_takes_the_mean_of_all_against_one_negative() -> None:
    velocity = Constant()
    out = sample(
        velocity,
        torch.zeros(1, 1),
        [1.0, 2.0, 6.0],
        times=[1.0, 0.0],
        negative=1.0,
        guidance=Guidance.added(2.0),
        mixing="multidiffusion",
    )
    assert velocity.asked == [(1.0, [1.0, 2.0, 6.0, 1.0])]
    assert float(out) == pytest.approx(-(3 * 3.0 - 2 * 1.0))


def test_sampling_needs_a_condition() -> None:
    with pytest.raises(ValueError, match="at least one condition"):
        sample(Constant(), torch.zeros(1, 1), [], times=[1.0, 0.0])


# -- steps ---------------------------------------------------------------------------------------


def test_every_step_is_told_with_its_prediction(rng: np.random.Generator) -> None:
    steps: list[Step] = []
    noise = normal(rng, 1, 4)
    out = sample(Constant(), noise, [2.0], times=rescaled_times(5), on_step=steps.append)
    assert [(step.done, step.total) for step in steps] == [(i, 5) for i in range(1, 6)]
    assert torch.equal(steps[0].x, noise)
    assert torch.equal(steps[-1].x_next, out)
    for step in steps:
        assert error(step.x0, predict_x0(step.x, torch.full((1, 4), 2.0), step.t)) == 0


def test_what_a_step_raises_ends_the_sampling() -> None:
    velocity = Constant()

    def cancel(step: Step) -> None:
        if step.done == 2:
            raise Cancelled("The job was cancelled.")

    with pytest.raises(Cancelled):
        sample(velocity, torch.zeros(1, 1), [1.0], times=rescaled_times(9), on_step=cancel)
    assert len(velocity.asked) == 2


@pytest.mark.parametrize("overflow", [float("inf"), float("nan")])
def test_numbers_out_of_range_are_told(rng: np.random.Generator, overflow: float) -> None:
    """As when half precision overflows: decoded, they would be an object without a shape."""
    with pytest.raises(Unavailable, match="left the range") as caught:
        sample(Constant(), normal(rng, 1, 4), [overflow], times=rescaled_times(2))
    assert caught.value.code == "sample_not_finite"
    assert "MESHPRESS_DTYPE" in caught.value.next_step


def test_noise_is_not_changed(rng: np.random.Generator) -> None:
    noise = normal(rng, 1, 4)
    before = noise.clone()
    sample(Constant(), noise, [2.0], times=rescaled_times(3))
    assert torch.equal(noise, before)


# -- several conditions in one batch -------------------------------------------------------------


def flow_like(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Each item by its own time and the mean of its own tokens."""
    return x * t[:, None] + cond.mean(dim=(1, 2))[:, None]


def test_one_batch_equals_passes_apart(rng: np.random.Generator) -> None:
    x, conditions = normal(rng, 2, 6), [normal(rng, 2, 5, 3) for _ in range(3)]
    apart = DenseVelocity(flow_like)(x, 0.3, conditions)
    together = DenseVelocity(flow_like, batched=True)(x, 0.3, conditions)
    for a, b in zip(apart, together, strict=True):
        assert error(a, b) < 1e-6
        assert a.abs().max() > 100  # times come in thousandths


def test_blocks_in_one_batch_equal_passes_apart_with_a_short_negative(
    rng: np.random.Generator,
) -> None:
    """Nine tokens of an image beside one of zeros, as prepared keys and values."""
    dense, sparse = (
        kind(32, 24, 4, mlp_ratio=2, qk_rms_norm=True)
        for kind in (ModulatedCrossBlock, ModulatedSparseCrossBlock)
    )
    tokens = normal(rng, 1, 9, 24)
    grid = torch.cartesian_prod(*[torch.arange(3)] * 3).int()
    voxels = SparseTensor(normal(rng, 27, 32), torch.cat([torch.zeros_like(grid[:, :1]), grid], 1))

    def network(block):
        return lambda x, t, cond: block(x, t[:, None] / 1000 * torch.ones(32), cond[0])

    for block, kind, x in (
        (dense, DenseVelocity, normal(rng, 1, 10, 32)),
        (sparse, lambda *a, **k: SparseVelocity(*a[:1], voxels, **k), voxels.feats),
    ):
        with torch.no_grad():
            kv = [[block.cross_attn.keys_values(c)] for c in (tokens, torch.zeros(1, 1, 24))]
            apart = kind(network(block))(x, 0.4, kv)
            together = kind(network(block), batched=True)(x, 0.4, kv)
            full = kind(network(block))(x, 0.4, [[tokens], [torch.zeros(1, 9, 24)]])
        for a, b, c in zip(apart, together, full, strict=True):
            assert error(a, b) < 1e-5
            assert error(a, c) < 1e-5
        assert error(apart[0], apart[1]) > 0.01


def test_copies_of_the_sites_are_made_once(rng: np.random.Generator) -> None:
    coords = torch.tensor([[0, 1, 2, 3], [0, 3, 2, 1]], dtype=torch.int32)
    seen = []

    def network(x: SparseTensor, t: Tensor, cond: Tensor) -> SparseTensor:
        seen.append(x.sites)
        return x

    velocity = SparseVelocity(network, SparseTensor(normal(rng, 2, 4), coords), batched=True)
    for t in (1.0, 0.5):
        velocity(normal(rng, 2, 4), t, [torch.zeros(1, 1, 1), torch.ones(1, 1, 1)])
    assert seen[0] is seen[1]
    assert seen[0].coords[:, 0].tolist() == [0, 0, 1, 1]


def test_conditions_are_joined_in_order_and_kept_until_others_come(
    rng: np.random.Generator,
) -> None:
    layer, joiner = CrossAttention(8, 6, 2), Joiner()
    a, b = normal(rng, 2, 3, 6), normal(rng, 2, 3, 6)
    joined = joiner([a, b])
    assert torch.equal(joined, torch.cat([a, b]))
    assert joiner([a, b]) is joined
    assert torch.equal(joiner([b, a]), torch.cat([b, a]))

    first, second = layer.keys_values(a), layer.keys_values(b[:, :1])
    (both,) = join([[first], [second]])
    assert isinstance(both, KeysValues)
    assert both.rows.lengths == (3, 3, 1, 1)
    assert both.v is first.v  # of what is settled nothing is read
    assert both.settled is not None and torch.equal(both.settled, second.settled)
    (turned,) = join([[second], [first]])
    assert torch.equal(turned.v, torch.cat([second.v, first.v])) and turned.settled is None
    x = normal(rng, 4, 5, 8)
    expected = torch.cat((layer(x[:2], first), layer(x[2:], second)))
    torch.testing.assert_close(layer(x, both), expected)
    expected = torch.cat((layer(x[:2], second), layer(x[2:], first)))
    torch.testing.assert_close(layer(x, turned), expected)

    with pytest.raises(ValueError, match=r"\[2, 3, 6\], \[2, 1, 6\] do not make a batch"):
        join([a, b[:, :1]])
