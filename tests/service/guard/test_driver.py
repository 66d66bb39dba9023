"""D1 to D5, R1 to R3 and R5: the driver, the GPUs, what they leave to choose, and the traps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.guard import knowledge
from service.guard.choices import Choices, choose
from service.guard.driver import check_driver, installed_cuda
from service.guard.findings import Finding, Severity
from service.guard.machine import Gpu, Machine, kernel_driver
from service.guard.stack import check_start
from service.guard.targets import Target
from service.guard.traps import check_traps

T4 = Gpu(0, "Tesla T4", Target(7, 5), 16 << 30)
A10G = Gpu(0, "NVIDIA A10G", Target(8, 6), 24 << 30)
RTX_5090 = Gpu(0, "NVIDIA GeForce RTX 5090", Target(12, 0), 32 << 30)
H200 = Gpu(0, "NVIDIA H200", Target(9, 0), 141 << 30)
V100 = Gpu(0, "Tesla V100", Target(7, 0), 16 << 30)
VERSION_FILE = b"__version__ = '2.8.0+cu128'\ncuda: Optional[str] = '12.8'\n"


def machine(gpu: Gpu, cuda: tuple[int, int], driver: str, **more: Any) -> Machine:
    library = f"/usr/lib/x86_64-linux-gnu/libcuda.so.{driver}"
    return (
        Machine(cuda=cuda, driver=driver, library=library, gpus=(gpu,))
        if not more
        else replace(Machine(cuda=cuda, driver=driver, library=library, gpus=(gpu,)), **more)
    )


def faults(findings: Any) -> list[Finding]:
    return [item for item in findings if item.severity in (Severity.WARNING, Severity.FATAL)]


@pytest.fixture
def cuda_12(fake_environment: Any) -> Any:
    fake_environment.install("torch", "2.8.0", {"torch/version.py": VERSION_FILE})
    return fake_environment


# -- D ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "image"),
    [
        (T4, "al2-ami-sagemaker-inference-gpu-3-1"),
        (A10G, "al2-ami-sagemaker-inference-gpu-3-1"),
        (RTX_5090, "al2023-ami-sagemaker-inference-gpu-4-1"),
    ],
)
def test_the_default_host_of_sagemaker_is_too_old_for_cuda_12(
    cuda_12: Any, gpu: Gpu, image: str
) -> None:
    host = machine(gpu, (11, 4), "470.256.02")
    (finding,) = faults(check_driver(host, cuda_12.read()))
    assert (finding.check, finding.severity) == ("D2", Severity.FATAL)
    assert finding.message == (
        "Host driver 470.256.02 supports CUDA 11.4; this image needs CUDA 12 (driver >= 525)."
    )
    assert finding.remedy == (
        f"Update the host's driver to >= 525. On SageMaker set InferenceAmiVersion={image}."
    )


def test_an_older_driver_of_the_same_major_runs_machine_code(cuda_12: Any) -> None:
    found = list(check_driver(machine(A10G, (12, 4), "550.90.07"), cuda_12.read()))
    assert faults(found) == []
    (told,) = [item for item in found if item.check == "D2"]
    assert told.message == (
        "Host driver 550.90.07 supports CUDA 12.4; installed is CUDA 12.8: machine code runs, PTX "
        "that it wrote needs driver >= 570."
    )


def test_compat_on_a_card_that_does_not_allow_it() -> None:
    host = machine(
        RTX_5090,
        (12, 8),
        "570.86.15",
        library="/usr/local/cuda/compat/libcuda.so.580.65.06",
    )
    (finding,) = faults(check_driver(host))
    assert (finding.check, finding.severity) == ("D3", Severity.FATAL)
    assert finding.message == (
        "LD_LIBRARY_PATH points to cuda-compat; NVIDIA GeForce RTX 5090 does not support forward "
        "compatibility."
    )
    assert finding.remedy == (
        "Remove /usr/local/cuda/compat from LD_LIBRARY_PATH, or update the host's driver and use "
        "its own libcuda."
    )


@pytest.mark.parametrize(
    ("code", "driver", "library", "message"),
    [
        (804, "", "/usr/local/cuda/compat/libcuda.so.570.1", "(CUDA error 804)."),
        (803, "580.1", "/usr/local/cuda/compat/libcuda.so.550.1", "(CUDA error 803)."),
        (0, "580.1", "/usr/local/cuda/compat/libcuda.so.550.1", ", which is newer."),
    ],
)
def test_compat_that_does_not_fit(code: int, driver: str, library: str, message: str) -> None:
    fault = f"cuInit: error {code}" if code else ""
    host = Machine((12, 4), driver, library, () if code else (T4,), fault, code)
    (finding,) = faults(check_driver(host))
    assert finding.check == "D3"
    assert finding.message.endswith(message)


def test_compat_where_it_is_meant_to_be() -> None:
    host = machine(T4, (12, 8), "470.1", library="/usr/local/cuda/compat/libcuda.so.570.1")
    assert faults(check_driver(host)) == []


@pytest.mark.parametrize(
    ("gpu", "variant", "tag"),
    [(T4, "sm_86", "sm_75"), (RTX_5090, "sm_75", "sm_120"), (H200, "sm_75", "sm_86")],
)
def test_the_wrong_image(gpu: Gpu, variant: str, tag: str) -> None:
    (finding,) = faults(check_driver(machine(gpu, (13, 0), "580.1"), variant=variant))
    assert (finding.check, finding.severity) == ("D4", Severity.WARNING)
    assert finding.message == f"This is the {variant} image; the GPU is {gpu}."
    assert finding.remedy == f"Pull the image whose tag ends in {tag}."


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0)])
def test_the_image_for_sm_86_serves_ampere_ada_and_hopper(capability: tuple[int, int]) -> None:
    gpu = Gpu(0, "some GPU", Target(*capability), 24 << 30)
    assert faults(check_driver(machine(gpu, (12, 4), "550.1"), variant="sm_86")) == []


def test_no_image_is_for_volta() -> None:
    (finding,) = faults(check_driver(machine(V100, (12, 4), "550.1"), variant="sm_75"))
    assert finding.remedy == "Use the CPU image."


def test_no_driver_is_a_fault_only_where_a_gpu_is_asked_for() -> None:
    none = Machine(fault="no NVIDIA driver library (libcuda.so.1)")
    (told,) = check_driver(none)
    assert (told.check, told.severity) == ("D1", Severity.INFO)
    (asked,) = check_driver(none, devices="cuda:0")
    assert asked.severity is Severity.FATAL
    assert asked.remedy == (
        "No NVIDIA driver in the container. Start it with --gpus all (Docker) or the nvidia "
        "runtime class."
    )
    (half,) = check_driver(replace(none, driver="550.90.07"))
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in half.remedy


def test_no_visible_gpu() -> None:
    host = Machine((12, 8), "570.1", "libcuda.so.1")
    *_, gpu = check_driver(host, devices="cuda", visible="")
    assert (gpu.check, gpu.severity) == ("D5", Severity.FATAL)
    assert gpu.message == "no GPU is visible: CUDA_VISIBLE_DEVICES is ''"


def test_the_kernel_driver_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    assert kernel_driver(file) == "570.86.15"
    assert kernel_driver(tmp_path / "absent") == ""


@pytest.mark.parametrize(
    ("files", "cuda"),
    [
        ({"torch/version.py": b"cuda: Optional[str] = '12.8'\n"}, (12, 8)),
        ({"torch/version.py": b"cuda = None\n"}, None),
        ({"torch/version.py": b"\xff\x00 damaged"}, None),
        ({}, None),
    ],
)
def test_torchs_cuda_is_read_from_its_files(
    fake_environment: Any, files: dict[str, bytes], cuda: tuple[int, int] | None
) -> None:
    fake_environment.install("torch", "2.8.0", files)
    assert installed_cuda(fake_environment.read()) == cuda


# -- R ---------------------------------------------------------------------------------------


def test_a_t4_computes_in_float16_with_pytorchs_own_attention(fake_environment: Any) -> None:
    env = fake_environment
    for name, version in (("torch", "2.8.0"), ("flash-attn", "2.8.3"), ("triton", "3.4.0")):
        env.install(name, version)
    choices, told = choose(env.read(), [T4.target], dtype="bfloat16")
    assert choices == Choices("cuda", "float16", "sdpa", False)
    assert {item.check: item.message for item in faults(told)} == {
        "R1": "bf16 is emulated and slow on sm_75. Using float16.",
        "R2": "flash-attn 2.8.3 does not support sm_75: FlashAttention only supports Ampere GPUs "
        "or newer. Using sdpa.",
        "R3": "triton 3.4.0 does not support sm_75. torch.compile is off.",
    }


@pytest.mark.parametrize(
    ("gpu", "packages", "asked", "attention"),
    [
        (A10G, {"flash-attn": "2.8.3", "xformers": "0.0.32.post2"}, "auto", "flash-attn"),
        (A10G, {"xformers": "0.0.32.post2"}, "auto", "xformers"),
        (A10G, {"xformers": "0.0.32.post2"}, "flash-attn", "xformers"),
        (A10G, {"flash-attn": "2.8.3"}, "sdpa", "sdpa"),
        (T4, {"xformers": "0.0.29.post3"}, "auto", "xformers"),
        (RTX_5090, {"xformers": "0.0.34"}, "auto", "sdpa"),
        (RTX_5090, {"flash-attn": "2.8.3", "xformers": "0.0.34"}, "xformers", "sdpa"),
        (A10G, {}, "auto", "sdpa"),
        (A10G, {"triton": "3.4.0"}, "triton", "triton"),
        (A10G, {"triton": "3.4.0"}, "auto", "sdpa"),
        (A10G, {"flash-attn": "2.8.3"}, "triton", "flash-attn"),
    ],
)
def test_attention(
    fake_environment: Any, gpu: Gpu, packages: dict[str, str], asked: str, attention: str
) -> None:
    fake_environment.install("torch", "2.8.0")
    for name, version in packages.items():
        fake_environment.install(name, version)
    choices, told = choose(fake_environment.read(), [gpu.target], attention=asked)
    assert choices.attention == attention
    assert choices.dtype == ("float16" if gpu is T4 else "bfloat16")
    told_so = [item for item in faults(told) if item.check == "R2"]
    assert bool(told_so) == (
        asked not in ("auto", attention) or "xformers" in packages and attention == "sdpa"
    )


def test_what_the_audit_refused_is_not_chosen(fake_environment: Any) -> None:
    for name, version in (("torch", "2.8.0"), ("flash-attn", "2.8.3")):
        fake_environment.install(name, version)
    choices, told = choose(fake_environment.read(), [A10G.target], refused={"flash-attn"})
    assert choices.attention == "sdpa"
    assert faults(told)[0].message == (
        "flash-attn 2.8.3 carries no code for these GPUs. Using sdpa."
    )


def test_the_slowest_of_several_gpus_decides(fake_environment: Any) -> None:
    fake_environment.install("torch", "2.8.0")
    choices, _ = choose(fake_environment.read(), [A10G.target, T4.target])
    assert choices.dtype == "float16"


def test_without_a_gpu_the_cpu_computes(fake_environment: Any) -> None:
    assert choose(fake_environment.read(), []) == (Choices("cpu", "float32", "sdpa", False), [])


# -- the start -------------------------------------------------------------------------------


def test_a_gpu_that_torch_cannot_use_is_refused_or_left_alone_as_set(cuda_12: Any) -> None:
    """A driver too old: `cuda` refuses, `auto` serves from the CPU and says so."""
    host = machine(A10G, (11, 4), "470.256.02")
    asked, _ = check_start(cuda_12.read(), host, devices="cuda", cache=cuda_12.root / "cache")
    assert Severity.FATAL in {item.severity for item in asked}
    found, choices = check_start(cuda_12.read(), host, cache=cuda_12.root / "cache")
    assert Severity.FATAL not in {item.severity for item in found}
    assert choices.device == "cpu"
    assert any("(everything runs on the CPU)" in item.message for item in found)


def test_a_torch_without_code_for_the_gpu(fake_environment: Any) -> None:
    env = fake_environment
    env.install("torch", "2.8.0", {"torch/version.py": b"cuda = None\n", "torch/lib/x.so": b""})
    env.install("xformers", "0.0.32.post2")
    host = machine(A10G, (12, 8), "570.86.15")
    asked, _ = check_start(env.read(), host, devices="cuda:0", cache=env.root / "cache")
    severity = {item.subject: item.severity for item in asked if item.check == "A4"}
    # Without xformers another attention serves; without torch nothing does.
    assert severity == {
        "torch 2.8.0": Severity.FATAL,
        "xformers 0.0.32.post2": Severity.WARNING,
    }
    found, choices = check_start(env.read(), host, cache=env.root / "cache")
    assert {item.severity for item in found if item.check == "A4"} == {Severity.WARNING}
    assert choices.device == "cpu"


def test_environment_traps() -> None:
    traps = {
        "CUDA_FORCE_PTX_JIT": "1",
        "LD_PRELOAD": "/x/libcuda.so.1",
        "LD_LIBRARY_PATH": "/usr/local/cuda/compat",
    }
    found = list(check_traps(traps))
    assert [item.subject for item in found] == list(traps)
    assert found[0].message == "CUDA_FORCE_PTX_JIT=1 changes which CUDA code runs."
    assert list(check_traps({"CUDA_FORCE_PTX_JIT": "0", "LD_LIBRARY_PATH": "/opt/x"})) == []
    (toolkit,) = check_traps({"LD_LIBRARY_PATH": "/usr/local/cuda-12.4/lib64"})
    assert "before those of the wheels" in toolkit.message


# -- knowledge -------------------------------------------------------------------------------


def test_the_table_answers() -> None:
    assert knowledge.first_release("torch", "sm_120") == "2.8.0"
    assert knowledge.first_release("torch", "sm_75") is None  # the oldest audited one has it
    assert knowledge.last_release("torch", "sm_75") == "2.10.0"
    assert knowledge.last_release("torch", "sm_52") == "2.7.1"  # sm_50 code runs on 5.2
    assert knowledge.last_release("torch", "sm_70") == "2.10.0"
    assert knowledge.native_driver((12, 4)) == "550"
    assert knowledge.native_driver((12, 7)) == "570"
    assert knowledge.minimum_driver(12) == "525"
    assert knowledge.pinned_by("xformers", "torch==2.6.0") == "0.0.29.post3"


def test_every_row_has_its_source_and_date() -> None:
    tables = knowledge._tables()
    rows = [row for table in tables.values() if isinstance(table, list) for row in table]
    assert len(rows) > 80
    for row in rows:
        assert row["source"], row
        assert row["date"].startswith("20"), row
