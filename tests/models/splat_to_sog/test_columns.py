"""columns: what is predicted of a price is what the files hold, and what a reader finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.splat_to_sog import rate
from models.splat_to_sog.bundle import bundle
from models.splat_to_sog.columns import Columns
from models.splat_to_sog.encode import encode
from models.splat_to_sog.importance import importance
from models.splat_to_sog.layout import log_position
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.presets import FINEST, PLANS
from models.splat_to_sog.quantize import quantize_opacities, quantize_quats
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import Splats


def silent(stage: str, fraction: float) -> None:
    pass


def columns_of(splats: Splats, max_classes: int = 1, turns: int = 1) -> Columns:
    return Columns(splats, max_classes, turns, silent)


@pytest.fixture
def small_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes in scenes of hundreds instead of thousands."""
    monkeypatch.setattr(rate, "MIN_CLASS", 64)


@pytest.mark.usefixtures("small_classes")
@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("default", None),
        ("antialiased", None),
        ("2dgs", None),
        ("2dgs", 12_500),
    ],
)
def test_decoded_is_what_a_reader_finds(
    make_splats, tmp_path: Path, model: str, target: int | None
) -> None:
    """Exactly: a trial draws this instead of reading the files."""
    splats = replace(make_splats(700), model=model)
    splats.opacities[:5], splats.opacities[5:9] = np.inf, -np.inf
    splats.scales[9:20, 1] = -np.inf
    splats.quats[20] = 0
    splats.means[:, 2] = 1.5
    splats.means[21:23] = (1e30, -1e30, 0), (3.4e38, 0, 0)
    made = encode(splats, SogOptions(target_bytes=target))
    path = tmp_path / "out.sog"
    path.write_bytes(bundle(made.files))
    found = read(path, "out.sog")

    plan = PLANS["quality" if target is None else "small"]
    columns = columns_of(splats, plan.classes, plan.turns)
    decoded = columns.decoded(columns.textures(float(str(made.choices["price"]))))
    assert columns.classes.count == plan.classes
    for name in ("means", "scales", "quats", "opacities", "sh0"):
        np.testing.assert_array_equal(
            getattr(found, name), getattr(decoded, name)[made.order], err_msg=name
        )


@pytest.mark.usefixtures("small_classes")
def test_the_order_is_class_after_class_along_the_curve(make_splats) -> None:
    columns = columns_of(make_splats(600), 4)
    assert columns.classes.count == 4
    assert (np.diff(columns.classes.of[columns.order].astype(int)) >= 0).all()
    np.testing.assert_array_equal(np.sort(columns.order), np.arange(600))
    means = columns.splats.means
    jumps = np.linalg.norm(np.diff(means[columns.order], axis=0), axis=1).mean()
    assert jumps < 0.5 * np.linalg.norm(np.diff(means, axis=0), axis=1).mean()


def test_a_given_order_is_one_class(make_splats) -> None:
    order = np.arange(600)[::-1].copy()
    columns = Columns(make_splats(600), 4, 1, silent, order)
    assert columns.classes.count == 1 and columns.order is order


def test_the_finest_price_uses_every_code(make_splats) -> None:
    splats = make_splats(3000)
    columns = columns_of(splats)
    texels = columns.textures(FINEST)
    np.testing.assert_array_equal(texels["sh0.webp"][:, 3], quantize_opacities(splats.opacities))
    np.testing.assert_array_equal(texels["quats.webp"], quantize_quats(columns.quats))
    decoded = columns.decoded(texels)
    step = columns.grid.unit
    error = log_position(decoded.means) - log_position(splats.means)
    assert (np.abs(error) <= 0.5 * step + 1e-7).all()  # half a step, and float32
    np.testing.assert_array_equal(texels["scales.webp"], columns.scale_book.encode(columns.scales))


def test_truncated_is_cut_off_below_what_is_rounded(make_splats) -> None:
    """Never above the source, within a step of it, and twice as far off as what is rounded."""
    splats = make_splats(3000)
    columns = columns_of(splats)
    cut = columns.decoded(columns.truncated())
    rounded = columns.decoded(columns.textures(FINEST))
    source = log_position(splats.means)
    below = source - log_position(cut.means)
    slack = 1e-6 * np.abs(source).max()  # means are float32
    assert (below > -slack).all() and (below < columns.grid.unit + slack).all()
    assert (below**2).mean() > 2 * ((source - log_position(rounded.means)) ** 2).mean()
    alpha = [1 / (1 + np.exp(-scene.opacities)) for scene in (splats, cut)]
    assert (alpha[1] < alpha[0] + 2e-6).all() and (alpha[1] > alpha[0] - 1 / 254).all()
    turned = np.abs(np.einsum("ni,ni->n", cut.quats, splats.quats))
    turned /= np.linalg.norm(splats.quats, axis=1)
    assert turned.min() > 0.999  # the names of the axes are those of the source
    np.testing.assert_array_equal(cut.sh0, rounded.sh0)


