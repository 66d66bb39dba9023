"""Views that paint a network's mesh in the colours of its photos, if mesh and photos agree.

The network's colours are blurred, the photos' are sharp, but only where the mesh is found again in
the photos' cameras. Knows nothing of networks, nor of how a texture is baked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from models.context import JsonValue
from models.image_to_mesh.delivery import ViewedMesh
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.normals import face_normals
from models.image_to_mesh.finishing.visibility import View
from models.image_to_mesh.geometry.pinhole import pinhole
from models.image_to_mesh.reconviagen.registration.drawing import Fit
from models.image_to_mesh.reconviagen.registration.photos import Photo, sight_lines
from models.image_to_mesh.reconviagen.registration.register import Registration, register

Array = npt.NDArray[np.float32]

VIEW_IOU, MEAN_IOU = 0.86, 0.89
"""Of outlines. Bent by 2 % of its size the right mesh mostly reaches 0.94; of wrong ones the best
photo reached 0.88, the best mean 0.88 (docs/benchmarks.md, textures from photos)."""
COLOUR_ERROR = 0.15
COLOUR_SURE = 0.08
COLOUR_OF_SPREAD = 0.9
"""Colours may be off by the first. From the second on they may not be off by more than this share
of how far the photo's own spread: what looks like another object, or like its other side, is."""
LEAST_SHARE = 0.5
"""Of the photos: if fewer fit, those that do may do so by chance."""
GAINS = 0.6, 1.6
"""Exposures farther apart than that are not made alike."""


def photo_texture(
    mesh: ColouredMesh,  # centred, its longest side 1
    photos: Sequence[Photo | None],  # None: the network found no camera for it
    names: Sequence[str],
    on_part: Callable[[], None] = lambda: None,
) -> ViewedMesh:
    """The mesh, the views to paint it with, what to report. Without views where nothing fits.

    on_part: called often; what it raises ends the work."""
    begin = time.perf_counter()
    if not _is_surface(mesh):
        return ViewedMesh(mesh)  # finishing says why it refuses it
    known = [index for index, photo in enumerate(photos) if photo is not None]
    cropped = [photo.cropped() for photo in photos if photo is not None]
    facts: dict[str, JsonValue] = {"source": "decoder", "views": [None] * len(photos)}
    warnings = [
        f"{name}: the network found no camera; the texture takes nothing from it."
        for name, photo in zip(names, photos, strict=True)
        if photo is None
    ]
    if not known or not _before(cropped):
        warnings.append(
            "The cameras that the network found do not look at one place: the texture keeps the "
            "network's colours."
        )
        return ViewedMesh(mesh, facts={"texture": facts}, warnings=warnings)
    found = register(mesh, cropped, on_part)
    fitting = [k for k, fit in enumerate(found.fits) if fits(fit)]
    facts["views"] = _view_facts(found, known, fitting, len(photos))
    facts["cameras_moved"] = found.moved
    mean = float(np.mean([found.fits[k].iou for k in fitting])) if fitting else 0.0
    facts["seconds"] = round(time.perf_counter() - begin, 3)
    if len(fitting) < LEAST_SHARE * len(known) or mean < MEAN_IOU:
        warnings.append(_refusal(found.fits, len(fitting), len(photos)))
        return ViewedMesh(mesh, facts={"texture": facts}, warnings=warnings)
    warnings += [
        f"{names[known[k]]} does not fit the mesh and is left out of the texture: outlines agree "
        f"to {fit.iou:.2f} (at least {VIEW_IOU} is needed), colours are {fit.colour_error:.2f} off."
        for k, fit in enumerate(found.fits)
        if k not in fitting
    ]
    common, each = even_exposures([found.fits[k].gain for k in fitting])
    views = [_view(cropped[k], found, k, gain) for k, gain in zip(fitting, each, strict=True)]
    facts["source"] = "photos"
    brighter = ColouredMesh(mesh.vertices, mesh.faces, np.clip(mesh.colours * common, 0, 1))
    return ViewedMesh(brighter, views, {"texture": facts}, warnings)


def fits(fit: Fit) -> bool:
    """Outline and colours both, of one photo."""
    allowed = max(COLOUR_SURE, min(COLOUR_ERROR, COLOUR_OF_SPREAD * fit.colour_spread))
    return fit.iou >= VIEW_IOU and fit.colour_error <= allowed


def _refusal(all_fits: Sequence[Fit], fitting: int, photos: int) -> str:
    iou = float(np.mean([fit.iou for fit in all_fits]))
    error = float(np.mean([fit.colour_error for fit in all_fits]))
    return (
        f"The mesh does not fit the photos: outlines agree to {iou:.2f} (at least {MEAN_IOU} is "
        f"needed), colours are {error:.2f} off (at most {COLOUR_ERROR}), and {fitting} of {photos} "
        "photos fit. The texture keeps the network's colours."
    )


def even_exposures(gains: Sequence[Array]) -> tuple[Array, list[Array]]:
    """What to multiply the mesh's colours by, and each photo's: then all are equally bright.

    gains: (3,) of each photo, from the mesh's colours to its own. The middle photo stays as it is.
    """
    bounded = np.clip(np.stack(gains), *GAINS).astype(np.float32)
    common = np.median(bounded, axis=0)
    return common, list(common / bounded)


def _is_surface(mesh: ColouredMesh) -> bool:
    if not (np.isfinite(mesh.vertices).all() and np.isfinite(mesh.colours).all()):
        return False
    return bool(face_normals(mesh.vertices, mesh.faces).any())


def _before(photos: Sequence[Photo]) -> bool:
    """Whether the place where the lines of sight to the object meet lies before the cameras."""
    if len(photos) == 1:
        return True
    rows, right = sight_lines(photos)
    place = np.linalg.lstsq(rows.reshape(-1, 3), right.ravel(), rcond=1e-6)[0]
    ahead = [photo.to_camera[2, :3] @ place + photo.to_camera[2, 3] > 0 for photo in photos]
    return float(np.mean(ahead)) > LEAST_SHARE


def _view(photo: Photo, found: Registration, index: int, gain: Array) -> View:
    height, width = photo.rgba.shape[:2]
    rgba = photo.rgba.copy()
    rgba[..., :3] = np.clip(rgba[..., :3] * gain, 0, 1)
    return View(rgba, pinhole(found.to_camera[index], photo.intrinsics, height, width))


def _view_facts(
    found: Registration, known: Sequence[int], fitting: Sequence[int], count: int
) -> list[JsonValue]:
    facts: list[JsonValue] = [None] * count
    for k, (index, fit) in enumerate(zip(known, found.fits, strict=True)):
        facts[index] = {
            "outline_iou": round(fit.iou, 3),
            "colour_error": round(fit.colour_error, 3),
            "colour_spread": round(fit.colour_spread, 3),
            "used": k in fitting,
        }
    return facts
