"""The parameters of a scene of Gaussians in torch, their projection, and their birth and death.

Does not blend. Projection as in models/splat_to_sog/metrics/project.py, differentiable. Gaussians
that fade are moved onto strong ones so that the picture stays as it is: Kheradmand et al., "3D
Gaussian Splatting as Markov Chain Monte Carlo", 2024, without its noise, since the first Gaussians
already cover the surfaces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.scenes.zbuffer import View
from models.splat_to_sog.metrics.harmonics import basis
from models.splat_to_sog.metrics.project import GUARD, LOW_PASS
from models.splat_to_sog.metrics.rasterise import ALPHA_MIN
from models.splat_to_sog.splats import COEFFICIENTS, SH_C0, Splats

DEAD = 0.005  # opacity below which a Gaussian is moved, and dropped in the end
CROWD = 16  # Gaussians that may share one place after a move
FIRST_OPACITY = 0.2

Parameters = dict[str, Tensor]
"""means [N, 3], scales [N, 3] ln, quats [N, 4] w x y z, opacities [N] logit, sh0 [N, 3],
shN [N, 3, 15]."""


def first_guess(points: Tensor, colours: Tensor) -> Parameters:  # [N, 3], [N, 3] display
    """Round Gaussians as large as the gaps between the points."""
    host = points.cpu().numpy()
    gaps, _ = cKDTree(host).query(host, k=4, workers=-1)
    size = np.maximum(np.sqrt((gaps[:, 1:] ** 2).mean(axis=1)), 1e-4)
    n, device = len(points), points.device
    logit = math.log(FIRST_OPACITY / (1 - FIRST_OPACITY))
    start = {
        "means": points.clone(),
        "scales": torch.tensor(np.log(size), dtype=torch.float32, device=device)[:, None].repeat(
            1, 3
        ),
        "quats": torch.tensor([1.0, 0.0, 0.0, 0.0], device=device).repeat(n, 1),
        "opacities": torch.full((n,), logit, device=device),
        "sh0": (colours - 0.5) / SH_C0,
        "shN": torch.zeros(n, 3, COEFFICIENTS[3], device=device),
    }
    return {name: value.float().contiguous().requires_grad_() for name, value in start.items()}


@dataclass(frozen=True)
class Flat:
    """N Gaussians on the picture plane; radii and depths carry no gradient."""

    means2d: Tensor  # [N, 2] px
    conics: Tensor  # [N, 3]
    colours: Tensor  # [N, 3]
    opacities: Tensor  # [N]
    radii: Tensor  # [N, 2] px, 0: not drawn
    depths: Tensor  # [N] scene units


def project(parameters: Parameters, view: View, degree: int) -> Flat:
    """EWA projection with harmonics up to `degree`."""
    dtype = parameters["means"].dtype
    rotation, position = view.rotation.to(dtype), view.position.to(dtype)
    offsets = parameters["means"] - position
    x, y, z = (offsets @ rotation.T).unbind(1)
    limit_x = GUARD * view.width / (2 * view.focal_px)
    limit_y = GUARD * view.height / (2 * view.focal_px)
    drawn = (z > view.near) & (x.abs() < limit_x * z) & (y.abs() < limit_y * z)
    z = torch.where(drawn, z, 1.0)
    x, y = torch.where(drawn, x, 0.0) / z, torch.where(drawn, y, 0.0) / z

    # covariance in the picture = (J W R S)(J W R S)^T, one row of J W at a time
    axes = rotations(parameters["quats"])
    to_picture = (view.focal_px / z)[:, None]
    row0 = to_picture * (rotation[0] - x[:, None] * rotation[2])
    row1 = to_picture * (rotation[1] - y[:, None] * rotation[2])
    size = parameters["scales"].exp()
    half0 = (row0[:, :, None] * axes).sum(1) * size
    half1 = (row1[:, :, None] * axes).sum(1) * size
    a = (half0 * half0).sum(1) + LOW_PASS
    b = (half0 * half1).sum(1)
    c = (half1 * half1).sum(1) + LOW_PASS
    area = (a * c - b * b).clamp_min(1e-12)

    opacities = parameters["opacities"].sigmoid()
    with torch.no_grad():
        reach = 2 * (opacities / ALPHA_MIN).clamp_min(1).log()
        drawn = drawn & (opacities > ALPHA_MIN)
        radii = torch.stack([(reach * a).sqrt(), (reach * c).sqrt()], 1) * drawn[:, None]
    return Flat(
        torch.stack(
            [view.focal_px * x + view.width / 2, view.focal_px * y + view.height / 2], dim=1
        ),
        torch.stack([c, -b, a], dim=1) / area[:, None],
        colours(parameters, offsets, degree),
        opacities,
        radii,
        torch.where(drawn, z.detach(), torch.inf),
    )


def rotations(quats: Tensor) -> Tensor:  # [N, 4] -> [N, 3, 3], axes in columns
    w, x, y, z = normalize(quats, dim=1).unbind(1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def colours(parameters: Parameters, offsets: Tensor, degree: int) -> Tensor:  # [N, 3]
    """Colour of each Gaussian from where the camera stands, negative values cut at 0."""
    total = 0.5 + SH_C0 * parameters["sh0"]
    used = COEFFICIENTS[degree]
    if used:
        directions = normalize(offsets, dim=1)
        values = torch.stack(basis(*directions.unbind(1))[:used], dim=1)
        total = total + (parameters["shN"][:, :, :used] * values[:, None]).sum(2)
    return total.clamp_min(0)


@torch.no_grad()
def relocate(
    parameters: Parameters, optimiser: torch.optim.Optimizer, generator: torch.Generator
) -> int:
    """Move every dead Gaussian onto a live one, chosen by opacity; returns how many were moved.

    The n Gaussians that then share a place get the opacity and size with which, together, they
    look as the one did (equation 9 of the paper, its double sum folded).
    """
    opacity = parameters["opacities"].sigmoid().double()
    dead = (opacity <= DEAD).nonzero().squeeze(1)
    if len(dead) == 0:
        return 0
    # Inverse of the cumulative weights: unlike multinomial it has no limit on their number.
    weights = (opacity * (opacity > DEAD)).cumsum(0)
    draws = torch.rand(len(dead), generator=generator, dtype=torch.float64).to(weights.device)
    source = torch.searchsorted(weights, draws * weights[-1]).clamp_max(len(weights) - 1)
    sharing = (torch.bincount(source, minlength=len(opacity)) + 1).clamp_max(CROWD)[source]
    old = opacity[source]
    new = 1 - (1 - old) ** (1 / sharing)
    spread = torch.zeros_like(old)
    for k in range(CROWD):
        ways = torch.tensor([float(math.comb(n, k + 1)) for n in range(CROWD + 1)])
        spread += ways.to(old)[sharing] * (-1) ** k / math.sqrt(k + 1) * new ** (k + 1)
    new = new.clamp(DEAD * 1.01, 1 - 1e-6)
    parameters["opacities"][source] = (new / (1 - new)).log().float()
    parameters["scales"][source] += (old / spread).log().float()[:, None]
    for parameter in parameters.values():
        parameter[dead] = parameter[source]
        state = optimiser.state.get(parameter, {})
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in state:
                state[moment][dead] = 0
                state[moment][source] = 0
    return len(dead)


@torch.no_grad()
def export(parameters: Parameters) -> Splats:
    """What is left alive, as the product's scene."""
    alive = parameters["opacities"].sigmoid() > DEAD
    arrays = {
        name: np.ascontiguousarray(value[alive].cpu().numpy().astype(np.float32))
        for name, value in parameters.items()
    }
    return Splats(**arrays)
