"""Draws Gaussians on a CUDA device: kernels compiled at run time for whatever card is there.

Does not know what the pictures are compared for. `rasterise` takes what the numpy reference takes;
`DeviceScene` keeps a scene on the card and projects it there too, so that a view costs no copy but
the picture's. Kerbl et al., 2023, section 6: keys of tile and depth are sorted, then each tile
blends its Gaussians from shared memory, one thread a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from models.splat_to_sog.device import kernel, loaded_cupy, on_device
from models.splat_to_sog.metrics.rasterise import (
    BLACK,
    TILE_PX,
    Camera,
    Colour,
    Float32,
    Projected,
)
from models.splat_to_sog.splats import Splats

SOURCE = Path(__file__).with_suffix(".cu")
NOT_DRAWN = np.uint64(0xFFFFFFFFFFFFFFFF)  # key that `project` leaves for what is not visible
LOW_BITS = np.uint64(0xFFFFFFFF)
THREADS = 256  # of a block where one thread serves one Gaussian

DeviceArray = Any
"""A cupy array; cupy is imported only when a device is asked for."""


def rasterise(
    projected: Projected,
    width: int,
    height: int,
    background: Colour = BLACK,
    device: str = "cuda:0",
) -> Float32:
    """Picture [height, width, 3], as the reference draws it."""
    with on_device(device) as cupy:
        flat = (
            projected.means2d,
            projected.conics,
            projected.colours,
            projected.opacities,
            projected.radii,
        )
        gaussians = Gaussians(*(cupy.asarray(array, dtype=cupy.float32) for array in flat))
        tiles = bin_tiles(gaussians, width, height)
        return _to_host(blend(gaussians, tiles, width, height, background).picture)


class DeviceScene:
    """A scene's arrays on one card, to be drawn from many cameras."""

    def __init__(self, splats: Splats, device: str = "cuda:0") -> None:
        self._device = device
        self._count = len(splats)
        self._coefficients = splats.shN.shape[2]
        self._antialiased = splats.model == "antialiased"
        arrays = (
            splats.means,
            splats.scales,
            splats.quats,
            splats.opacities,
            splats.sh0,
            splats.shN,
        )
        with on_device(device) as cupy:
            self._arrays = [cupy.asarray(np.ascontiguousarray(array)) for array in arrays]
            self._drawn = Gaussians.empty(cupy, len(splats))

    def render(self, camera: Camera, background: Colour = BLACK) -> Float32:
        """Picture [camera.height, camera.width, 3]."""
        with on_device(self._device):
            gaussians = self.project(camera)
            tiles = bin_tiles(gaussians, camera.width, camera.height)
            image = blend(gaussians, tiles, camera.width, camera.height, background)
            return _to_host(image.picture)

    def project(self, camera: Camera) -> Gaussians:
        """The visible Gaussians, front to back, left on the card."""
        with on_device(self._device):
            rows = self._visible(camera)
            return self._drawn.take(rows)

    def _visible(self, camera: Camera) -> DeviceArray:  # [M] int64
        """Projects every splat into `self._drawn`; returns the visible rows, front to back."""
        cupy = loaded_cupy()
        n = self._count
        pose = [*camera.position, *camera.rotation.ravel(), camera.focal_px, camera.near]
        order = cupy.empty(n, cupy.uint64)
        _launch(
            "project",
            n,
            np.int32(n),
            *self._arrays,
            np.int32(self._coefficients),
            cupy.asarray(np.array(pose, np.float32)),
            np.int32(camera.width),
            np.int32(camera.height),
            np.int32(self._antialiased),
            self._drawn.means2d,
            self._drawn.conics,
            self._drawn.colours,
            self._drawn.opacities,
            self._drawn.radii,
            order,
        )
        order.sort()
        seen = int(cupy.count_nonzero(order != NOT_DRAWN))
        return (order[:seen] & LOW_BITS).astype(cupy.int64)


