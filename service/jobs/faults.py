"""What an exception of a step means for its job: words, code, next step, and who can mend it.

Knows no pipeline. Exceptions of torch and CuPy, which are not imported here, are told by their
names and words.
"""

from __future__ import annotations

import errno

from models.context import InvalidInput, PipelineError, Unavailable
from service.errors import PipelineUnavailable
from service.jobs.records import Fault, JobError

STORAGE_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})

NO_MEMORY = ("can't allocate memory", "not enough memory")
"""Of torch on a CPU, which raises no MemoryError."""
NO_GPU_MEMORY = ("cuda error: out of memory", "cublas_status_alloc_failed")
"""Of torch where it is not its own allocator that finds none: another process holds the memory."""
GPU_LOST = (
    "no cuda gpus are available",
    "no cuda-capable device",
    "found no nvidia driver",
    "devices are busy or unavailable",
    "uncorrectable ecc error",
    "cuda unknown error",
    "cuda error: unknown error",
    "cudaerrorunknown",
)
"""The driver's and torch's words for a GPU that has gone. A launch failure or an illegal address
is not among them: that is a kernel's defect."""


def fault_of(error: Exception, pipeline: str) -> JobError:
    """The job's error, where its step of this pipeline ended with `error`."""
    if isinstance(error, PipelineUnavailable):
        next_step = f"{error.next_step} Then submit the job again."
        return JobError(error.message, error.code, next_step, Fault.SETUP)
    if isinstance(error, PipelineError):
        return JobError(error.message, error.code, error.next_step, _blame(error))
    text = str(error).lower()
    if isinstance(error, MemoryError) or _says(error, text, NO_MEMORY):
        return JobError(
            "The job needs more memory than this worker has.",
            code="out_of_memory",
            next_step="Send a smaller file, or give the worker more memory.",
            fault=Fault.SETUP,
        )
    if type(error).__name__ == "OutOfMemoryError" or _says(error, text, NO_GPU_MEMORY):
        return JobError(
            "The job needs more memory than the GPU has free.",
            code="out_of_memory",
            next_step="Set MESHPRESS_OFFLOAD=on, or run fewer other processes on it.",
            fault=Fault.SETUP,
        )
    if _says(error, text, GPU_LOST):
        return JobError(
            f"The worker's GPU can no longer be used ({type(error).__name__}).",
            code="device_lost",
            next_step="Submit the job again; `meshpress doctor` on the worker's machine tells "
            "whether the GPU is back.",
            fault=Fault.OUTAGE,
        )
    if isinstance(error, OSError) and error.errno in STORAGE_FAULTS:
        return JobError(
            f"The worker could not store the job's files: {error.strerror}.",
            code="worker_storage",
            next_step="Free space where DATA_DIR lies, then submit again.",
            fault=Fault.OUTAGE,
        )
    return JobError(
        f"The pipeline {pipeline!r} failed unexpectedly ({type(error).__name__}).",
        code="pipeline_bug",
        next_step="Please report this with the worker's log.",
    )


def _blame(error: PipelineError) -> Fault:
    if isinstance(error, InvalidInput):
        return Fault.INPUT
    return Fault.SETUP if isinstance(error, Unavailable) else Fault.DEFECT


def _says(error: Exception, text: str, words: tuple[str, ...]) -> bool:
    """Native libraries' errors are RuntimeErrors, in torch and CuPy alike."""
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in words)
