"""The GPU as the driver tells it, and torch as its files tell it. Neither is imported here.

Knows nothing of kernels. libcuda is asked in a child process: a process that has initialised CUDA
must not fork, and the service does.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from service.guard.findings import Finding, fatal, info, ok, warning

DRIVER_SECONDS = 20.0
DRIVER_VERSION = Path("/proc/driver/nvidia/version")
TRAPS = ("CUDA_DISABLE_PTX_JIT", "CUDA_FORCE_PTX_JIT")


def check_driver(devices: str = "auto") -> Iterator[Finding]:
    """A usable GPU is there if `devices` asks for one; without one, that is a fact, not a fault."""
    asked = "cuda" in devices
    facts = ask_driver()
    if "error" in facts:
        kernel = kernel_driver()
        message = f"{facts['error']}" + (f"; kernel driver {kernel}" if kernel else "")
        if not asked and not kernel:
            yield info("driver", "libcuda", f"{message}: everything runs on the CPU")
            return
        remedy = (
            "Start the container with --gpus all (Docker) or the nvidia runtime class."
            if not kernel
            else "The kernel driver is loaded but libcuda is not usable: set "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility and check CUDA_VISIBLE_DEVICES."
        )
        yield (fatal if asked else warning)("driver", "libcuda", message, remedy)
        return
    major, minor = divmod(int(facts["cuda"]), 1000)
    version = f"CUDA {major}.{minor // 10}, driver {kernel_driver() or 'unknown'}"
    yield ok("driver", "libcuda", version, **facts)
    if not facts["devices"]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        told = f"CUDA_VISIBLE_DEVICES is {visible!r}" if visible is not None else "none is exposed"
        yield (fatal if asked else warning)(
            "gpu",
            "cuda",
            f"no GPU is visible: {told}",
            "Unset CUDA_VISIBLE_DEVICES, or expose one.",
        )
    for index, device in enumerate(facts["devices"]):
        capability = "sm_{}{}".format(*device["capability"])
        memory = f"{device['memory_bytes'] / 2**30:.0f} GiB"
        yield ok("gpu", f"cuda:{index}", f"{device['name']}, {capability}, {memory}", **device)


def check_torch() -> Iterator[Finding]:
    """Which torch is installed and for which CUDA, read from its files."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        yield info("torch", "torch", "not installed; the pipelines of the base install need none")
        return
    cuda = torch_cuda()
    yield info(
        "torch", "torch", f"{version}, {f'built for CUDA {cuda}' if cuda else 'without CUDA'}"
    )


def check_traps(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Variables that silently change which CUDA code runs."""
    for name in TRAPS:
        if environment.get(name, "0") != "0":
            yield warning(
                "environment",
                name,
                f"is {environment[name]!r}: it changes which CUDA code runs",
                f"unset {name}",
            )
    libraries = environment.get("LD_LIBRARY_PATH", "")
    if "/compat" in libraries:
        yield warning(
            "environment",
            "LD_LIBRARY_PATH",
            f"is {libraries!r}: the CUDA compat library serves data-centre GPUs only",
            "Remove the compat folder from it unless the host's driver is older than the image's "
            "CUDA and the GPU is a data-centre one.",
        )


def kernel_driver(path: Path = DRIVER_VERSION) -> str:
    """The loaded kernel driver's version, e.g. "550.90.07"; empty without one."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r"\s(\d+\.\d+(?:\.\d+)*)\s", text)
    return match[1] if match else "of unknown version"


def torch_cuda() -> str:
    """The CUDA version in torch/version.py, e.g. "12.8"; empty for a CPU build."""
    spec = importlib.util.find_spec("torch")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        try:
            text = (Path(folder) / "version.py").read_text(encoding="utf-8")
        except OSError:
            continue
        match = re.search(r"^cuda\b[^=]*=\s*['\"]([0-9.]+)['\"]", text, re.MULTILINE)
        return match[1] if match else ""
    return ""


def ask_driver() -> dict[str, Any]:
    """{"cuda": 12080, "devices": [{name, capability, memory_bytes}]} or {"error": why}."""
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=DRIVER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"the driver did not answer in {DRIVER_SECONDS:.0f} s"}
    try:
        return dict(json.loads(child.stdout))
    except ValueError:
        return {"error": f"asking the driver ended the process ({child.returncode})"}


_ASK = """
import ctypes, json
def ask():
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"error": "no NVIDIA driver library (libcuda.so.1)"}
    def call(name, *arguments):
        status = getattr(cuda, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            cuda.cuGetErrorString(status, ctypes.byref(text))
            raise RuntimeError(f"{name}: error {status}, {(text.value or b'unknown').decode()}")
    number = ctypes.c_int()
    def integer(name, *arguments):
        call(name, ctypes.byref(number), *arguments)
        return number.value
    try:
        version = integer("cuDriverGetVersion")
        try:
            call("cuInit", 0)
        except RuntimeError as error:
            if "error 100," not in str(error):
                raise
            return {"cuda": version, "devices": []}
        devices = []
        for index in range(integer("cuDeviceGetCount")):
            device = integer("cuDeviceGet", index)
            name = ctypes.create_string_buffer(256)
            call("cuDeviceGetName", name, 256, device)
            memory = ctypes.c_size_t()
            call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
            capability = [integer("cuDeviceGetAttribute", which, device) for which in (75, 76)]
            devices.append({"name": name.value.decode(errors="replace"), "capability": capability,
                            "memory_bytes": memory.value})
        return {"cuda": version, "devices": devices}
    except (RuntimeError, AttributeError) as error:
        return {"error": str(error)}
print(json.dumps(ask()))
"""