@dataclass(frozen=True)
class Gaussians:
    """`Projected` on the card: M Gaussians, front to back, C-contiguous float32."""

    means2d: DeviceArray  # [M, 2] px
    conics: DeviceArray  # [M, 3] 1 / px^2
    colours: DeviceArray  # [M, 3]
    opacities: DeviceArray  # [M]
    radii: DeviceArray  # [M, 2] px; not above 0: the Gaussian is not drawn

    def __len__(self) -> int:
        return len(self.opacities)

    @staticmethod
    def empty(cupy: Any, n: int) -> Gaussians:
        """Room for n Gaussians."""
        shapes = ((n, 2), (n, 3), (n, 3), (n,), (n, 2))
        return Gaussians(*(cupy.empty(shape, cupy.float32) for shape in shapes))

    def take(self, rows: DeviceArray) -> Gaussians:  # [m] int64
        """These rows, in that order."""
        return Gaussians(
            self.means2d[rows],
            self.conics[rows],
            self.colours[rows],
            self.opacities[rows],
            self.radii[rows],
        )


@dataclass(frozen=True)
class Tiles:
    """Which Gaussians touch which tile: keys[starts[t]:starts[t + 1]] are those of tile t."""

    keys: DeviceArray  # [pairs] uint64, ascending: tile << 32 | rank of the Gaussian
    starts: DeviceArray  # [tiles + 1] int64
    across: int
    down: int


def bin_tiles(gaussians: Gaussians, width: int, height: int) -> Tiles:
    """Sort the Gaussians into the 16 x 16 px tiles that their boxes touch."""
    cupy = loaded_cupy()
    n = len(gaussians)
    across, down = math.ceil(width / TILE_PX), math.ceil(height / TILE_PX)
    starts = cupy.zeros(across * down + 1, cupy.int64)
    if n == 0:
        return Tiles(cupy.empty(0, cupy.uint64), starts, across, down)
    boxes = (np.int32(n), gaussians.means2d, gaussians.radii, np.int32(across), np.int32(down))
    counts = cupy.empty(n, cupy.int64)
    _launch("count_tiles", n, *boxes, counts)
    ends = cupy.cumsum(counts)
    pairs = int(ends[-1])
    keys = cupy.empty(pairs, cupy.uint64)
    _launch("emit_keys", n, *boxes, ends, keys)
    keys.sort()
    _launch("find_starts", pairs + 1, np.int64(pairs), keys, np.int32(across * down), starts)
    return Tiles(keys, starts, across, down)


@dataclass(frozen=True)
class Blended:
    """A picture, and what a backward pass needs to retrace it."""

    picture: DeviceArray  # [H, W, 3] float32
    transmittance: DeviceArray  # [H, W] float32, share of the background that shows
    last: DeviceArray  # [H, W] int64, one past the last key that touched the pixel


def blend(
    gaussians: Gaussians, tiles: Tiles, width: int, height: int, background: Colour = BLACK
) -> Blended:
    """Draw every tile front to back."""
    cupy = loaded_cupy()
    out = Blended(
        cupy.empty((height, width, 3), cupy.float32),
        cupy.empty((height, width), cupy.float32),
        cupy.empty((height, width), cupy.int64),
    )
    kernel(_source(), "blend")(
        (tiles.across, tiles.down),
        (TILE_PX, TILE_PX),
        (
            np.int32(width),
            np.int32(height),
            tiles.starts,
            tiles.keys,
            gaussians.means2d,
            gaussians.conics,
            gaussians.colours,
            gaussians.opacities,
            *(np.float32(value) for value in background),
            out.picture,
            out.transmittance,
            out.last,
        ),
    )
    return out


@cache
def _source() -> str:
    return SOURCE.read_text()


def _launch(name: str, threads: int, *arguments: object) -> None:
    """One thread an item."""
    if threads:
        kernel(_source(), name)((math.ceil(threads / THREADS),), (THREADS,), arguments)


def _to_host(array: DeviceArray) -> Float32:
    host: Float32 = array.get()
    return host
