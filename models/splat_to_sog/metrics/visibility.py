"""What each splat adds to the pictures of its scene: a weight for whoever must choose among splats.

Does not choose. A splat that others hide, that is transparent, or that covers few pixels adds
little, and so may be coded coarsely or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.metrics.cameras import orbit
from models.splat_to_sog.metrics.rasterise import Camera
from models.splat_to_sog.metrics.renderer import HostScene, backend_of
from models.splat_to_sog.splats import Splats


def visibility(
    splats: Splats,
    cameras: Sequence[Camera] | None = None,
    *,
    views: int = 8,
    size_px: int = 512,
    on_step: Callable[[float], None] = lambda fraction: None,
) -> NDArray[np.float32]:  # [N]
    """Alpha times transmittance of each splat, summed over the pixels of all pictures.

    cameras: where to look from; by default `views` of `orbit`, which leave no side out. Splats
    that no picture shows get 0. on_step: told the fraction done; may raise to stop.
    """
    scene = HostScene(splats, compiled=backend_of("cpu") == "numba")
    total = np.zeros(len(splats))
    cameras = orbit(splats, views, size_px) if cameras is None else cameras
    for done, camera in enumerate(cameras):
        on_step(done / len(cameras))
        rows, added = scene.contributions(camera)
        total[rows] += added  # no row occurs twice
    return total.astype(np.float32)
