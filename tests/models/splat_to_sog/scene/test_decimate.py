"""Fewer splats: exactly as many as asked, the same every time, with light and place kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.splat_to_sog.scene.decimate import decimate, levels, neighbour_pairs
from models.splat_to_sog.scene.moments import alphas, covariances, moments_of, splats_of
from models.splat_to_sog.scene.pair_cost import Views, picture_areas
from models.splat_to_sog.splats import drop_non_finite


def light(splats) -> float:
    blur = np.full(len(splats), 1e-9, np.float32)
    areas = picture_areas(covariances(splats.scales, splats.quats), blur, Views())
    return float((areas * alphas(splats.opacities)).sum())


@pytest.mark.parametrize("keep", [1, 2, 99, 250, 499])
def test_keeps_exactly_as_many_and_all_are_drawable(make_splats, keep) -> None:
    splats = make_splats(500, 2)
    found = decimate(splats, keep)
    assert (len(found), found.degree) == (keep, 2)
    assert drop_non_finite(found).dropped_total == 0


def test_enough_splats_are_the_scene_itself(make_splats) -> None:
    splats = make_splats(10)
    assert decimate(splats, 10) is splats
    assert decimate(splats, 11) is splats


def test_same_in_same_out_and_the_input_stays(make_splats) -> None:
    splats = make_splats(300, 1)
    before = splats.means.copy(), splats.shN.copy()
    first, second = decimate(splats, 100), decimate(splats, 100)
    for name in ("means", "scales", "quats", "opacities", "sh0", "shN"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(splats.means, before[0])
    np.testing.assert_array_equal(splats.shN, before[1])


def test_splats_that_were_not_merged_are_unchanged(make_splats) -> None:
    splats = make_splats(200, 1)
    found = decimate(splats, 190)
    rows = {row.tobytes() for row in np.concatenate([splats.means, splats.quats], axis=1)}
    same = [row.tobytes() in rows for row in np.concatenate([found.means, found.quats], axis=1)]
    assert sum(same) == 180


def test_equal_splats_are_merged_before_different_ones(make_splats, rng) -> None:
    """Every splat twice: half the splats draw the same colours in the same places."""
    one = make_splats(200, 1)
    one.opacities[:] = -4  # translucent: two in one place have double the alpha, nearly
    twice = one.take(np.repeat(np.arange(200), 2))
    found = decimate(twice, 200)
    order, wanted = np.lexsort(found.means.T), np.lexsort(one.means.T)
    np.testing.assert_allclose(found.means[order], one.means[wanted], rtol=1e-5)
    np.testing.assert_allclose(found.sh0[order], one.sh0[wanted], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        covariances(found.scales, found.quats)[order],
        covariances(one.scales, one.quats)[wanted],
        rtol=1e-3,  # through eigenvalues of float32 covariances
        atol=1e-7,
    )


def test_light_of_translucent_splats_is_kept(make_splats) -> None:
    splats = replace(make_splats(400), model="antialiased")  # no pixel widens a splat
    splats.opacities[:] -= 3
    # Splats overlap little in this scene, and none becomes opaque: sums agree within the overlap.
    assert light(decimate(splats, 200)) == pytest.approx(light(splats), rel=0.05)


def test_legal_extremes_come_through(make_splats) -> None:
    splats = make_splats(64, 1)
    splats.opacities[:8] = np.inf
    splats.opacities[8:16] = -np.inf
    splats.scales[16:24, 2] = -np.inf
    splats.scales[24:28] = 60
    splats.means[28:32] = 1e9
    splats.means[32:48] = 0
    for keep in (40, 5, 1):
        assert drop_non_finite(decimate(splats, keep)).dropped_total == 0


def test_flat_splats_stay_flat(make_splats) -> None:
    splats = replace(make_splats(50), model="2dgs")
    splats.scales[:, 2] = -np.inf
    found = decimate(splats, 10)
    assert found.model == "2dgs"
    assert (found.scales[:, 2] == -np.inf).all()


def test_levels_are_nested_and_errors_do_not_fall(make_splats) -> None:
    splats = make_splats(1000, 1)
    found = levels(splats, [1.0, 500, 0.25, 100])
    assert [len(level.splats) for level in found] == [1000, 500, 250, 100]
    assert found[0].splats is splats
    errors = [level.error for level in found]
    assert errors[0] == 0 and errors == sorted(errors) and errors[1] > 0
    assert [level.changes.shape for level in found] == [(1000,), (500,), (250,), (100,)]
    again = decimate(splats, 500)
    np.testing.assert_array_equal(found[1].splats.means, again.means)


@pytest.mark.parametrize("counts", [[10, 20], [0], [-1], [0.5, 0.7]])
def test_levels_refuse_counts_that_do_not_descend(make_splats, counts) -> None:
    with pytest.raises(ValueError, match="descend"):
        levels(make_splats(30), counts)


def test_pairs_are_those_of_the_nearest_each_once(rng) -> None:
    means = rng.normal(size=(80, 3)).astype(np.float32)
    distances = np.linalg.norm(means[:, None] - means, axis=2)
    np.fill_diagonal(distances, np.inf)
    plain = {
        (min(i, int(j)), max(i, int(j))) for i in range(80) for j in np.argsort(distances[i])[:3]
    }
    i, j = neighbour_pairs(means, 3)
    found = [(min(pair), max(pair)) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    assert len(found) == len(plain)
    assert set(found) == plain


def test_moments_and_back(make_splats) -> None:
    splats = make_splats(40, 1)
    moments = moments_of(splats, np.arange(40))
    moments.sources[::2] = -1  # as if merged: through covariance and eigenvectors
    back = splats_of(moments, splats)
    np.testing.assert_allclose(back.opacities, splats.opacities, atol=2e-2)  # alpha is float32
    np.testing.assert_array_equal(back.scales[1::2], splats.scales[1::2])
    np.testing.assert_allclose(
        covariances(back.scales, back.quats), moments.covs, rtol=1e-4, atol=1e-8
    )


@pytest.mark.parametrize("keep", [40, 1])
@pytest.mark.parametrize("kind", ["one place", "one far out", "one huge"])
def test_scenes_without_a_sensible_size_stay_finite(make_splats, kind: str, keep: int) -> None:
    """A warning would fail this test: nothing overflows where it matters."""
    splats = make_splats(80, 1)
    if kind == "one place":
        splats.means[:] = splats.means[0]
    elif kind == "one far out":
        splats.means[5] = 1e30
    else:
        splats.scales[7] = 80
    merged = decimate(splats, keep)
    assert len(merged) == keep
    assert len(drop_non_finite(merged).splats) == keep
