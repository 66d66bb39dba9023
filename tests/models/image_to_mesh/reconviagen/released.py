"""The tiny release as `meshpress models pull` would leave it: the catalogue's names, and a lock.

The lock says which sizes are right, so the catalogue's own, of the real weights, are not asked.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.models.image_to_mesh.reconviagen.tiny import write_all
from tests.models.image_to_mesh.trellis.released import STEMS, lock

VGGT_WIDTH = 64  # the least that 16 heads of rotary quarters allow
PATCH = 74  # pixels; 49 patches of an image, not 1369, in as many layers as the real one has


def pull_tiny(models_dir: Path) -> None:
    """All three entries that ReconViaGen needs, whole in their places."""
    write_all(models_dir, VGGT_WIDTH, PATCH)
    release = models_dir / "reconviagen-v0-2"
    for ours, official in STEMS.items():
        for ending in ("json", "safetensors"):
            file = release / f"ckpts/{ours}_fp16.{ending}"
            file.rename(file.with_name(f"{official}_fp16.{ending}"))
    content = json.loads((release / "pipeline.json").read_text())
    content["args"]["models"] |= {name: f"ckpts/{stem}_fp16" for name, stem in STEMS.items()}
    (release / "pipeline.json").write_text(json.dumps(content))
    lock(models_dir, "reconviagen-v0-2", "vggt-object-v0-1", "dinov2-large-registers")
