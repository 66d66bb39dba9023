"""Networks as ReconViaGen's checkpoint describes them: a class name and its arguments.

It knows the two classes that ReconViaGen adds and the one it changes; all others are TRELLIS's. It
reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import nn

from models.image_to_mesh.reconviagen.latent_condition import LatentCondition
from models.image_to_mesh.reconviagen.multi_view_flow import led_by_views
from models.image_to_mesh.reconviagen.structure_condition import StructureCondition
from models.image_to_mesh.trellis import networks as trellis
from models.image_to_mesh.trellis.slat_flow import SlatFlow

CLASSES: Mapping[str, Callable[..., nn.Module]] = {
    "ModulatedMultiViewCond": StructureCondition,
    "ModulatedSLATMultiViewCond": LatentCondition,
}
IGNORED = ("use_fp16", "use_bf16", "use_checkpoint", "dtype", "window_size", "shift_window")
"""Arguments that say nothing about the result: precision is chosen by who runs the network."""
ONLY: Mapping[str, Any] = {
    "attn_mode": "full",
    "use_rope": False,
    "share_mod": False,
    "qk_rms_norm_cross": False,
    "qkv_bias": True,
}
"""Arguments with one value that the release uses, and our networks know."""


def build(name: str, args: Mapping[str, Any]) -> nn.Module:
    """The network of this class with these arguments, its weights unset.

    Raises ValueError for a class, an argument or a value that is not known.
    """
    if name not in CLASSES:
        network = trellis.build(name, {k: v for k, v in args.items() if k != "use_bf16"})
        return led_by_views(network) if isinstance(network, SlatFlow) else network
    make = CLASSES[name]
    ours = {key: value for key, value in args.items() if key not in IGNORED}
    for key, only in ONLY.items():
        if (value := ours.pop(key, only)) != only:
            raise ValueError(f"{name}: {key} is {value!r}; only {only!r} is known.")
    if unknown := [key for key in ours if key not in signature(make).parameters]:
        raise ValueError(f"{name} has an argument {unknown[0]!r}, which is not known.")
    return make(**ours)
