"""Photographs of a procedural scene: what each camera sees, shaded and anti-aliased.

Does not know Gaussians. A scene is a mesh, a sun, a sky and where people would stand to capture it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from benchmarks.scenes.mesh import Mesh
from benchmarks.scenes.shading import Lamp, Sky, Surface, display, shade
from benchmarks.scenes.zbuffer import View, visible

SHADOW_PX = 3072
SHADOW_DISTANCE = 40.0  # scene units: far enough for nearly parallel light
SUPERSAMPLE = 2  # a side


@dataclass(frozen=True)
class Scene:
    mesh: Mesh
    sun: Lamp
    sky: Sky
    radius: float  # scene units: of what the sun's shadows cover, around the origin
    middle: tuple[float, float, float]  # what cameras look at
    distances: tuple[float, float]  # scene units, nearest and farthest camera
    elevations: tuple[float, float]  # degrees above the horizon, lowest and highest camera
    clearance: float  # scene units between a camera and the nearest thing
    dome: float | None  # scene units: distance of the sky's own Gaussians; None: black background


class Stage:
    """A scene set up on one device."""

    def __init__(self, scene: Scene, device: str) -> None:
        self.scene = scene
        self.device = device
        mesh = scene.mesh

        def tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.as_tensor(array, device=device).to(dtype)

        self.points = tensor(mesh.points, torch.float64)
        self.faces = tensor(mesh.faces, torch.int64)
        # normal, texture position, colour, roughness, metal: interpolated together
        self.attributes = torch.cat(
            [
                tensor(mesh.normals()),
                tensor(mesh.texture),
                tensor(mesh.colours),
                tensor(mesh.roughness)[:, None],
                tensor(mesh.metal)[:, None],
            ],
            dim=1,
        )
        self.pattern = tensor(mesh.pattern, torch.int64)
        direction = np.array(scene.sun.direction) / np.linalg.norm(scene.sun.direction)
        self.sun_view = look_at(
            direction * SHADOW_DISTANCE,
            np.zeros(3),
            focal_px=SHADOW_PX / 2 * SHADOW_DISTANCE / scene.radius,
            size=(SHADOW_PX, SHADOW_PX),
            near=1.0,
            device=device,
        )
        hits = visible(self.points, self.faces, self.sun_view)
        self.shadow = torch.full((SHADOW_PX**2,), torch.inf, dtype=torch.float64, device=device)
        self.shadow[hits.pixels] = hits.depth

    def photograph(self, view: View) -> Tensor:  # [H, W, 3] float32, 0..1
        """What the view sees, each pixel the mean of SUPERSAMPLE^2 samples."""
        fine = view.scaled(SUPERSAMPLE)
        hits = visible(self.points, self.faces, fine)
        if self.scene.dome is None:
            picture = torch.zeros(fine.height * fine.width, 3, device=self.device)
        else:
            every = torch.arange(fine.height * fine.width, device=self.device)
            rays = torch.nn.functional.normalize(fine.rays(every) @ fine.rotation, dim=1).float()
            sharp = torch.zeros(len(rays), device=self.device)
            picture = self.sky_colours(rays, sharp)
        corners = self.faces[hits.faces]
        points = (self.points[corners] * hits.weights[..., None]).sum(1)
        picture[hits.pixels] = self.colours(corners, hits.weights, points, view.position)
        picture = picture.view(view.height, SUPERSAMPLE, view.width, SUPERSAMPLE, 3)
        return picture.mean(dim=(1, 3))

    def sky_colours(self, directions: Tensor, roughness: Tensor) -> Tensor:  # [P, 3], [P]
        """Display colour [P, 3] of the sky in unit directions."""
        return display(self.scene.sky.radiance(directions, roughness))

    def colours(self, corners: Tensor, weights: Tensor, points: Tensor, eye: Tensor) -> Tensor:
        """Display colour [P, 3] of surface points [P, 3] float64 seen from `eye` [3]."""
        values = (self.attributes[corners] * weights.float()[..., None]).sum(1)
        outward = torch.nn.functional.normalize(eye - points, dim=1).float()
        normals = torch.nn.functional.normalize(values[:, :3], dim=1)
        back = (normals * outward).sum(1, keepdim=True) < 0
        normals = torch.where(back, -normals, normals)
        surface = Surface(
            normals,
            outward,
            values[:, 3:6],
            values[:, 6:9],
            values[:, 9],
            values[:, 10],
            self.pattern[corners[:, 0]],
            self.sunlit(points, normals),
        )
        return display(shade(surface, self.scene.sun, self.scene.sky))

    def sunlit(self, points: Tensor, normals: Tensor) -> Tensor:  # [P, 3] -> [P] 0..1
        """Share of 3 x 3 samples around each point's place in the shadow map that is not nearer."""
        view = self.sun_view
        lifted = points + 0.006 * self.scene.radius * normals.double()
        seen = (lifted - view.position) @ view.rotation.T
        flat = seen[:, :2] / seen[:, 2:] * view.focal_px + SHADOW_PX / 2
        column, row = flat.floor().long().unbind(1)
        lit = torch.zeros(len(points), device=self.device)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                x = (column + dx).clamp(0, SHADOW_PX - 1)
                y = (row + dy).clamp(0, SHADOW_PX - 1)
                lit += (self.shadow[y * SHADOW_PX + x] >= seen[:, 2]).float() / 9
        return lit

    def scatter(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` random surface points [N, 3] and their colours [N, 3] seen from outside."""
        a, b, c = self.points[self.faces].unbind(1)
        area = (b - a).cross(c - a, dim=1).norm(dim=1)
        # Small things deserve more points than their area alone would give them.
        picked = torch.searchsorted(
            area.sqrt().cumsum(0) / area.sqrt().sum(),
            torch.rand(count, generator=generator, dtype=torch.float64).to(self.device),
        ).clamp_max(len(area) - 1)
        u, v = torch.rand(2, count, generator=generator, dtype=torch.float64).to(self.device)
        over = u + v > 1
        u, v = torch.where(over, 1 - u, u), torch.where(over, 1 - v, v)
        weights = torch.stack([1 - u - v, u, v], dim=1)
        corners = self.faces[picked]
        points = (self.points[corners] * weights[..., None]).sum(1)
        eye = torch.tensor(self.scene.middle, device=self.device, dtype=torch.float64)
        eye = eye + torch.tensor([0.0, -self.scene.distances[1], 0.0], device=self.device)
        return points.float(), self.colours(corners, weights, points, eye)


def viewpoints(scene: Scene, count: int, size_px: int, phase: float, device: str) -> list[View]:
    """`count` cameras around the middle, spread by golden-ratio steps; `phase` 0..1 shifts them.

    Azimuth, elevation and distance each follow their own irrational step, so that every range of
    one meets every range of the others. A camera that would stand in the bushes is held higher.
    """
    views = []
    things = cKDTree(scene.mesh.points)
    low, high = scene.elevations
    near, far = scene.distances
    middle = np.array(scene.middle)
    for index in range(count):
        step = index + phase
        azimuth = 2 * math.pi * (step * 0.6180339887 % 1)
        elevation = math.radians(low + (high - low) * (step * 0.7548776662 % 1))
        distance = near + (far - near) * (step * 0.5698402910 % 1)
        position = middle + distance * _direction(azimuth, elevation)
        while things.query(position)[0] < scene.clearance:
            elevation += 0.02
            position = middle + distance * _direction(azimuth, elevation)
        # Close cameras look past the middle, as a person who walks around does.
        wander = 0.35 * near * np.array([math.sin(5 * step), 0.2 * math.cos(3 * step), 0.0])
        views.append(
            look_at(
                position,
                middle + wander,
                focal_px=0.5 * size_px / math.tan(math.radians(25)),
                size=(size_px, size_px),
                near=0.02,
                device=device,
            )
        )
    return views


def _direction(azimuth: float, elevation: float) -> np.ndarray:  # radians -> [3]
    return np.array(
        [
            math.cos(elevation) * math.sin(azimuth),
            -math.sin(elevation),
            math.cos(elevation) * math.cos(azimuth),
        ]
    )


def look_at(
    position: np.ndarray,
    target: np.ndarray,
    focal_px: float,
    size: tuple[int, int],
    near: float,
    device: str,
) -> View:
    """A camera at `position` [3] that faces `target` [3], upright."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, -1.0, 0.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return View(
        torch.as_tensor(position, dtype=torch.float64, device=device),
        torch.as_tensor(rotation, dtype=torch.float64, device=device),
        focal_px,
        *size,
        near,
    )
