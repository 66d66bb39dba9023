"""This machine's GPUs and driver, as the driver itself tells them.

Knows nothing of what is installed. libcuda is asked in a child process: a process that has
initialised CUDA must not fork, and the service does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from service.guard.targets import Target

DRIVER_SECONDS = 20.0
KERNEL_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """One GPU that CUDA shows us."""

    index: int
    name: str
    target: Target
    memory_bytes: int

    def __str__(self) -> str:
        return f"{self.name} ({self.target})"


@dataclass(frozen=True)
class Machine:
    """What libcuda and the kernel module say.

    cuda:    the newest CUDA libcuda serves, (12, 8); None where it cannot be asked
    driver:  version of the kernel module, "550.90.07"; "" where there is none
    library: the file libcuda.so.1 was loaded from; "" where there is none
    fault:   why it cannot be used, with the CUDA error in `code` (0: it is not a CUDA error)
    """

    cuda: tuple[int, int] | None = None
    driver: str = ""
    library: str = ""
    gpus: tuple[Gpu, ...] = ()
    fault: str = ""
    code: int = 0

    @property
    def branch(self) -> int:
        """550 for driver "550.90.07"; 0 where it is not known."""
        match = re.match(r"\d+", self.driver)
        return int(match[0]) if match else 0

    @property
    def compat(self) -> bool:
        """Whether libcuda is the one of a cuda-compat package instead of the driver's own."""
        return "/compat/" in self.library

    @property
    def targets(self) -> list[Target]:
        """The distinct capabilities of its GPUs, oldest first."""
        return sorted({gpu.target for gpu in self.gpus})


def this_machine() -> Machine:
    """Asks libcuda in a child process; never raises."""
    driver = kernel_driver()
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=DRIVER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Machine(driver=driver, fault=f"the driver did not answer in {DRIVER_SECONDS:.0f} s")
    try:
        told = json.loads(child.stdout)
    except ValueError:
        fault = f"asking the driver ended the process ({child.returncode})"
        return Machine(driver=driver, fault=fault)
    # Where /proc does not show the kernel module, the library's file name has its version.
    named = re.search(r"\.so\.(\d+\.\d[\d.]*)$", told["library"])
    major, minor = divmod(told["cuda"], 1000)
    return Machine(
        cuda=(major, minor // 10) if told["cuda"] else None,
        driver=driver or (named[1] if named and "/compat/" not in told["library"] else ""),
        library=told["library"],
        gpus=tuple(
            Gpu(index, name, Target(*capability), memory)
            for index, (name, capability, memory) in enumerate(told["gpus"])
        ),
        fault=told["fault"],
        code=told["code"],
    )


def memory_of(device: str) -> int:
    """Bytes of this GPU's memory; 0 for "cpu", which asks nobody, and where the driver does not
    tell."""
    if not device.startswith("cuda"):
        return 0
    index = int(device.partition(":")[2] or 0)
    return next((gpu.memory_bytes for gpu in this_machine().gpus if gpu.index == index), 0)


def kernel_driver(path: Path = KERNEL_DRIVER) -> str:
    """The loaded kernel module's version, e.g. "550.90.07"; empty without one."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r"\s(\d+\.\d+(?:\.\d+)*)\s", text)
    return match[1] if match else "of unknown version"


def visible_devices() -> str | None:
    """CUDA_VISIBLE_DEVICES as set; None where it is not."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


_ASK = """
import ctypes, json, os
told = {"cuda": 0, "library": "", "gpus": [], "fault": "", "code": 0}
def call(name, *arguments):
    status = getattr(cuda, name)(*arguments)
    if status:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(status, ctypes.byref(text))
        told["code"] = status
        words = (text.value or b"unknown").decode()
        raise RuntimeError(f"{name}: error {status}, {words}")
number = ctypes.c_int()
def integer(name, *arguments):
    call(name, ctypes.byref(number), *arguments)
    return number.value
try:
    cuda = ctypes.CDLL("libcuda.so.1")
    with open("/proc/self/maps") as maps:
        files = [line.split(None, 5)[5].strip() for line in maps if "libcuda.so" in line]
    told["library"] = os.path.realpath(files[0]) if files else "libcuda.so.1"
    told["cuda"] = integer("cuDriverGetVersion")
    call("cuInit", 0)
    for index in range(integer("cuDeviceGetCount")):
        device = integer("cuDeviceGet", index)
        name = ctypes.create_string_buffer(256)
        call("cuDeviceGetName", name, 256, device)
        memory = ctypes.c_size_t()
        call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        capability = [integer("cuDeviceGetAttribute", which, device) for which in (75, 76)]
        told["gpus"].append([name.value.decode(errors="replace"), capability, memory.value])
except OSError as error:
    told["fault"] = "no NVIDIA driver library (libcuda.so.1)"
    if "libcuda.so.1: cannot open" not in str(error):
        told["fault"] += f": {error}"
except (RuntimeError, AttributeError) as error:
    if told["code"] == 100:  # no device: the driver is sound, and shows none
        told["code"] = 0
    else:
        told["fault"] = str(error)
print(json.dumps(told))
"""
