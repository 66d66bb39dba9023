"""The tiny release as `meshpress models pull` would leave it: the catalogue's names, and a lock.

The lock says which sizes are right, so the catalogue's own, of the real weights, are not asked.
"""

from __future__ import annotations

import json
from pathlib import Path

from models.weights.catalogue import find_entries
from models.weights.store import LOCK_NAME, Lock, LockedFile
from models.weights.verify import sha256_of
from tests.models.image_to_mesh.trellis.tiny import write_dinov2, write_release

STEMS = {
    "sparse_structure_flow_model": "ss_flow_img_dit_L_16l8",
    "sparse_structure_decoder": "ss_dec_conv3d_16l8",
    "slat_flow_model": "slat_flow_img_dit_L_64l8p2",
    "slat_decoder_mesh": "slat_dec_mesh_swin8_B_64l8m256c",
    "slat_decoder_gs": "slat_dec_gs_swin8_B_64l8gs32",
}


def pull_tiny(models_dir: Path, seed: int = 0) -> None:
    """Both entries that TRELLIS needs, whole in their places."""
    trellis = models_dir / "trellis-image-large"
    write_release(trellis, seed)
    for ours, official in STEMS.items():
        for ending in ("json", "safetensors"):
            file = trellis / f"ckpts/{ours}_fp16.{ending}"
            file.rename(file.with_name(f"{official}_fp16.{ending}"))
    config = json.loads((trellis / "pipeline.json").read_text())
    config["args"]["models"] = {name: f"ckpts/{stem}_fp16" for name, stem in STEMS.items()}
    (trellis / "pipeline.json").write_text(json.dumps(config))
    write_dinov2(models_dir / "dinov2-large-registers")
    lock(models_dir, "trellis-image-large", "dinov2-large-registers")


def lock(models_dir: Path, *names: str) -> None:
    """Write down what lies in the places of these entries as what arrived from the hub."""
    for entry in find_entries(names):
        place = models_dir / entry.name
        files = {
            file.name: LockedFile((place / file.name).stat().st_size, sha256_of(place / file.name))
            for file in entry.files
        }
        record = Lock(entry.repo, entry.revision or "0" * 40, entry.licence.name, files)
        (place / LOCK_NAME).write_text(record.to_json())
