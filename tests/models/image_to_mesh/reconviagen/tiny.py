"""A release of ReconViaGen in miniature: the official layout and names, random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from models.image_to_mesh.reconviagen.checkpoint import read_vggt_config
from models.image_to_mesh.reconviagen.networks import build
from models.image_to_mesh.reconviagen.vggt.aggregator import AggregatorConfig
from models.image_to_mesh.reconviagen.vggt.network import Vggt
from models.nn.dinov2 import DinoV2Config
from tests.models.image_to_mesh.trellis.tiny import COND, write_dinov2, write_release

WIDTH = 16  # of the tiny VGGT; its tokens are twice as wide
CONTEXT = 2 * WIDTH + COND
CONDITIONS = {
    "sparse_structure_vggt_cond": (
        "ckpts/ss_vggt_cond",
        "ModulatedMultiViewCond",
        {
            "channels": COND,
            "ctx_channels": CONTEXT,
            "num_heads": 2,
            "mlp_ratio": 2.0,
            "attn_mode": "full",
            "use_rope": False,
            "share_mod": False,
            "qk_rms_norm": True,
            "qk_rms_norm_cross": False,
            "num_init_tokens": 12,
        },
    ),
    "slat_vggt_cond": (
        "ckpts/slat_vggt_cond",
        "ModulatedSLATMultiViewCond",
        {"channels": COND, "ctx_channels": CONTEXT},
    ),
}


def tiny_vggt() -> Vggt:
    """Four layers, all of them kept, over patches of a DINOv2 with one."""
    vision = DinoV2Config(518, 14, WIDTH, 1, 2, 2, 4)
    config = AggregatorConfig(518, 14, WIDTH, 4, 2, 2, 4, vision)
    return Vggt(config, camera_depth=1, camera_heads=2, layers=(0, 1, 2, 3))


def write_all(folder: Path, vggt_width: int | None = None, patch: int = 14) -> None:
    """The three entries that the pipeline needs, each in its folder.

    vggt_width: a VGGT of so many channels, as deep as the real one, which its `config.json`
    describes; else `tiny_vggt`, which none could. patch: pixels along a patch's side.
    """
    release = folder / "reconviagen-v0-2"
    write_release(release)  # ReconViaGen's is TRELLIS's, and two networks more
    path = release / "pipeline.json"
    content = json.loads(path.read_text())
    for number, (name, (stem, class_name, args)) in enumerate(CONDITIONS.items()):
        content["args"]["models"][name] = stem
        args = args | {"ctx_channels": 2 * (vggt_width or WIDTH) + COND}
        (release / f"{stem}.json").write_text(json.dumps({"name": class_name, "args": args}))
        network = random_weights(build(class_name, args), seed=10 + number)
        save_file(network.state_dict(), release / f"{stem}.safetensors")
    path.write_text(json.dumps(content))
    write_dinov2(folder / "dinov2-large-registers", patch=patch)
    vggt = folder / "vggt-object-v0-1"
    vggt.mkdir()
    config = {"img_size": 518, "patch_size": patch, "embed_dim": vggt_width or 1024}
    (vggt / "config.json").write_text(json.dumps(config))
    network = Vggt(read_vggt_config(vggt / "config.json")) if vggt_width else tiny_vggt()
    state = random_weights(network, seed=20).state_dict()
    left_out = {"point_head.norm.weight": torch.zeros(2), "track_head.a.b": torch.zeros(1)}
    save_file({**state, **left_out}, vggt / "model.safetensors")


def random_weights(network: nn.Module, seed: int) -> nn.Module:
    """Every matrix keeps the size of what passes through it; norms and biases nearly neutral."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2 and "token" not in name:
                parameter.copy_(drawn * parameter[0].numel() ** -0.5)
            elif name.endswith(("gamma", "weight")):
                parameter.copy_(1 + 0.1 * drawn)
            else:
                parameter.copy_(0.1 * drawn)
    return network.eval()
