"""Which method finds an object that its file does not mark: BiRefNet, the classical one, or both.

Importing this loads no network: torch comes with the first picture that needs it. It knows neither
files' own alpha nor what a mask is for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.context import Unavailable
from models.image_to_mesh.options.shared import MaskMethod
from models.image_to_mesh.preprocess.background import Separation, separate
from models.weights.catalogue import find_entries
from models.weights.store import find, require

WEIGHTS = "birefnet"
PACKAGES = ("torch", "safetensors")
PIP = 'Run `pip install "meshpress[torch]"`'
MIN_CONFIDENCE = 0.5
NO_OBJECT_BELOW = 0.05
"""Pixels with less alpha than this say nothing about how sure the network is of its object."""

SourceName = Literal["background", "birefnet"]
Method = Callable[[npt.NDArray[np.uint8], int], Separation]
"""(rgb (H, W, 3) sRGB, seed) -> alpha and how sure it is."""


@dataclass(frozen=True)
class Found:
    """separation: of the method `source`. notes: what the user should know about the choice."""

    separation: Separation
    source: SourceName
    notes: tuple[str, ...]


@dataclass(frozen=True)
class MaskSource:
    """methods: in the order they are tried; the first that is sure wins, else the surest.

    notes:  go with every mask found
    advice: what else a user can do whose object was not found
    """

    methods: tuple[tuple[SourceName, Method], ...]
    notes: tuple[str, ...] = ()
    advice: str = ""

    def find(self, rgb: npt.NDArray[np.uint8], seed: int) -> Found:
        """Raises Unavailable where the only method cannot run here; one of several is noted."""
        notes = list(self.notes)
        found: Found | None = None
        for number, (name, method) in enumerate(self.methods):
            try:
                separation = method(rgb, seed)
            except Unavailable as fault:
                if found is None and number == len(self.methods) - 1:
                    raise
                notes.append(f"{fault.message} {fault.next_step}".strip())
                continue
            if found is None or separation.confidence > found.separation.confidence:
                found = Found(separation, name, ())
            if separation.confidence >= MIN_CONFIDENCE:
                break
        if found is None:
            raise ValueError("a mask source needs a method")
        return Found(found.separation, found.source, tuple(notes))


CLASSIC = MaskSource((("background", separate),))


def mask_source(
    method: MaskMethod, device: str, check: Callable[[], None] = lambda: None
) -> MaskSource:
    """What `method` means on this machine, as its weights and packages are now.

    check: called often while the network works; what it raises ends the work.

    auto is BiRefNet first on a GPU. On a CPU it takes many seconds, and comes after the classical
    method: only where that is not sure, so that a picture is found that would have been refused.
    """
    network: tuple[SourceName, Method] = ("birefnet", _birefnet(device, check))
    if method == "birefnet":
        return MaskSource((network,))
    if method == "classic":
        return CLASSIC
    (entry,) = find_entries([WEIGHTS])
    if find(entry) is None:
        command = f"meshpress models pull {WEIGHTS}"
        advice = f"With `{command}` a network finds objects before any background."
        return MaskSource(CLASSIC.methods, advice=advice)
    if absent := _absent_packages():
        note = f"{' and '.join(absent)}, which BiRefNet runs on, cannot be imported, although its "
        note += f"weights are here. {PIP}; until then only plain backgrounds are removed."
        return MaskSource(CLASSIC.methods, notes=(note,))
    if device.startswith("cpu"):
        return MaskSource((*CLASSIC.methods, network))
    return MaskSource((network, *CLASSIC.methods))


def _birefnet(device: str, check: Callable[[], None]) -> Method:
    """The network as a method. Weights are asked for, and torch is imported, when it is called."""

    def method(rgb: npt.NDArray[np.uint8], seed: int) -> Separation:
        folder = require(WEIGHTS)
        if absent := _absent_packages():
            raise Unavailable(
                f"mask=birefnet needs {' and '.join(absent)}, which cannot be imported.",
                code="torch_missing",
                next_step=f"{PIP}.",
            )
        from models.image_to_mesh.preprocess.birefnet.remover import shared_remover

        return judged(shared_remover(folder, device)(rgb, check))

    return method


def judged(alpha: npt.NDArray[np.float32]) -> Separation:  # (H, W) 0..1
    """How sure the network is: how far from one half the alpha is wherever it sees anything."""
    solid = float((alpha >= 0.5).mean())
    if solid == 0:
        return Separation(alpha, 0.0, "the network sees no object")
    certainty = float(np.abs(2 * alpha[alpha >= NO_OBJECT_BELOW] - 1).mean())
    behind = min(1.0, (1 - solid) / 0.02)
    if behind < certainty:
        return Separation(alpha, behind, "the object fills the image")
    return Separation(alpha, certainty, "the network is not sure of its outline")


def _absent_packages() -> list[str]:
    return [name for name in PACKAGES if find_spec(name) is None]
