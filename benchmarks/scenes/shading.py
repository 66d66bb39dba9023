"""View-dependent shading: GGX highlights of a sun, a sky that mirrors in glossy things, textures.

Does not know which pixels see what. Linear colours; space as in 3DGS, up is -y. Microfacet terms:
Walter et al., 2007; Fresnel: Schlick, 1994.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.scenes.mesh import Colour, Pattern

EXPOSURE = 1.1


@dataclass(frozen=True)
class Lamp:
    """A bright patch of the sky: what a glossy surface shows of it moves with the viewer."""

    direction: tuple[float, float, float]  # towards it; any length
    colour: Colour
    sharpness: float  # of exp(sharpness * (cos - 1)): 20 a window .. 2000 the sun's disc


@dataclass(frozen=True)
class Sky:
    zenith: Colour
    horizon: Colour
    ground: Colour
    lamps: tuple[Lamp, ...]
    clouds: float = 0.0  # 0 none .. 1

    def radiance(self, direction: Tensor, roughness: Tensor) -> Tensor:  # [P, 3], [P] -> [P, 3]
        """What comes from there, blurred as a surface of this roughness would."""
        up = -direction[:, 1:2]
        blur = 0.08 + roughness[:, None]
        above = torch.sigmoid(up / (0.12 * blur))
        vault = _mix(self.horizon, self.zenith, up.clamp(0, 1) ** 0.6)
        if self.clouds:
            flat = direction / (up.abs() + 0.25)
            puff = (fractal(flat * 1.6, 4)[:, None] - 0.5).clamp_min(0) * 2
            vault = vault + self.clouds * puff * above * (1 - roughness[:, None]) * 0.8
        total = _mix(self.ground, (0, 0, 0), torch.zeros_like(up)) * (1 - above) + vault * above
        for lamp in self.lamps:
            sharp = lamp.sharpness / (1 + lamp.sharpness * 0.5 * roughness**4)
            towards = direction @ _unit(lamp.direction, direction)
            lobe = torch.exp(sharp * (towards - 1)) * sharp / lamp.sharpness
            total = total + lobe[:, None] * torch.tensor(lamp.colour, device=up.device)
        return total


@dataclass(frozen=True)
class Surface:
    """P visible points."""

    normals: Tensor  # [P, 3] unit, facing the viewer
    outward: Tensor  # [P, 3] unit, point -> viewer
    texture: Tensor  # [P, 3]
    colours: Tensor  # [P, 3]
    roughness: Tensor  # [P]
    metal: Tensor  # [P]
    pattern: Tensor  # [P]
    lit: Tensor  # [P] share of the sun that arrives


def shade(surface: Surface, sun: Lamp, sky: Sky) -> Tensor:  # [P, 3] linear
    """Light that leaves each point towards the viewer."""
    normals, outward = surface.normals, surface.outward
    albedo, roughness = textured(surface)
    metal = surface.metal[:, None]
    base = 0.04 * (1 - metal) + albedo * metal
    diffuse = albedo * (1 - metal)
    facing = (normals * outward).sum(1, keepdim=True).clamp(1e-3, 1)

    towards = _unit(sun.direction, normals)
    half = torch.nn.functional.normalize(outward + towards, dim=1)
    n_l = (normals @ towards)[:, None].clamp_min(0)
    n_h = (normals * half).sum(1, keepdim=True).clamp(0, 1)
    h_v = (half * outward).sum(1, keepdim=True).clamp(0, 1)
    alpha = (roughness[:, None] ** 2).clamp_min(2e-3)
    spread = alpha**2 / (math.pi * (n_h**2 * (alpha**2 - 1) + 1) ** 2)
    shadowing = 0.25 / (facing * (1 - alpha / 2) + alpha / 2) / (n_l * (1 - alpha / 2) + alpha / 2)
    fresnel = base + (1 - base) * (1 - h_v) ** 5
    light = torch.tensor(sun.colour, device=normals.device) * n_l * surface.lit[:, None]
    direct = (diffuse / math.pi + (fresnel * spread * shadowing).clamp_max(20)) * light

    chalk = torch.ones_like(roughness)
    ambient = sky.radiance(normals, chalk) * diffuse * 0.55 * (0.4 + 0.6 * surface.lit[:, None])
    mirrored = 2 * facing * normals - outward
    edge = base + (1 - roughness[:, None]).clamp_min(0).maximum(base) * (1 - facing) ** 5
    gloss = sky.radiance(mirrored, roughness) * edge * (1 - 0.5 * roughness[:, None])
    return direct + ambient + gloss


def display(linear: Tensor) -> Tensor:
    """Linear light to sRGB-like values in 0..1, highlights rolled off."""
    return (1 - torch.exp(-EXPOSURE * linear)).clamp(0, 1) ** (1 / 2.2)


def textured(surface: Surface) -> tuple[Tensor, Tensor]:  # [P, 3] albedo, [P] roughness
    """The pattern of each point applied to its colour and roughness."""
    at, colour, roughness = surface.texture, surface.colours, surface.roughness
    x, y, z = at.unbind(1)
    coarse, fine = fractal(at * 3, 4), fractal(at * 23, 3)
    factor = torch.ones_like(coarse)
    for pattern, value in (
        (
            Pattern.CHECKER,
            torch.where(((x * 4).floor() + (z * 4).floor()) % 2 == 0, 1.0, 0.28)
            * (0.65 + 0.7 * fractal(at * torch.tensor([4.0, 4.0, 40.0], device=at.device), 3)),
        ),
        (Pattern.MARBLE, 0.25 + 0.75 * (0.5 + 0.5 * torch.sin(9 * y + 16 * coarse)) ** 0.6),
        (Pattern.STRIPES, torch.where(torch.sin(40 * y + 2 * coarse) > 0, 1.0, 0.35)),
        (Pattern.SOIL, 0.35 + 0.9 * fine + 0.4 * (coarse - 0.5)),
        (Pattern.ROCK, 0.4 + 0.7 * coarse + 0.5 * (fine - 0.5)),
        (Pattern.LEAF, 0.75 + 0.35 * (1 - y.abs()) + 0.25 * torch.sin(70 * x + 6 * y.abs())),
    ):
        factor = torch.where(surface.pattern == pattern, value, factor)
    rough = torch.where(
        (surface.pattern == Pattern.SOIL) | (surface.pattern == Pattern.ROCK),
        roughness * (0.6 + 0.8 * fine),
        roughness,
    )
    return (colour * factor[:, None]).clamp(0, 1), rough.clamp(0.03, 1)


def fractal(at: Tensor, octaves: int) -> Tensor:  # [P, 3] -> [P] about 0..1
    """Value noise, each octave at twice the frequency and half the weight."""
    total = torch.zeros_like(at[:, 0])
    for octave in range(octaves):
        total = total + _noise(at * 2.0**octave + 17.3 * octave) * 0.5**octave
    return total / (2 - 0.5 ** (octaves - 1))


def _noise(at: Tensor) -> Tensor:  # [P, 3] -> [P] 0..1
    low = at.floor()
    x, y, z = ((t := at - low) * t * (3 - 2 * t)).unbind(1)
    i, j, k = low.int().unbind(1)

    def corner(di: int, dj: int, dk: int) -> Tensor:
        mixed = (i + di) * 73856093 ^ (j + dj) * 19349663 ^ (k + dk) * 83492791
        mixed = (mixed ^ mixed >> 13) * 1274126177
        return ((mixed ^ mixed >> 16) & 0xFFFF).float() / 0xFFFF

    rows = [torch.lerp(corner(0, dj, dk), corner(1, dj, dk), x) for dk in (0, 1) for dj in (0, 1)]
    return torch.lerp(torch.lerp(rows[0], rows[1], y), torch.lerp(rows[2], rows[3], y), z)


def _mix(low: Colour, high: Colour, share: Tensor) -> Tensor:  # [P, 1] -> [P, 3]
    start, stop = (torch.tensor(c, device=share.device, dtype=share.dtype) for c in (low, high))
    return start + (stop - start) * share


def _unit(direction: tuple[float, float, float], like: Tensor) -> Tensor:  # [3]
    vector = torch.tensor(direction, device=like.device, dtype=like.dtype)
    return vector / vector.norm()
