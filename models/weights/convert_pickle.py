"""Rewrite a pickle of tensors as safetensors, and compare the result with it bit by bit.

Run as a program, in a process of its own: `python convert_pickle.py SOURCE TARGET`. It imports
nothing of ours, and reads with `weights_only`, which refuses code. Tensors of nested dictionaries
get dotted names. What it did is one line of JSON; why it did not, the last line of its errors.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SCALARS = (bool, int, float, str, type(None))
"""Leaves that are no tensors and no weights, such as the number of a training step."""


def main(source: Path, target: Path) -> dict[str, Any]:
    """Writes `target` whole or not at all. Raises what torch raises, ValueError, OSError."""
    import torch
    from safetensors.torch import save_file

    tree = torch.load(
        source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source)
    )
    leaves = dict(_flat(tree))
    tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, torch.Tensor)}
    left_out = [name for name in leaves if name not in tensors]
    for name in left_out:
        if not isinstance(leaves[name], SCALARS):
            raise ValueError(f"{name} is a {type(leaves[name]).__name__}, not a tensor")
    if not tensors:
        raise ValueError("it holds no tensor")
    part = target.with_name(f"{target.name}.part")
    try:
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, part)
        _compare(part, tensors)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return {"tensors": len(tensors), "left_out": left_out}


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted name. Raises ValueError where two leaves would share one."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"it holds a {type(tree).__name__}, not a dictionary")
    seen: set[str] = set()
    for key, value in tree.items():
        name = f"{prefix}{key}"
        below = _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
        for full, leaf in below:
            if full in seen:
                raise ValueError(f"two of its tensors would be called {full}")
            seen.add(full)
            yield full, leaf


def _compare(path: Path, tensors: Mapping[str, Any]) -> None:
    """Raises ValueError unless the file holds these tensors: names, dtypes, shapes, bits."""
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        if set(file.keys()) != set(tensors):
            raise ValueError("the names that were written are not those that were read")
        for name, expected in tensors.items():
            found = file.get_tensor(name)
            same = (found.dtype, found.shape) == (expected.dtype, expected.shape)
            bits = (t.contiguous().reshape(-1).view(torch.uint8) for t in (found, expected))
            if not same or not torch.equal(*bits):
                raise ValueError(f"{name} was not written as it was read")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))) + "\n")
