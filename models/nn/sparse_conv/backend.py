"""What a convolution backend is, and which one computes a given call.

Knows the backends' names and what each runs on; each is a module beside this one with one function
`convolve`, imported when first used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

import torch
from torch import Tensor

from models.context import Unavailable
from models.nn.backends import SparseName, current_backends
from models.nn.sparse_conv.kernel_map import KernelMap


class ConvBackend(Protocol):
    """One convolution: out[i] = bias + sum over v of weight[:, v] @ feats[map[v, i]].

    feats:  [N_in, Cin]; weight: [Cout, KX, KY, KZ, Cin] as stored; bias: [Cout] or None, all of one
    dtype and on one device. Returns [N_out, Cout] of that dtype. fp16 and bf16 are multiplied as
    they are and added up in fp32. The caller has checked shapes; N_in and N_out may be 0.
    """

    def __call__(
        self, feats: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap
    ) -> Tensor: ...


_MODULES = {
    "torch": "models.nn.sparse_conv.torch_conv",
    "triton": "models.nn.sparse_conv.triton_conv",
    "spconv": "models.nn.sparse_conv.spconv_conv",
}
_BY_SPEED: tuple[SparseName, ...] = ("triton", "spconv")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def pick_backend(asked: SparseName | None, device: torch.device, dtype: torch.dtype) -> SparseName:
    """`asked`, or what `use_backends` says; "auto" becomes the best that is installed.

    fp64 is for the reference alone, whatever is asked for. Raises Unavailable where the backend
    that was named cannot run here, with the reason.
    """
    name = current_backends().sparse if asked is None else asked
    if name == "torch" or dtype not in _DTYPES:
        return "torch"
    if name == "auto":
        if device.type != "cuda":
            return "torch"
        return next((best for best in _BY_SPEED if _installed(best)), "torch")
    if not _installed(name):
        raise _missing(name, f"{name} is not installed.")
    if name == "triton" and device.type != "cuda":
        raise _missing(name, f"it needs a CUDA device, not {device}.")
    return name


def _missing(name: SparseName, reason: str) -> Unavailable:
    return Unavailable(
        f"The sparse backend {name} was asked for, but {reason}",
        code="sparse_backend_missing",
        next_step=f"Set MESHPRESS_SPARSE_BACKEND=torch, or give {name} what it needs.",
    )


def load_backend(name: SparseName) -> ConvBackend:
    """The backend of a name that `pick_backend` gave."""
    return cast(ConvBackend, import_module(_MODULES[name]).convolve)


@cache
def _installed(package: str) -> bool:
    return find_spec(package) is not None
