"""Which engine computes sparse convolution and attention: one place, read at every call.

It does not know the engines, nor whether they are installed: `sparse_conv` and `attention` make
"auto" a name, and say what is missing when a name was asked for.

    with use_backends(sparse="torch", attention="sdpa"):
        network(x)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

SparseName = Literal["auto", "torch", "triton", "spconv"]
AttentionName = Literal["auto", "sdpa", "triton", "xformers", "flash"]
DtypeName = Literal["auto", "bfloat16", "float16", "float32"]

_SPELLINGS = {"flash-attn": "flash"}  # the guard calls it by the name of its distribution


@dataclass(frozen=True)
class Backends:
    """sparse: of convolution. attention: of every attention. dtype: of a network's torso."""

    sparse: SparseName = "auto"
    attention: AttentionName = "auto"
    dtype: DtypeName = "auto"

    def __post_init__(self) -> None:
        allowed = {"sparse": SparseName, "attention": AttentionName, "dtype": DtypeName}
        for field, names in allowed.items():
            value = getattr(self, field)
            if value not in get_args(names):
                choices = ", ".join(get_args(names))
                raise ValueError(f"{field} backend is {value!r}, not one of {choices}.")


def from_environment(environ: Mapping[str, str] = os.environ) -> Backends:
    """What the guard decided for this process: MESHPRESS_{SPARSE,ATTENTION}_BACKEND and _DTYPE."""
    names = ("MESHPRESS_SPARSE_BACKEND", "MESHPRESS_ATTENTION_BACKEND", "MESHPRESS_DTYPE")
    return _named(*(environ.get(name, "auto") for name in names))


@cache
def _named(sparse: str, attention: str, dtype: str) -> Backends:
    """Checked once: every layer asks."""
    return Backends(
        sparse=sparse,  # type: ignore[arg-type]  # checked in __post_init__
        attention=_SPELLINGS.get(attention, attention),  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
    )


_chosen: ContextVar[Backends | None] = ContextVar("backends", default=None)


def current_backends() -> Backends:
    """What the innermost `use_backends` asks for; outside of any, what the environment says."""
    chosen = _chosen.get()
    return from_environment() if chosen is None else chosen


def own_kernels() -> bool:
    """Whether Triton kernels of ours that no other setting names may compute on a GPU.

    The guard names another sparse backend where Triton does not serve the GPU; whoever names one
    wants none of them.
    """
    return current_backends().sparse in ("auto", "triton") and _triton_installed()


@cache
def _triton_installed() -> bool:
    return find_spec("triton") is not None


@contextmanager
def use_backends(
    backends: Backends | None = None,
    *,
    sparse: SparseName | None = None,
    attention: AttentionName | None = None,
    dtype: DtypeName | None = None,
) -> Iterator[Backends]:
    """Within the block, networks run on these; what is not named stays as it was outside."""
    asked = {"sparse": sparse, "attention": attention, "dtype": dtype}
    named = {field: value for field, value in asked.items() if value is not None}
    chosen = replace(backends or current_backends(), **named)  # type: ignore[arg-type]
    token = _chosen.set(chosen)
    try:
        yield chosen
    finally:
        _chosen.reset(token)
