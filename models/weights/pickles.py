"""Weights that were published as pickles, made safetensors once, in a child process.

Loading a pickle may run the code in it. The child reads with `weights_only`, which refuses code,
has none of our environment, and can crash alone; this process never opens the file. Knows neither
hub nor places.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from models.context import Unavailable
from models.weights.catalogue import WeightEntry
from models.weights.safetensors import NotSafetensors, check

SECONDS_AT_LEAST = 120.0
BYTES_A_SECOND = 10e6
"""A disk slower than this is given up on."""
PACKAGES = ("torch", "safetensors")
CONVERTER = Path(__file__).with_name("convert_pickle.py")
"""A program, never imported here: torch is for the child alone."""


def published(entry: WeightEntry) -> WeightEntry:
    """The entry with its files as the hub has them: pickles under their own names."""
    files = tuple(
        replace(file, name=file.pickled_as, pickled_as="") if file.pickled_as else file
        for file in entry.files
    )
    return replace(entry, files=files)


def check_converter(entry: WeightEntry) -> None:
    """Raises Unavailable where the entry must be converted and what converts is not installed."""
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if entry.pickled and absent:
        pickles = ", ".join(file.pickled_as for file in entry.files if file.pickled_as)
        raise Unavailable(
            f"{entry.name} is published as pickles: {pickles}. meshpress makes safetensors of them "
            f"once, which needs {' and '.join(absent)}.",
            code="weights_pickled",
            next_step='Run `pip install "meshpress[torch]"`, then pull again; docs/models.md says '
            "how to convert elsewhere.",
        )


def convert(source: Path, target: Path) -> list[str]:
    """Write `target` from the pickle `source`; the names of what was no tensor and left out.

    Raises Unavailable where the file is no pickle of tensors; `target` is whole or does not exist.
    """
    seconds = SECONDS_AT_LEAST + source.stat().st_size / BYTES_A_SECOND
    command = [sys.executable, "-I", str(CONVERTER), str(source), str(target)]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env={}, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _unfit(source, f"it was not converted in {seconds:.0f} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise _unfit(source, lines[-1] if lines else f"the child ended with {done.returncode}")
    try:
        check(target)
        return [str(name) for name in json.loads(done.stdout)["left_out"]]
    except (NotSafetensors, OSError, ValueError, KeyError) as error:
        target.unlink(missing_ok=True)
        raise _unfit(source, str(error)) from error


def _unfit(source: Path, reason: str) -> Unavailable:
    return Unavailable(
        f"{source.name} cannot be made safetensors: {reason}.",
        code="weights_pickle_unfit",
        next_step="Run the pull again with --again; the file may be damaged, or hold more than "
        "tensors.",
    )
