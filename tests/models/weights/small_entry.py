"""An entry of two weights and a configuration, and what a hub serves for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fake_hub import tensors

from models.weights.catalogue import Licence, WeightEntry, WeightFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/small"
LARGE = tensors(300_000, seed=1)
SMALL = tensors(50_000, seed=2)
CONFIG = b'{"width": 8}\n'

ENTRY = WeightEntry(
    name="small",
    summary="Two files and a configuration.",
    repo=REPO,
    revision=COMMIT,
    licence=Licence("MIT", "https://example.com/licence", True),
    files=(
        WeightFile("config.json"),
        WeightFile("ckpts/large.safetensors"),
        WeightFile("ckpts/small.safetensors"),
    ),
    pipelines=("rehearsal",),
)
FILES = {
    "config.json": CONFIG,
    "ckpts/large.safetensors": LARGE,
    "ckpts/small.safetensors": SMALL,
    "README.md": b"# Small\n",
    "model.ckpt": b"\x80\x02.",
}


def with_file(entry: WeightEntry, name: str, **facts: Any) -> WeightEntry:
    """The entry, one of its files with other facts."""
    files = tuple(replace(file, **facts) if file.name == name else file for file in entry.files)
    return replace(entry, files=files)
