"""Where networks live between their turns: on the device all the time, or there only at work.

It knows modules and memory, not what a network does. A card that cannot hold all stages at once
holds one; weights never change, so nothing is ever copied back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

OffloadName = Literal["auto", "on", "off"]


class Residency:
    """Brings networks to `device` for a turn; a GPU becomes this process's current one.

    offload: between turns they live in the machine's memory (page-locked, where the device is a
             GPU, so that they come at the bus's full speed); else they stay once they came.
    """

    def __init__(self, device: torch.device | str, *, offload: bool = False) -> None:
        self.device = torch.device(device)
        self.offload = offload and self.device.type != "cpu"
        if self.device.type == "cuda" and self.device.index is not None:
            # Triton starts its kernels on the current device, wherever their tensors lie.
            torch.cuda.set_device(self.device)

    @contextmanager
    def at_work(self, *networks: nn.Module) -> Iterator[None]:
        """Within the block these networks are on the device."""
        homes = [(tensor, self._home(tensor)) for net in networks for tensor in _tensors(net)]
        try:
            for tensor, home in homes:
                tensor.data = home.to(self.device, non_blocking=True)
            yield
        finally:
            if self.offload:
                for tensor, home in homes:
                    tensor.data = home

    def _home(self, tensor: Tensor) -> Tensor:
        if not self.offload:
            return tensor.data
        home = tensor.data.cpu()
        return home if home.is_pinned() else home.pin_memory()


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def should_offload(
    device: torch.device | str, needed_bytes: int, environ: Mapping[str, str] = os.environ
) -> bool:
    """Whether networks come to `device` one at a time: MESHPRESS_OFFLOAD, which is auto, on or off.

    auto: where its free memory is less than `needed_bytes`, what all networks and their work take.
    Raises ValueError for another setting.
    """
    place = torch.device(device)
    asked = environ.get("MESHPRESS_OFFLOAD", "auto")
    if asked not in get_args(OffloadName):
        raise ValueError(f"MESHPRESS_OFFLOAD is {asked!r}, not auto, on or off.")
    if place.type != "cuda" or asked == "off":
        return False
    return asked == "on" or torch.cuda.mem_get_info(place)[0] < needed_bytes
