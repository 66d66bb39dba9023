"""Presets and targets: the price of a bit from what a user asks for."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from models.context import InvalidInput
from models.splat_to_sog.bundle import bundle
from models.splat_to_sog.encode import encode
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.presets import FINEST, NEAR_DB, first_price, fit_bytes, fit_psnr
from models.splat_to_sog.trial import Trial


def error(price: float) -> float:
    return 1e-6 + price


def psnr(price: float) -> float:
    """What is seen differs from what is predicted: ten times the error, and it grows slower."""
    return -10 * math.log10(1e-6 + 10 * price**0.8)


def test_the_first_price_is_the_highest_within_the_predicted_loss() -> None:
    assert first_price(error, 10 * math.log10(3)) == pytest.approx(2e-6, rel=1e-6)


@pytest.mark.parametrize("loss_db", [0.5, 3.4, 14.0, 25.0])
def test_a_loss_is_met_as_rendered_not_as_predicted(loss_db: float) -> None:
    target = psnr(FINEST) - loss_db
    assert psnr(fit_psnr(psnr, target, error)) == pytest.approx(target, abs=NEAR_DB)


def test_a_psnr_beyond_the_finest_steps_is_refused_with_the_best() -> None:
    best = psnr(FINEST)
    with pytest.raises(InvalidInput, match=f"finest steps reach {best:.1f} dB"):
        fit_psnr(psnr, best + 1, error)


def test_fit_bytes_meets_its_target_closely() -> None:
    price, files = fit_bytes(lambda p: {"a": bytes(int(5000 * p**-0.1))}, 12_000, 1e-9)
    assert 11_500 < len(files["a"]) <= 12_000
    assert int(5000 * price**-0.1) == len(files["a"])
    with pytest.raises(InvalidInput, match="takes at least 900"):
        fit_bytes(lambda p: {"a": bytes(800)}, 500, 1e-9, overhead=100)


@pytest.mark.parametrize("target", [1, 1099, 1100, 25_000])
def test_any_target_is_met_or_refused_with_a_size_that_is_met(make_splats, target: int) -> None:
    splats = make_splats(500, 3)
    try:
        made = encode(splats, SogOptions(target_bytes=target))
    except InvalidInput as refused:
        smallest = int(refused.message.split("at least ")[1].rstrip("."))
        made = encode(splats, SogOptions(target_bytes=smallest))
        target = smallest
    assert len(bundle(made.files)) <= target


def test_targets_of_a_scene(make_splats) -> None:
    splats = make_splats(9000)
    sizes = {}
    for preset in ("quality", "small", "tiny"):
        sizes[preset] = len(bundle(encode(splats, SogOptions(preset=preset)).files))
    assert sizes["tiny"] < sizes["small"] < sizes["quality"]
    target = (sizes["tiny"] + sizes["small"]) // 2
    assert len(bundle(encode(splats, SogOptions(target_bytes=target)).files)) <= target
    with pytest.raises(InvalidInput, match="target_bytes: 2000; this scene takes at least"):
        encode(splats, SogOptions(target_bytes=2000))


def test_a_trial_sees_no_error_in_the_scene_itself_and_more_in_a_worse_one(make_splats) -> None:
    splats = make_splats(2000)
    trial = Trial(splats)
    assert trial.psnr_db(splats) == 120.0
    coarse = encode(splats, SogOptions(target_psnr=35.0))
    assert coarse.choices["classes"] == 1  # a small scene is one class
    with pytest.raises(InvalidInput, match="finest steps reach"):
        encode(splats, SogOptions(target_psnr=90.0))


def test_one_target_at_a_time() -> None:
    with pytest.raises(ValidationError, match="exclude each other"):
        SogOptions(target_psnr=40.0, target_bytes=1000)
