"""The tiny release 1.1 as `meshpress models pull` would leave it, and the pipeline made of it.

Everything is as it is with the real one but the sizes, which `models.image_to_mesh.direct3d_s2`
states itself, and what decodes a surface: random weights give none, so an egg stands there.
"""

from __future__ import annotations

from pathlib import Path

import torch

from models.image_to_mesh.direct3d_s2.checkpoint import load_generator
from models.image_to_mesh.direct3d_s2.pipeline import IMAGE_WEIGHTS, Direct3DS2Pipeline
from models.image_to_mesh.direct3d_s2.release import RELEASES
from models.nn.residency import Residency
from models.weights.store import require
from tests.models.image_to_mesh.direct3d_s2.tiny import (
    tiny_release,
    with_eggs,
    write_safetensors,
)
from tests.models.image_to_mesh.trellis.released import lock
from tests.models.image_to_mesh.trellis.tiny import write_dinov2

VERSION = "1.1"


def pull_tiny(models_dir: Path) -> None:
    """Both entries that the pipeline needs, whole in their places."""
    entry = RELEASES[VERSION].entry
    write_safetensors(tiny_release(VERSION), models_dir / entry)
    write_dinov2(models_dir / IMAGE_WEIGHTS)
    lock(models_dir, entry, IMAGE_WEIGHTS)


def load(device: str) -> Direct3DS2Pipeline:
    """As the pipeline's own `load`. Raises Unavailable where the weights are missing."""
    release, place = tiny_release(VERSION), torch.device(device)
    folders = require(release.entry), require(IMAGE_WEIGHTS)
    generator = load_generator(release, *folders, Residency(place), torch.float32)
    return Direct3DS2Pipeline(with_eggs(generator))
