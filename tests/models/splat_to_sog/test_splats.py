"""What is dropped, what is repaired, what is legal; shapes are checked at the door."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.splat_to_sog import splats as splats_module
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import drop_non_finite


def test_drops_and_counts_each_reason(make_splats) -> None:
    splats = make_splats(20, 1)
    splats.means[0, 1] = np.nan
    splats.means[1, 2] = np.inf
    splats.scales[2, 0] = np.inf
    splats.quats[3, 3] = np.nan
    splats.opacities[4] = np.nan
    splats.sh0[5, 0] = -np.inf
    splats.shN[6, 2, 2] = np.nan
    splats.shN[0, 0, 0] = np.nan  # splat 0 for the second time
    found = drop_non_finite(splats)
    assert found.dropped == {
        "position not finite": 2,
        "scale NaN or +inf": 1,
        "rotation not finite": 1,
        "opacity NaN": 1,
        "colour not finite": 1,
        "harmonics not finite": 2,
    }
    assert found.dropped_total == 7
    np.testing.assert_array_equal(found.splats.means, splats.means[7:])


def test_legal_infinities_stay_and_zero_quats_become_no_rotation(make_splats) -> None:
    splats = make_splats(4)
    splats.opacities[:2] = np.inf, -np.inf
    splats.scales[2] = -np.inf
    splats.quats[3] = 0
    found = drop_non_finite(splats)
    assert (found.dropped, found.dropped_total) == ({}, 0)
    assert found.repaired == {"rotation zero, read as none": 1}
    assert found.splats.quats[3].tolist() == [1, 0, 0, 0]
    assert splats.quats[3].tolist() == [0, 0, 0, 0]  # the caller's array is untouched


def test_cut_degree_keeps_the_lower_bands(make_splats) -> None:
    splats = make_splats(5, 3)
    cut = splats.cut_degree(1)
    assert cut.degree == 1
    np.testing.assert_array_equal(cut.shN, splats.shN[:, :, :3])
    assert splats.cut_degree(0).shN.shape == (5, 3, 0)
    assert splats.cut_degree(3) is splats


@pytest.mark.parametrize(
    "change",
    [
        {"means": np.zeros((5, 2), np.float32)},
        {"quats": np.zeros((5, 4))},
        {"opacities": np.zeros((5, 1), np.float32)},
        {"shN": np.zeros((5, 3, 4), np.float32)},
    ],
)
def test_wrong_shapes_and_types_are_refused(make_splats, change) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(make_splats(5), **change)


def test_nothing_to_drop_copies_nothing(make_splats) -> None:
    splats = make_splats(50, 2)
    assert drop_non_finite(splats).splats is splats
    assert splats.take(np.ones(50, bool)) is splats


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", ["means", "scales", "quats", "opacities", "sh0", "shN"])
def test_pieces_agree_with_the_plain_test(make_splats, rng, monkeypatch, name, value) -> None:
    """The sum of a piece answers as testing each value does, also where the sum overflows."""
    monkeypatch.setattr(splats_module, "PIECE_BYTES", 512)
    splats = make_splats(300, 2)
    bad = rng.random(300) < 0.02
    getattr(splats, name).reshape(300, -1)[bad, -1] = value
    legal = {"scales": [-np.inf], "opacities": [np.inf, -np.inf]}.get(name, [])
    values = getattr(splats, name).reshape(300, -1)
    fine = (np.isfinite(values) | np.isin(values, legal)).all(axis=1)
    found = drop_non_finite(splats)
    assert found.dropped_total == (~fine).sum() == sum(found.dropped.values())
    np.testing.assert_array_equal(found.splats.shN, splats.shN[fine])


def test_take_and_cut_put_their_arrays_where_they_are_told(make_splats, tmp_path, rng) -> None:
    scratch = Scratch(tmp_path, 0)
    splats = make_splats(40, 3)
    rows = rng.permutation(40)[:25]
    taken = splats.take(rows, scratch)
    assert isinstance(taken.shN, np.memmap)
    np.testing.assert_array_equal(taken.quats, splats.quats[rows])
    cut = splats.cut_degree(2, scratch)
    assert isinstance(cut.shN, np.memmap) and cut.means is splats.means
