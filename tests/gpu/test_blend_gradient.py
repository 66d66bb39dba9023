"""The backward kernel against automatic differentiation of a dense float64 blend."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cupy")

pytestmark = pytest.mark.gpu

SIZE = (40, 28)  # px; neither side a multiple of the tile


def dense(means2d, conics, colours, opacities, depths):  # type: ignore[no-untyped-def]
    """Every Gaussian at every pixel, in float64; same limits as the kernels."""
    width, height = SIZE
    order = depths.argsort()
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) + 0.5,
        torch.arange(width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    picture = torch.zeros(height, width, 3, dtype=torch.float64)
    through = torch.ones(height, width, dtype=torch.float64)
    for i in order:
        dx, dy = x - means2d[i, 0], y - means2d[i, 1]
        a, b, c = conics[i]
        power = -0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy
        alpha = (opacities[i] * power.exp()).clamp_max(0.99)
        alpha = torch.where((alpha >= 1 / 255) & (through >= 1e-4), alpha, 0.0)
        picture = picture + (alpha * through)[..., None] * colours[i]
        through = through * (1 - alpha)
    return picture


@pytest.mark.parametrize("solid", [False, True])
def test_gradients(rng: np.random.Generator, solid: bool) -> None:
    """`solid`: opacities that hit the cap and end pixels early."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from benchmarks.scenes.blend_gradient import Blend

    n = 400
    width, height = SIZE
    root = rng.normal(0, 0.25, (n, 2, 2)) + np.eye(2) * rng.uniform(0.15, 0.5, (n, 1, 1))
    conic = root @ root.transpose(0, 2, 1) + 0.01 * np.eye(2)
    cov = np.linalg.inv(conic)
    opacity = rng.uniform(0.9, 1.0, n) if solid else rng.uniform(0.02, 0.6, n)
    reach = 2 * np.log(opacity * 255)
    inputs = {
        "means2d": rng.uniform((-4, -4), (44, 32), (n, 2)),
        "conics": np.stack([conic[:, 0, 0], conic[:, 0, 1], conic[:, 1, 1]], 1),
        "colours": rng.uniform(0, 1.5, (n, 3)),
        "opacities": opacity,
    }
    radii = np.sqrt(reach[:, None] * np.stack([cov[:, 0, 0], cov[:, 1, 1]], 1))
    depths = rng.permutation(n).astype(np.float64)
    weight = torch.tensor(rng.normal(0, 1, (height, width, 3)))

    # Both sides start from the same float32 values.
    values = {k: np.float32(v) for k, v in inputs.items()}
    mine = {k: torch.tensor(v, device="cuda", requires_grad=True) for k, v in values.items()}
    picture = Blend.apply(
        *mine.values(),
        torch.tensor(np.float32(radii), device="cuda"),
        torch.tensor(np.float32(depths), device="cuda"),
        width,
        height,
    )
    (picture * weight.float().cuda()).sum().backward()
    wanted = {k: torch.tensor(v.astype(np.float64), requires_grad=True) for k, v in values.items()}
    truth = dense(*wanted.values(), torch.tensor(depths))
    (truth * weight).sum().backward()

    # A pixel whose alpha rounds to the other side of 1 / 255 changes by up to 1.5 / 255.
    assert (picture.detach().cpu() - truth.detach()).abs().max() < 0.008
    for name in inputs:
        got, grad = mine[name].grad.double().cpu(), wanted[name].grad
        error = (got - grad).norm() / grad.norm()
        assert error < 2e-3, f"{name}: relative error {error:.2e}"
