"""Networks as a checkpoint's configuration describes them: a class name and its arguments.

It knows the official names of classes and arguments, and refuses what our networks do not do; it
reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import nn

from models.image_to_mesh.trellis.gaussian_decoder import GaussianSettings, SlatGaussianDecoder
from models.image_to_mesh.trellis.mesh_decoder import SlatMeshDecoder
from models.image_to_mesh.trellis.slat_flow import SlatFlow
from models.image_to_mesh.trellis.ss_decoder import SparseStructureDecoder
from models.image_to_mesh.trellis.ss_flow import SparseStructureFlow

CLASSES: Mapping[str, Callable[..., nn.Module]] = {
    "SparseStructureFlowModel": SparseStructureFlow,
    "SparseStructureDecoder": SparseStructureDecoder,
    "SLatFlowModel": SlatFlow,
    "SLatMeshDecoder": SlatMeshDecoder,
    "SLatGaussianDecoder": SlatGaussianDecoder,
}
"""The official class names, without the prefix Elastic, which changes training alone."""

IGNORED = ("use_fp16", "use_checkpoint", "num_head_channels")
"""Arguments that say nothing about the result: precision is chosen by who runs the network."""

ONLY: Mapping[str, tuple[Any, ...]] = {
    "pe_mode": ("ape",),
    "share_mod": (False,),
    "qk_rms_norm_cross": (False,),
    "use_skip_connection": (True,),
    "attn_mode": ("swin",),
    "norm_type": ("layer",),
}
"""Arguments with one value that the releases use, and our networks know."""


def build(name: str, args: Mapping[str, Any]) -> nn.Module:
    """The network of this class with these arguments, its weights unset.

    Raises ValueError for a class, an argument or a value that is not known.
    """
    official = name.removeprefix("Elastic")
    if official not in CLASSES:
        raise ValueError(f"{name!r} is no network of TRELLIS; known: {', '.join(CLASSES)}.")
    make, ours = CLASSES[official], dict(args)
    if "num_heads" not in ours and "num_head_channels" in ours:
        ours["num_heads"] = ours["model_channels"] // ours["num_head_channels"]
    for key in IGNORED:
        ours.pop(key, None)
    for key, values in ONLY.items():
        if (value := ours.pop(key, values[0])) not in values:
            raise ValueError(f"{name}: {key} is {value!r}; only {values[0]!r} is known.")
    _translate(official, ours)
    if unknown := [key for key in ours if key not in signature(make).parameters]:
        raise ValueError(f"{name} has an argument {unknown[0]!r}, which is not known.")
    return make(**ours)


def _translate(official: str, args: dict[str, Any]) -> None:
    """What differs from class to class, in place."""
    if official == "SLatFlowModel":
        if (patch := args.pop("patch_size", 2)) != 2 ** len(args["io_block_channels"]):
            raise ValueError(f"patch_size is {patch}, not two to the number of io_block_channels.")
    representation = args.pop("representation_config", None)
    if official == "SLatGaussianDecoder":
        args["settings"] = GaussianSettings.from_config(representation or {})
    elif official == "SLatMeshDecoder" and not (representation or {}).get("use_color", False):
        raise ValueError("A mesh decoder without colours (use_color) is not known.")
