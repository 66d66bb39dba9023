"""rate: classes of like worth, and the step that pays in each."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.splat_to_sog.importance import ATTRIBUTES, Importance
from models.splat_to_sog.layout import log_position
from models.splat_to_sog.rate import (
    CLASSES,
    MAX_POSITION_STEP,
    MAX_STEP,
    MIN_CLASS,
    Classes,
    classify,
    position_limit,
)


def drawn(rng: np.random.Generator, n: int, spread: float = 3.0) -> Importance:
    """Worths over many orders of magnitude that splats have in common."""
    common = rng.normal(size=n) * spread
    return Importance(
        {
            name: np.exp(common + rng.normal(size=n) * 0.3 - 10).astype(np.float32)
            for name in ATTRIBUTES
        }
    )


@pytest.mark.parametrize("count", [2, 3, 8])
def test_classes_are_sorted_by_worth_and_none_is_empty(rng, count: int) -> None:
    importance = drawn(rng, count * MIN_CLASS)
    classes = classify(importance, count)
    sizes = np.bincount(classes.of)
    assert classes.count == len(sizes) == count
    assert (sizes > 0).all()
    for name in ATTRIBUTES:
        assert (np.diff(classes.worth[name]) < 0).all(), name
        assert classes.worth[name].shape == (count,)
        mean = [importance.worth[name][classes.of == c].mean() for c in range(count)]
        assert (np.diff(mean) < 0).all(), name


def test_classes_waste_less_than_one_for_all(rng) -> None:
    """Half the logarithm of (arithmetic / geometric mean), in bits a number."""
    worth = drawn(rng, 4 * MIN_CLASS)

    def waste(classes: Classes) -> float:
        total = 0.0
        for name, weight in ATTRIBUTES.items():
            for c in range(classes.count):
                own = worth.worth[name][classes.of == c].astype(np.float64)
                total += weight * len(own) * math.log2(own.mean() / np.exp(np.log(own).mean())) / 2
        return total / len(worth)

    assert waste(classify(worth, 4)) < 0.15 * waste(classify(worth, 1))


@pytest.mark.parametrize("n", [1, 2, MIN_CLASS, 2 * MIN_CLASS - 1])
def test_a_small_scene_is_one_class(rng, n: int) -> None:
    classes = classify(drawn(rng, n), CLASSES)
    assert classes.count == 1 and (classes.of == 0).all() and len(classes.of) == n


def test_the_worth_of_one_of_several_classes_lies_between_its_two_means(rng) -> None:
    worth = drawn(rng, 3 * MIN_CLASS)
    classes = classify(worth, 2)
    for name in ATTRIBUTES:
        for c in range(2):
            own = worth.worth[name][classes.of == c].astype(np.float64)
            assert classes.worth[name][c] == pytest.approx(
                math.sqrt(own.mean() * np.exp(np.log(own).mean())), rel=1e-6
            )


def test_of_all_steps_for_one_class_its_own_loses_least_with_bits_counted(rng) -> None:
    """One step d for all: error worth d^2 / 12 summed, a bit a number for each halving of d."""
    worth = drawn(rng, 3000)
    price = 1e-7
    steps = classify(worth, 1).steps(price)

    def cost(name: str, step: float) -> float:
        error = float(worth.worth[name].astype(np.float64).sum()) * step**2 / 12
        return error - len(worth) * price * math.log2(step)

    for name in ATTRIBUTES:
        best = float(steps[name][0])
        limit = MAX_STEP.get(name, math.inf)
        assert cost(name, best) < cost(name, best * 0.9)
        assert best == limit or cost(name, best) < cost(name, best * 1.1)


def test_splats_of_no_worth_at_all_are_classified(rng) -> None:
    n = 3 * MIN_CLASS
    nothing = Importance({name: np.zeros(n, np.float32) for name in ATTRIBUTES})
    classes = classify(nothing, 3)
    assert classes.count == len(np.unique(classes.of)) == 1  # an empty class is left out
    half = drawn(rng, n)
    for value in half.worth.values():
        value[: n // 2] = 0
    classes = classify(half, 3)
    assert (np.bincount(classes.of) > 0).all()
    assert np.isfinite(list(classes.steps(1e-9).values())).all()


def test_classes_are_deterministic(rng) -> None:
    worth = drawn(rng, 3 * MIN_CLASS)
    np.testing.assert_array_equal(classify(worth, 3).of, classify(worth, 3).of)


def test_four_times_the_price_is_twice_the_step(rng) -> None:
    classes = classify(drawn(rng, 2 * MIN_CLASS), 2)
    once, again = classes.steps(1e-12), classes.steps(4e-12)
    for name in ATTRIBUTES:
        np.testing.assert_allclose(again[name], 2 * once[name], rtol=1e-12)
        assert once[name][1] > once[name][0]  # what is worth less is coarser


def test_at_the_step_a_bit_costs_its_price(rng) -> None:
    """A bit more or less: d(worth step^2 / 12) / d(bits), bits = -log2(step)."""
    classes = classify(drawn(rng, 5000), 1)
    price = 1e-12
    for name, step in classes.steps(price).items():
        change = 1e-4
        error = [classes.worth[name] * (step * 2**-bits) ** 2 / 12 for bits in (-change, change)]
        np.testing.assert_allclose((error[0] - error[1]) / (2 * change), price, rtol=1e-6)


def test_no_step_is_larger_than_its_limit(rng) -> None:
    steps = classify(drawn(rng, 5000), 1).steps(1e12)
    for name, limit in MAX_STEP.items():
        assert (steps[name] == limit).all()


def test_positions_move_by_a_share_of_the_middle_of_the_scene(rng) -> None:
    means = rng.uniform(-3, 3, (5000, 3)).astype(np.float32)
    means[:5] = 1e30  # outliers do not count
    low, high = (log_position(np.float32([edge]))[0] for edge in (-2.7, 2.7))
    np.testing.assert_allclose(position_limit(means), MAX_POSITION_STEP * (high - low), rtol=0.02)
    assert position_limit(np.ones((7, 3), np.float32)).tolist() == [0, 0, 0]
