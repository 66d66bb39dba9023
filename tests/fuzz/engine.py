"""Runs one target under atheris, coverage-guided: what the `fuzz_*.py` programs share.

    python tests/fuzz/fuzz_ply.py -max_total_time=60 CORPUS

Arguments are libFuzzer's. The corpus folder is filled with the target's seeds first. Anything but
a scene or InvalidInput ends the run and leaves the input that caused it.
"""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

with atheris.instrument_imports(include=["models.splat_to_sog"]):
    from models.splat_to_sog import readers  # noqa: F401 - imported here to be instrumented

import targets  # noqa: E402 - after what it imports has been instrumented

LIMITS = {
    "-max_len": targets.MAX_BYTES,
    "-timeout": 10,  # seconds for one input
    "-rss_limit_mb": 2048,
    "-malloc_limit_mb": 1024,
}


def main(name: str) -> None:
    warnings.simplefilter("error")
    target = targets.TARGETS[name]
    for folder in [Path(a) for a in sys.argv[1:] if not a.startswith("-")][:1]:
        folder.mkdir(parents=True, exist_ok=True)
        for index, seed in enumerate(target.seeds()):
            (folder / f"seed-{index}").write_bytes(seed)

    def one(data: bytes) -> None:
        targets.run(target, data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        return target.mutate(data, lambda inner, limit: atheris.Mutate(inner, limit), rng)[:most]

    given = {argument.partition("=")[0] for argument in sys.argv}
    limits = [f"{key}={value}" for key, value in LIMITS.items() if key not in given]
    atheris.Setup([*sys.argv, *limits], one, custom_mutator=mutate)
    atheris.Fuzz()
