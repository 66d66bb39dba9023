"""Compares a coded scene with its original: pictures, attributes, and one preview to look at.

Does not code or decode; a job's report carries what `compare` finds. Figures of one scene are
comparable between tools and versions as long as views, size and the original are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.context import JsonValue
from models.splat_to_sog.metrics.attributes import attribute_errors
from models.splat_to_sog.metrics.cameras import orbit
from models.splat_to_sog.metrics.image import mean_squared_error, psnr_db, ssim
from models.splat_to_sog.metrics.preview import preview
from models.splat_to_sog.metrics.rasterise import Camera, Float32
from models.splat_to_sog.metrics.renderer import Backend, Renderer, backend_of, renderer
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.stages import OnStep

SIZE_PX = 512
VIEWS = 8
FEWER_VIEWS = 4
MANY_SPLATS = 500_000
"""Above this many splats a processor draws half as many views; a card draws all."""


@dataclass(frozen=True)
class View:
    """One camera's picture of both scenes."""

    squared_error: float  # mean over pixels and channels
    ssim: float

    @property
    def psnr_db(self) -> float:
        return psnr_db(self.squared_error)


@dataclass(frozen=True)
class Comparison:
    """What coding changed. preview: a WebP of the view that changed most."""

    views: tuple[View, ...]
    size_px: int
    backend: Backend
    attributes: dict[str, JsonValue] | None  # None where the splats do not correspond
    preview: bytes

    @property
    def psnr_db(self) -> float:
        """Mean of the views'."""
        return float(np.mean([view.psnr_db for view in self.views]))

    @property
    def psnr_pooled_db(self) -> float:
        """Of the squared error of all views together."""
        return psnr_db(float(np.mean([view.squared_error for view in self.views])))

    @property
    def ssim(self) -> float:
        return float(np.mean([view.ssim for view in self.views]))

    def report(self) -> dict[str, JsonValue]:
        """Everything but the preview, as JSON."""
        return {
            "psnr_db": round(self.psnr_db, 2),
            "psnr_pooled_db": round(self.psnr_pooled_db, 2),
            "psnr_min_db": round(min(view.psnr_db for view in self.views), 2),
            "ssim": round(self.ssim, 5),
            "views": [
                {"psnr_db": round(view.psnr_db, 2), "ssim": round(view.ssim, 5)}
                for view in self.views
            ],
            "size_px": self.size_px,
            "backend": self.backend,
            **({} if self.attributes is None else {"attributes": self.attributes}),
        }


def default_views(count: int, device: str = "cpu") -> int:
    """How many views a scene of `count` splats is compared in."""
    return FEWER_VIEWS if count > MANY_SPLATS and backend_of(device) != "cuda" else VIEWS


def compare(
    original: Splats,
    decoded: Splats,
    *,
    views: int | None = None,
    size_px: int = SIZE_PX,
    device: str = "cpu",
    on_step: OnStep = lambda fraction: None,
    attributes: bool = True,
) -> Comparison:
    """Renders both scenes from the original's cameras. Both must be finite and not empty.

    views: of `orbit`; by default `default_views`. on_step: told the fraction done; may raise to
    stop. attributes: compare splat by splat too, which needs the same splats in the same order.
    """
    count = default_views(len(original), device) if views is None else views
    cameras = orbit(original, count, size_px)
    pair = renderer(original, device), renderer(decoded, device)
    found: list[View] = []
    worst: tuple[Float32, Float32] | None = None
    for done, camera in enumerate(cameras):
        on_step(done / (count + attributes))
        pictures = _shown(pair[0], camera), _shown(pair[1], camera)
        view = View(mean_squared_error(*pictures), ssim(*pictures))
        if worst is None or view.squared_error > max(v.squared_error for v in found):
            worst = pictures
        found.append(view)
    if worst is None:
        raise ValueError("a comparison needs at least one view")
    on_step(count / (count + attributes))
    return Comparison(
        views=tuple(found),
        size_px=size_px,
        backend=backend_of(device),
        attributes=attribute_errors(original, decoded) if attributes else None,
        preview=preview(*worst),
    )


def _shown(scene: Renderer, camera: Camera) -> Float32:
    """The picture as a screen shows it: values above 1 are 1."""
    return np.minimum(scene.render(camera), 1)
