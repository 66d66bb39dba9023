"""VGGT as ReconViaGen uses it: tokens of four layers, and the cameras.

It knows the parts that a checkpoint holds and leaves out the heads nobody asks here: points, depth
and tracks. Where a torso in half precision meets fp32, autocast converts, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.image_to_mesh.reconviagen.vggt.aggregator import TORSO, Aggregator, AggregatorConfig
from models.image_to_mesh.reconviagen.vggt.camera_head import CameraHead
from models.nn.precision import to_half, torso_dtype

VGGT_1B = AggregatorConfig()
LAYERS = (4, 11, 17, 23)
"""Of 24, those whose tokens the condition networks were trained on."""
HEADS_LEFT_OUT = ("point_head.", "depth_head.", "track_head.")


@dataclass(frozen=True)
class Seen:
    """layers: fp32 [S, 5 + P, 2C] of each of `LAYERS`; poses: fp32 [S, 9], encoded."""

    layers: tuple[Tensor, ...]
    poses: Tensor


class Vggt(nn.Module):
    """layers: of the aggregator, whose tokens are kept; the last of them tells the cameras."""

    def __init__(
        self,
        config: AggregatorConfig = VGGT_1B,
        *,
        camera_depth: int = 4,
        camera_heads: int = 16,
        layers: tuple[int, ...] = LAYERS,
    ) -> None:
        super().__init__()
        if layers[-1] != config.depth - 1:
            raise ValueError(f"layers {layers} leave out the last of {config.depth}.")
        self.layers = layers
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(2 * config.embed_dim, camera_depth, camera_heads)

    @property
    def depth(self) -> int:
        """Layers of the aggregator."""
        return self.aggregator.config.depth

    def halve(self, dtype: torch.dtype) -> Vggt:
        """The aggregator's layers to `dtype`, in place; the camera head stays fp32."""
        to_half(self.aggregator, dtype, TORSO)
        return self

    def forward(
        self,
        images: Tensor,  # fp32 [S, 3, H, W], 0..1
        on_layer: Callable[[int], None] | None = None,
    ) -> Seen:
        dtype = torso_dtype(self.aggregator, TORSO)
        halved = dtype != torch.float32
        with torch.autocast(images.device.type, dtype=dtype if halved else None, enabled=halved):
            kept = self.aggregator(images[None], self.layers, on_layer)
        poses = self.camera_head(kept[-1])[-1]
        return Seen(tuple(tokens[0] for tokens in kept), poses[0])


def without_other_heads(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors but for those of the heads left out; unknown names stay, to be told.

    Releases differ in which heads they still hold.
    """
    return {name: t for name, t in state.items() if not name.startswith(HEADS_LEFT_OUT)}
