"""The driver serves this CUDA on these GPUs: checks D1 to D5.

Knows a Machine and which CUDA is installed; asks nobody. Remedies name SageMaker's host images,
since there the driver is chosen by a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from service.guard import knowledge
from service.guard.findings import Finding, fatal, info, ok, warning
from service.guard.installed import Environment
from service.guard.machine import Machine
from service.guard.targets import Target

# Forward compatibility is for data-centre GPUs, some NGC-ready RTX cards and Jetson.
_CONSUMER = re.compile(r"GeForce|TITAN|RTX \d0\d0|GTX")
# The oldest GPU an image is for: sm_86's stack has code for 8.0 and 9.0 too, sm_120's for 10.0.
IMAGES = {Target(7, 5): "sm_75", Target(8, 0): "sm_86", Target(10, 0): "sm_120"}
_DEFAULT_IMAGE = "al2-ami-sagemaker-inference-gpu-3-1"


def check_driver(
    machine: Machine,
    environment: Environment | None = None,
    *,
    devices: str = "auto",
    variant: str = "",
    visible: str | None = None,
) -> Iterator[Finding]:
    """D1 to D5. Without a GPU, that is a fact, and a fault only where `devices` asks for one.

    environment: what is installed; None: only whether there is a GPU
    variant:     the target this image was built for, "" where it is no image
    visible:     CUDA_VISIBLE_DEVICES
    """
    asked = "cuda" in devices
    if machine.compat or machine.code in (803, 804):
        yield from _compat(machine)
    if machine.fault:
        if machine.code not in (803, 804):
            yield _unusable(machine, asked)
        return
    cuda = ".".join(map(str, machine.cuda or ()))
    yield ok("D1", "libcuda", f"CUDA {cuda}, driver {machine.driver or 'of unknown version'}")
    toolkit = installed_cuda(environment) if environment is not None else None
    if toolkit is not None:
        yield _serves(machine, toolkit)
    if not machine.gpus:
        told = f"CUDA_VISIBLE_DEVICES is {visible!r}" if visible is not None else "none is exposed"
        yield (fatal if asked else warning)(
            "D5",
            "cuda",
            f"no GPU is visible: {told}",
            "Unset CUDA_VISIBLE_DEVICES, or expose one.",
        )
    for gpu in machine.gpus:
        memory = f"{gpu.memory_bytes / 2**30:.0f} GiB"
        capability = [gpu.target.major, gpu.target.minor]
        what = f"{gpu.name}, {gpu.target}, {memory}"
        yield ok("D5", f"cuda:{gpu.index}", what, capability=capability)
        if variant and variant != "cpu":
            yield from _variant(gpu.name, gpu.target, Target.parse(variant), gpu.index)


def installed_cuda(environment: Environment) -> tuple[int, int] | None:
    """The CUDA that is installed: of torch's files, else of the runtime's package."""
    torch = environment.distributions.get("torch")
    if torch is not None:
        try:
            text = torch.path_of("torch/version.py").read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""  # a damaged torch: A4 and the imports say so
        match = re.search(r"^cuda\b[^=]*=\s*['\"](\d+)\.(\d+)", text, re.MULTILINE)
        if match:
            return int(match[1]), int(match[2])
    for name, package in environment.distributions.items():
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?", name):
            numbers = re.findall(r"\d+", package.version)
            return (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else None
    return None


def _unusable(machine: Machine, asked: bool) -> Finding:
    """D1: no libcuda, or one that does not start."""
    present = bool(machine.driver)
    message = machine.fault + (f"; kernel driver {machine.driver}" if present else "")
    if not asked and not present:
        return info("D1", "libcuda", f"{message}: everything runs on the CPU")
    remedy = (
        "No NVIDIA driver in the container. Start it with --gpus all (Docker) or the nvidia "
        "runtime class."
        if not present
        else "The kernel driver is loaded but libcuda is not usable: set "
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility and check CUDA_VISIBLE_DEVICES."
    )
    return (fatal if asked else warning)("D1", "libcuda", message, remedy)


def _serves(machine: Machine, toolkit: tuple[int, int]) -> Finding:
    """D2: CUDA 12 needs a driver of CUDA 12, and PTX one of the toolkit that wrote it."""
    have = machine.cuda or (0, 0)
    need, native = knowledge.minimum_driver(toolkit[0]), knowledge.native_driver(toolkit)
    told = f"Host driver {machine.driver or 'of unknown version'} supports CUDA {_dotted(have)}"
    if have[0] < toolkit[0]:
        images = [knowledge.host_image(str(target)) for target in machine.targets]
        image = next(filter(None, reversed(images)), _DEFAULT_IMAGE)
        return fatal(
            "D2",
            "driver",
            f"{told}; this image needs CUDA {toolkit[0]} (driver >= {need}).",
            f"Update the host's driver to >= {need}. On SageMaker set InferenceAmiVersion={image}.",
            needed=need,
        )
    if have < toolkit:
        # Minor-version compatibility: machine code runs; what the driver must compile may not.
        return info(
            "D2",
            "driver",
            f"{told}; installed is CUDA {_dotted(toolkit)}: machine code runs, PTX that it wrote "
            f"needs driver >= {native}.",
        )
    return ok("D2", "driver", f"serves CUDA {_dotted(toolkit)}")


def _compat(machine: Machine) -> Iterator[Finding]:
    """D3: a cuda-compat libcuda where the GPU or the host's driver does not allow one."""
    consumer = next((gpu for gpu in machine.gpus if _CONSUMER.search(gpu.name)), None)
    own = re.search(r"\.so\.(\d+)", machine.library)
    older = own is not None and machine.branch > int(own[1])
    if machine.code == 804 or consumer is not None:
        gpu = consumer.name if consumer is not None else "this GPU"
        message = f"LD_LIBRARY_PATH points to cuda-compat; {gpu} does not support forward "
        message += "compatibility" + (" (CUDA error 804)." if machine.code == 804 else ".")
    elif machine.code == 803 or older:
        message = f"{machine.library or 'libcuda'} does not fit the host's driver "
        message += f"{machine.driver or 'of unknown version'}"
        message += " (CUDA error 803)." if machine.code == 803 else ", which is newer."
    else:
        yield ok("D3", "cuda-compat", f"{machine.library} is in use, as this GPU allows")
        return
    yield fatal(
        "D3",
        "cuda-compat",
        message,
        "Remove /usr/local/cuda/compat from LD_LIBRARY_PATH, or update the host's driver and use "
        "its own libcuda.",
        library=machine.library,
    )


def _variant(name: str, target: Target, variant: Target, index: int) -> Iterator[Finding]:
    """D4: the image is the one for this GPU. The audit says whether it runs all the same."""
    fitting = [tag for oldest, tag in IMAGES.items() if oldest <= target]
    own_line = target.major == variant.major and target.minor >= variant.minor
    if own_line or str(variant) in fitting[-1:]:
        return
    yield warning(
        "D4",
        f"cuda:{index}",
        f"This is the {variant} image; the GPU is {name} ({target}).",
        f"Pull the image whose tag ends in {fitting[-1]}." if fitting else "Use the CPU image.",
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
