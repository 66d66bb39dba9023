"""Presets and targets: the price of a bit from what a user asks for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from models.context import InvalidInput
from models.splat_to_sog.bundle import bundle
from models.splat_to_sog.encode import encode
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.presets import fit_bytes, predicted_psnr, price_of_error, price_of_psnr


def error(price: float) -> float:
    return 1e-6 + price


def test_the_price_is_the_highest_within_the_error() -> None:
    assert price_of_error(error, 3e-6) == pytest.approx(2e-6, rel=1e-6)


def test_a_psnr_beyond_the_finest_steps_is_refused_with_the_best() -> None:
    best = predicted_psnr(error(0.0))
    assert predicted_psnr(error(price_of_psnr(error, best - 6))) == pytest.approx(
        best - 6, abs=0.01
    )
    with pytest.raises(InvalidInput, match=f"finest steps reach {best:.1f} dB"):
        price_of_psnr(error, best + 1)


def test_fit_bytes_meets_its_target_closely() -> None:
    made, price = fit_bytes(lambda p: 5000 * p**-0.1, int, 12_000, 1e-9)
    assert 11_500 < made <= 12_000
    assert 5000 * price**-0.1 == made
    with pytest.raises(InvalidInput, match="takes at least 900"):
        fit_bytes(lambda p: 900, int, 500, 1e-9)


def test_targets_of_a_scene(make_splats) -> None:
    splats = make_splats(9000)
    sizes = {}
    for preset in ("quality", "small", "tiny"):
        sizes[preset] = len(bundle(encode(splats, SogOptions(preset=preset)).files))
    assert sizes["tiny"] < sizes["small"] < sizes["quality"]
    target = (sizes["tiny"] + sizes["small"]) // 2
    assert len(bundle(encode(splats, SogOptions(target_bytes=target)).files)) <= target
    encoded = encode(splats, SogOptions(target_psnr=40.0))
    assert encoded.choices["predicted_psnr_db"] == pytest.approx(40, abs=0.1)
    with pytest.raises(InvalidInput, match="bytes of textures; this scene takes at least"):
        encode(splats, SogOptions(target_bytes=2000))


def test_one_target_at_a_time() -> None:
    with pytest.raises(ValidationError, match="exclude each other"):
        SogOptions(target_psnr=40.0, target_bytes=1000)
