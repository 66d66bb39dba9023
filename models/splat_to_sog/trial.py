"""What coding costs, as seen: pictures of a scene as it would be read back, against its own.

Does not write files. The cameras and the measure are those of the report (`metrics.report`), so a
target in dB and the figure a job reports afterwards mean the same.
"""

from __future__ import annotations

import numpy as np

from models.splat_to_sog.metrics.cameras import orbit
from models.splat_to_sog.metrics.image import mean_squared_error, psnr_db
from models.splat_to_sog.metrics.renderer import renderer
from models.splat_to_sog.metrics.report import SIZE_PX, default_views
from models.splat_to_sog.splats import Splats


class Trial:
    """The scene's pictures, drawn once; each candidate is drawn from the same places."""

    def __init__(self, splats: Splats, device: str = "cpu") -> None:
        self._device = device
        self._cameras = orbit(splats, default_views(len(splats), device), SIZE_PX)
        scene = renderer(splats, device)
        self._pictures = [np.minimum(scene.render(camera), 1) for camera in self._cameras]

    def psnr_db(self, candidate: Splats) -> float:
        """Mean over the views."""
        scene = renderer(candidate, self._device)
        found = [
            psnr_db(mean_squared_error(picture, np.minimum(scene.render(camera), 1)))
            for camera, picture in zip(self._cameras, self._pictures, strict=True)
        ]
        return float(np.mean(found))
