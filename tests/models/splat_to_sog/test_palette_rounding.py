"""Rounding of palette entries, triple by triple, against a search of every choice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from models.splat_to_sog.palette import rounding
from models.splat_to_sog.palette.rounding import neighbours, rounded

REACH = 40


def costs_of_all(values, price, codes) -> np.ndarray:  # [8, M, K], in double precision
    """Squared error + price x bits of the eight ways to round each triple."""
    low = np.floor(values).astype(int)
    found = []
    for ups in itertools.product((0, 1), repeat=3):
        red, green, blue = (low[:, c] + up for c, up in enumerate(ups))
        error = sum((values[:, c] - s) ** 2.0 for c, s in enumerate((red, green, blue)))
        symbols = (green, red - green, blue - green)
        bits = sum(code.astype(float)[s + REACH] for code, s in zip(codes, symbols, strict=True))
        found.append(error + price[:, None] * bits)
    return np.array(found)


def test_each_triple_takes_the_cheapest_of_its_eight_neighbours(rng) -> None:
    values = (4 * rng.normal(size=(500, 3, 15))).astype(np.float32)
    price = rng.random(500).astype(np.float32)
    codes = (10 * rng.random((3, 2 * REACH + 1))).astype(np.float32)
    steps = neighbours(values, price, codes, REACH)
    assert ((steps == np.floor(values)) | (steps == np.floor(values) + 1)).all()
    error = ((values - steps) ** 2.0).sum(axis=1)
    g = steps[:, 1]
    symbols = np.stack([g, steps[:, 0] - g, steps[:, 2] - g])
    bits = np.take_along_axis(codes, symbols.reshape(3, -1) + REACH, axis=1).sum(axis=0)
    cost = error + price[:, None] * bits.reshape(g.shape)
    least = costs_of_all(values.astype(float), price, codes).min(axis=0)
    np.testing.assert_allclose(cost, least, rtol=1e-5)  # costs of up to 30, in single precision


@pytest.mark.parametrize("rows", [7, 64])
def test_parts_are_rounded_as_the_whole_is(rng, monkeypatch, rows) -> None:
    entries = rng.laplace(size=(300, 24)).astype(np.float32)
    served = np.exp(rng.normal(size=300))
    whole, bits = rounded(entries, served, 1e-3)
    monkeypatch.setattr(rounding, "ROWS", rows)
    parts, bits_of_parts = rounded(entries, served, 1e-3)
    np.testing.assert_array_equal(parts, whole)
    assert bits_of_parts == bits
