"""Weights from a safetensors file into a network: every name, every shape, nothing left over.

It knows no catalogue of files and no network. A network is built on the meta device, so nothing is
allocated before its weights are there, and no pickle is ever opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.context import Unavailable

N = TypeVar("N", bound=nn.Module)
NAMED = 3  # of the tensors that are wrong, this many are named


class WeightsUnfit(Unavailable):
    """The file is not the network's: names or shapes differ, or it is damaged."""

    code = "weights_unfit"


def on_meta(build: Callable[[], N]) -> N:
    """A network with names, shapes and dtypes, but without memory."""
    with torch.device("meta"):
        return build().eval().requires_grad_(False)


def load_weights(
    network: N,
    path: Path,
    device: torch.device | str = "cpu",
    rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state: state,
    *,
    prefix: str = "",
) -> N:
    """Give `network` (of any device, meta too) the tensors of a file, on `device`.

    Each is brought to the dtype the network has it in. prefix: of the network's names in a file of
    several; nothing else is read of it. rename: from the file's names to the network's. Raises
    WeightsUnfit, Unavailable where the file is missing.
    """
    state = rename(_read(path, str(device), prefix))
    wanted = network.state_dict()
    _check(state, wanted, path)
    network.load_state_dict(
        {name: tensor.to(wanted[name].dtype) for name, tensor in state.items()},
        strict=True,
        assign=True,
    )
    return network.eval().requires_grad_(False)


def _read(path: Path, device: str, prefix: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise Unavailable(f"There are no weights at {path}.", code="weights_missing")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            return {
                name.removeprefix(prefix): file.get_tensor(name)
                for name in file.keys()
                if name.startswith(prefix)
            }
    except (SafetensorError, OSError) as error:
        raise WeightsUnfit(
            f"{path.name} cannot be read: {error}.",
            next_step="Run `meshpress models verify`, then pull it again.",
        ) from error


def _check(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsUnfit, naming the first tensors that are missing, too many or misshapen."""
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    reshaped = [
        f"{name} {list(state[name].shape)} for {list(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    faults = [
        f"{len(names)} {kind} ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if names
    ]
    if faults:
        raise WeightsUnfit(
            f"{path.name} does not hold this network: of {len(wanted)} tensors, "
            f"{'; '.join(faults)}.",
            next_step="Run `meshpress models verify`; the file may belong to another release.",
        )
