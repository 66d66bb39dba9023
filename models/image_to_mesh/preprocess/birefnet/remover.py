"""A picture in, its object's alpha out: BiRefNet with what was done to images when it was trained.

It knows where a release keeps its weights, not how they came there, and not what to do with a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from models.context import Unavailable
from models.image_to_mesh.preprocess.birefnet.network import (
    RELEASE,
    STAGES,
    BiRefNet,
    BiRefNetConfig,
)
from models.nn.backends import current_backends
from models.nn.dinov2 import IMAGENET_MEAN, IMAGENET_STD
from models.nn.interruption import before_each
from models.nn.residency import Residency, should_offload
from models.nn.weights import load_weights, on_meta

SIDE_PX = 1024
NEEDED_BYTES = 4 << 30
"""Weights and work at 1024 px in half precision; on a device with less free the weights leave
between two pictures."""


class BackgroundRemover:
    """network: [1, 3, S, S] ImageNet-normalised -> [1, 1, S, S] logits; side_px: S."""

    def __init__(self, network: nn.Module, residency: Residency, side_px: int = SIDE_PX) -> None:
        self.network, self.residency, self.side_px = network, residency, side_px

    def __call__(
        self, rgb: npt.NDArray[np.uint8], check: Callable[[], None] = lambda: None
    ) -> npt.NDArray[np.float32]:
        """Alpha (H, W), 0..1, of an image (H, W, 3) in sRGB.

        check: called between the network's stages; what it raises ends the work.
        Raises Unavailable where the device has not the memory, or not the precision: some cards
        of the GTX 16 series make NaN of half-precision convolutions.
        """
        height, width = rgb.shape[:2]
        square = Image.fromarray(rgb).resize((self.side_px,) * 2, Image.Resampling.BILINEAR)
        try:
            with before_each(stages(self.network), check):
                alpha = self._alpha(torch.from_numpy(np.array(square)))
        except torch.OutOfMemoryError as error:
            raise Unavailable(
                f"BiRefNet does not fit into the free memory of {self.residency.device}.",
                code="out_of_memory",
                next_step="Set mask=classic, or send a PNG with transparency.",
            ) from error
        if not alpha.isfinite().all():
            raise Unavailable(
                f"BiRefNet's mask is not finite on {self.residency.device}.",
                code="mask_not_finite",
                next_step="Set mask=classic, or MESHPRESS_DTYPE=float32 for the service.",
            )
        whole = Image.fromarray(alpha.numpy()).resize((width, height), Image.Resampling.BICUBIC)
        return np.clip(np.asarray(whole, np.float32), 0, 1)

    @torch.no_grad()
    def _alpha(self, square: Tensor) -> Tensor:  # uint8 [S, S, 3] -> fp32 [S, S] on the CPU
        device, dtype = self.residency.device, next(self.network.parameters()).dtype
        mean, std = (torch.tensor(each, device=device) for each in (IMAGENET_MEAN, IMAGENET_STD))
        image = (square.to(device).float() / 255 - mean) / std
        with self.residency.at_work(self.network):
            logits: Tensor = self.network(image.permute(2, 0, 1)[None].to(dtype))
        return logits[0, 0].float().sigmoid().cpu()


def stages(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, STAGES)]


@lru_cache(maxsize=1)
def shared_remover(folder: Path, device: str) -> BackgroundRemover:
    """The one remover of this process; raises as `load_remover` does."""
    return load_remover(folder, device)


def load_remover(folder: Path, device: str, config: BiRefNetConfig = RELEASE) -> BackgroundRemover:
    """A remover with the weights of a folder as released.

    Raises Unavailable where they are missing, damaged, or another network's, and where the device
    is not there.
    """
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise Unavailable(
            f"device={device} cannot be used: torch finds no GPU.",
            code="device_unavailable",
            next_step="Run `meshpress doctor`; in a container, give it the GPU (--gpus all).",
        )
    residency = Residency(place, offload=should_offload(place, NEEDED_BYTES))
    home = torch.device("cpu") if residency.offload else place
    network = on_meta(partial(BiRefNet, config)).to(_dtype(place))
    return BackgroundRemover(load_weights(network, folder / "model.safetensors", home), residency)


def _dtype(place: torch.device) -> torch.dtype:
    """fp16 on a GPU, as the release is stored and was validated, unless fp32 is asked for.

    Never bf16: its 8 bits place a deformable kernel's tap no closer than a sixteenth of its way.
    """
    wants_full = current_backends().dtype == "float32"
    return torch.float32 if place.type == "cpu" or wants_full else torch.float16
