"""The real runner over the usual table and pipelines that fail, each in one way:
`python -m … DEVICE EVENT_FD`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from models.context import InputFile, InvalidInput, Pipeline, PipelineResult, RunContext
from service.jobs.runner import Runner
from service.pipelines import PIPELINES, find_pipeline


class OutOfMemoryError(RuntimeError):
    """Named like torch's and CuPy's."""


FAILURES: dict[str, Exception | None] = {
    "empty_structure": InvalidInput(
        "No shape was found.", code="structure_empty", next_step="Try another seed."
    ),
    "no_gpu_memory": OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "gpu_gone": RuntimeError("No CUDA GPUs are available"),
    "defect": ZeroDivisionError("division by zero"),
    "killed": None,
}


class Failing:
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(
        self, context: RunContext, inputs: Sequence[InputFile], options: object
    ) -> PipelineResult:
        if (failure := FAILURES[self.name]) is not None:
            raise failure
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory ends
        raise AssertionError("still here")


def __getattr__(name: str) -> object:
    """`load_<failure>` for each of them."""
    failure = name.removeprefix("load_")
    if failure == name or failure not in FAILURES:
        raise AttributeError(name)

    def load(device: str) -> Pipeline:
        return Failing(failure)

    return load


MODULE = "tests.service.http.failing_runner"
TABLE = (
    *PIPELINES,
    *(
        replace(find_pipeline("mesh"), name=name, loader=f"{MODULE}:load_{name}")
        for name in FAILURES
    ),
)

if __name__ == "__main__":
    # Without the splat pipeline, which it would load whenever it starts again.
    table = tuple(entry for entry in TABLE if entry.task == "mesh")
    Runner(sys.argv[1], int(sys.argv[2]), table).serve()
