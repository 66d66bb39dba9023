"""Networks of full size with random weights, under the official names, as a release is laid out.

It knows configurations, not what is measured. Such networks know no shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from models.image_to_mesh.trellis.checkpoint import DINOV2_KEYS
from models.image_to_mesh.trellis.networks import build
from models.image_to_mesh.trellis.release import NETWORKS
from models.nn.dinov2 import DinoV2, DinoV2Config
from models.nn.precision import to_half

FILES = {
    "structure_flow": "trellis_ss_flow_img_dit_L_16l8",
    "structure_decoder": "trellis_ss_dec_conv3d_16l8",
    "latent_flow": "trellis_slat_flow_img_dit_L_64l8p2",
    "mesh_decoder": "trellis_slat_dec_mesh_swin8_B_64l8m256c",
    "gaussian_decoder": "trellis_slat_dec_gs_swin8_B_64l8gs32",
}
SAMPLER = {"steps": 25, "cfg_strength": 5.0, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0}


def write_release(folder: Path, state_dicts: Path, seed: int = 0) -> None:
    """The official layout at full size. Matrices keep the size of what passes through them, and are
    halved in branches, so that nothing overflows after 24 blocks."""
    torch.manual_seed(seed)
    (folder / "ckpts").mkdir(parents=True)
    models = {}
    for ours, theirs in NETWORKS.items():
        dump = json.loads((state_dicts / f"{FILES[ours]}.json").read_text())
        stem = f"ckpts/{Path(dump['checkpoint']).stem}"
        models[theirs] = stem
        (folder / f"{stem}.json").write_text(
            json.dumps({"name": dump["class"], "args": dump["config_args"]})
        )
        network = to_half(
            randomised(lambda d=dump: build(d["class"], d["config_args"])), torch.half
        )
        save_file(
            {k: t.cpu().contiguous() for k, t in network.state_dict().items()},
            folder / f"{stem}.safetensors",
        )
    sampler = {"name": "FlowEulerGuidanceIntervalSampler", "params": SAMPLER}
    args = {
        "models": models,
        "sparse_structure_sampler": sampler,
        "slat_sampler": sampler,
        "slat_normalization": {"mean": [0.0] * 8, "std": [1.0] * 8},
    }
    (folder / "pipeline.json").write_text(json.dumps({"args": args}))
    (folder / "dinov2").mkdir()
    config = DinoV2Config()
    described = {theirs: getattr(config, ours) for ours, theirs in DINOV2_KEYS.items()}
    (folder / "dinov2/config.json").write_text(json.dumps(described))
    network = randomised(lambda: DinoV2(config))
    state = {k: t.cpu().contiguous() for k, t in network.state_dict().items()}
    save_file(state, folder / "dinov2/model.safetensors")


def randomised(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("cuda"):
        network = make()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() >= 2 and "token" not in name and "gamma" not in name:
                parameter.normal_(std=0.5 * parameter[0].numel() ** -0.5)
            elif name.endswith(("gamma", "weight")):
                parameter.normal_(1, 0.1)
            else:
                parameter.normal_(std=0.1)
    return network