@pytest.mark.usefixtures("small_classes")
def test_a_higher_price_is_coarser_and_predicted_worse(make_splats) -> None:
    columns = columns_of(make_splats(2000), 3)
    start = columns.predicted_error(FINEST)
    prices = np.geomspace(1e-14, 1e-6, 6)
    predicted = [start, *(columns.predicted_error(float(price)) for price in prices)]
    assert predicted == sorted(predicted) and predicted[-1] > 100 * start

    def codes(price: float) -> int:
        return sum(
            len(np.unique(values[:, c]))
            for values in columns.textures(price).values()
            for c in range(values.shape[1])
        )

    found = [codes(float(price)) for price in prices]
    assert found == sorted(found, reverse=True) and found[-1] < 0.6 * found[0]


@pytest.mark.usefixtures("small_classes")
def test_predicted_error_is_the_worth_of_the_errors_made(make_splats) -> None:
    """Positions, colours and opacities, at coarse steps: worth times squared error, summed."""
    splats = make_splats(4000)
    splats.opacities[:] = np.clip(splats.opacities, -4, 4)
    columns = columns_of(splats, 3)
    price = 3e-9
    steps = columns.classes.steps(price)
    columns.finest[0]["scale"][:], columns.finest[1]["scale"][:] = 0, 0
    columns.finest[0]["rotation"][:], columns.finest[1]["rotation"][:] = 0, 0
    decoded = columns.decoded(columns.textures(price))
    worth = importance(splats).worth

    def alpha(scene: Splats) -> np.ndarray:
        return 1 / (1 + np.exp(-scene.opacities.astype(np.float64)))

    made = float(
        worth["colour"].astype(np.float64) @ ((decoded.sh0 - splats.sh0) ** 2).sum(axis=1)
        + worth["opacity"].astype(np.float64) @ (alpha(decoded) - alpha(splats)) ** 2
        + worth["position"].astype(np.float64)
        @ ((log_position(decoded.means) - log_position(splats.means)) ** 2).sum(axis=1)
    )
    assert (steps["colour"] > 0.02).any()
    # Position steps are limited by the spread, levels of a book are uneven: within a factor of 2.
    assert 0.5 < columns.predicted_error(price) / made < 2.5


def test_only_precious_rotations_are_chosen_among_turns(make_splats) -> None:
    splats = make_splats(2000)
    plain, chosen = columns_of(splats, turns=1), columns_of(splats, turns=6)
    changed = (plain.quats != chosen.quats).any(axis=1)
    worth = chosen.importance.worth["rotation"]
    assert 0.1 < changed.mean() <= 0.25
    assert worth[changed].min() > np.quantile(worth, 0.75) - 1e-12
    assert (quantize_quats(chosen.quats)[:, 3] == 252).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("opacities", -np.inf), ("opacities", np.inf), ("scales", -np.inf), ("sh0", 3e38)],
)
def test_one_extreme_value_for_all(make_splats, field: str, value: float) -> None:
    splats = make_splats(300)
    getattr(splats, field)[:] = value
    columns = columns_of(splats)
    decoded = columns.decoded(columns.textures(FINEST))
    assert np.isfinite(columns.predicted_error(1e-9))
    assert np.isfinite(columns.scale_book.padded()).all()
    assert np.isfinite(columns.colour_book.padded()).all()
    if field == "opacities":
        assert (decoded.opacities * np.sign(value) > 13).all()
        assert np.abs(np.sort(decoded.scales) - np.sort(splats.scales)).max() < 0.1
    elif field == "scales":
        assert (decoded.scales <= -20).all()
    else:
        np.testing.assert_array_equal(decoded.sh0, splats.sh0)


def test_colours_from_end_to_end_of_float32(make_splats) -> None:
    splats = make_splats(20_000)
    splats.sh0[0], splats.sh0[1] = 3.4e38, -3.4e38
    columns = columns_of(splats)
    decoded = columns.decoded(columns.textures(FINEST))
    np.testing.assert_array_equal(decoded.sh0[:2], splats.sh0[:2])
    assert np.isfinite(columns.predicted_error(1e-9))
