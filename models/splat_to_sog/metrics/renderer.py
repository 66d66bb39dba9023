"""Renders a scene on the device at hand: compiled loops, plain numpy, or a CUDA card.

Does not choose cameras or judge pictures. A renderer holds one scene and draws it from any camera.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

from models.splat_to_sog.metrics.project import project
from models.splat_to_sog.metrics.rasterise import (
    BLACK,
    Camera,
    Colour,
    Float32,
    rasterise,
)
from models.splat_to_sog.splats import Splats

Backend = Literal["numpy", "numba", "cuda"]


class Renderer(Protocol):
    """One scene, ready to be drawn."""

    def render(self, camera: Camera, background: Colour = BLACK) -> Float32:
        """Picture [height, width, 3] of display-space values, at least 0, not clipped at 1."""


def backend_of(device: str) -> Backend:
    """What draws on this device; without numba the reference does, some twenty times slower."""
    if device.startswith("cuda"):
        return "cuda"
    return "numba" if _have_numba() else "numpy"


def renderer(splats: Splats, device: str = "cpu") -> Renderer:
    """A renderer of this scene. device: "cpu", "cuda" or "cuda:<index>".

    Raises Unavailable for a device that is not there.
    """
    backend = backend_of(device)
    if backend == "cuda":
        from models.splat_to_sog.metrics.rasterise_cuda import DeviceScene

        return DeviceScene(splats, device)
    return HostScene(splats, compiled=backend == "numba")


@dataclass(frozen=True)
class HostScene:
    """A scene in this machine's memory, or paged in from disk chunk by chunk."""

    splats: Splats
    compiled: bool

    def render(self, camera: Camera, background: Colour = BLACK) -> Float32:
        size = camera.width, camera.height
        if self.compiled:
            from models.splat_to_sog.metrics import project_numba, rasterise_numba

            seen = project_numba.visible(self.splats, camera)
            return rasterise_numba.draw(seen, *size, background)
        return rasterise(project(self.splats, camera), *size, background)


@cache
def _have_numba() -> bool:
    return importlib.util.find_spec("numba") is not None
