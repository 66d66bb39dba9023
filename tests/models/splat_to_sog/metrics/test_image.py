"""PSNR and SSIM: against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from models.splat_to_sog.metrics.image import LUMA, PSNR_MAX_DB, mean_squared_error, psnr_db, ssim


def test_psnr(rng: np.random.Generator) -> None:
    a = rng.random((40, 30, 3)).astype(np.float32)
    b = a + np.float32(0.1) * rng.choice([-1, 1], a.shape).astype(np.float32)
    assert mean_squared_error(a, b) == pytest.approx(0.01, rel=1e-5)
    assert psnr_db(mean_squared_error(a, b)) == pytest.approx(20, abs=1e-4)
    assert psnr_db(mean_squared_error(a, a)) == PSNR_MAX_DB
    assert psnr_db(1e-12) == PSNR_MAX_DB == pytest.approx(psnr_db(1.0001e-12), abs=1e-3)


def test_ssim(rng: np.random.Generator) -> None:
    """scikit-image's, inside the 5 px border where the two treat what lies outside differently."""
    y, x = np.mgrid[:60, :80]
    a = np.stack([np.sin(x / 5), np.cos(y / 7), np.sin((x + y) / 9)], -1) / 2 + 0.5
    b = np.clip(a + rng.normal(0, 0.05, a.shape), 0, 1)
    _, expected = structural_similarity(
        a @ np.array(LUMA),
        b @ np.array(LUMA),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    assert ssim(a.astype(np.float32), a.astype(np.float32)) == pytest.approx(1)
    assert ssim(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(
        expected.mean(), abs=2e-3
    )
    assert ssim(a.astype(np.float32), 1 - a.astype(np.float32)) < 0
