"""What an exception means for its job: the code, and who can mend it."""

from __future__ import annotations

import errno
import os

import pytest

from models.context import InvalidInput, PipelineError, Unavailable
from service.errors import PipelineUnavailable
from service.jobs.faults import fault_of
from service.jobs.records import Fault


class OutOfMemoryError(RuntimeError):
    """Named like torch's and CuPy's."""


class CUDARuntimeError(RuntimeError):
    """Named like CuPy's."""


GONE = "cudaErrorNoDevice: no CUDA-capable device is detected"
CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "code", "fault"),
    [
        (InvalidInput("a", code="image_empty"), "image_empty", Fault.INPUT),
        (Unavailable("a", code="weights_missing"), "weights_missing", Fault.SETUP),
        (PipelineUnavailable("a"), "pipeline_unavailable", Fault.SETUP),
        (PipelineError("a", code="mesh_unsound"), "mesh_unsound", Fault.DEFECT),
        (MemoryError(), "out_of_memory", Fault.SETUP),
        (RuntimeError(CPU_ALLOCATOR), "out_of_memory", Fault.SETUP),
        (OutOfMemoryError("CUDA out of memory."), "out_of_memory", Fault.SETUP),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory", Fault.SETUP),
        (RuntimeError("No CUDA GPUs are available"), "device_lost", Fault.OUTAGE),
        (CUDARuntimeError(GONE), "device_lost", Fault.OUTAGE),
        (RuntimeError("CUDA error: uncorrectable ECC error"), "device_lost", Fault.OUTAGE),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "worker_storage", Fault.OUTAGE),
        (FileNotFoundError(errno.ENOENT, "gone"), "pipeline_bug", Fault.DEFECT),
        (RuntimeError("CUDA error: an illegal memory access"), "pipeline_bug", Fault.DEFECT),
        (ValueError("no CUDA GPUs are available"), "pipeline_bug", Fault.DEFECT),
    ],
)
def test_who_can_mend_it(error: Exception, code: str, fault: Fault) -> None:
    found = fault_of(error, "trellis")
    assert (found.code, found.fault) == (code, fault)
    assert found.message


def test_a_libraries_words_stay_in_the_log() -> None:
    """What a user sees names no path and no address of the machine."""
    found = fault_of(RuntimeError("secret at /srv/models"), "trellis")
    assert "secret" not in found.message + found.next_step
    assert "trellis" in found.message and "RuntimeError" in found.message


def test_what_was_missing_at_the_door_is_asked_for_in_the_same_words() -> None:
    at_the_door = PipelineUnavailable("Weights are not here.", next_step="Run `pull`.")
    found = fault_of(at_the_door, "trellis")
    assert (found.message, found.code) == (at_the_door.message, at_the_door.code)
    assert found.next_step.startswith(at_the_door.next_step)
