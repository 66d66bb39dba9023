"""The guard's verdict from the files alone is what happens on the GPU: refused, JIT or native.

Libraries are compiled here with nvcc, each for one choice of targets, put into a package of an
otherwise empty environment, judged for this GPU, and then launched in a process each.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.guard.audit import audit_environment
from service.guard.coverage import check_coverage
from service.guard.findings import Severity
from service.guard.installed import environment_at, this_environment
from service.guard.machine import Machine, this_machine
from service.guard.probe import Outcome, check_kernels, probe
from service.guard.targets import Target

pytestmark = pytest.mark.gpu
SOURCE = Path(__file__).parent / "fixtures" / "fill.cu"
NO_IMAGE, JIT_DISABLED = 209, 223  # cudaErrorNoKernelImageForDevice, ...JitCompilationDisabled


def sass(*targets: str) -> list[str]:
    """nvcc's options for machine code: sass("75", "90a")."""
    return [f"-gencode=arch=compute_{target},code=sm_{target}" for target in targets]


def ptx(*targets: str) -> list[str]:
    return [f"-gencode=arch=compute_{target},code=compute_{target}" for target in targets]


# Name -> options. What each does on a GPU is not written here: that is what is compared.
BUILDS: dict[str, list[str]] = {
    "sm_75": sass("75"),
    "sm_80": sass("80"),
    "sm_86": sass("86"),
    "sm_89": sass("89"),
    "sm_90": sass("90"),
    "sm_90a": sass("90a"),
    "sm_100": sass("100"),
    "sm_100a": sass("100a"),
    "sm_120": sass("120"),
    "sm_120f": sass("120f"),
    "sm_75_86_120": sass("75", "86", "120"),
    "sm_75_86_90_120": sass("75", "86", "90", "120"),
    "sm_75_ptx_75": sass("75") + ptx("75"),
    "sm_86_ptx_86": sass("86") + ptx("86"),
    "sm_120_ptx_120": sass("120") + ptx("120"),
    "ptx_75": ptx("75"),
    "ptx_90": ptx("90"),
    "ptx_90a": ptx("90a"),
    "ptx_100": ptx("100"),
    "ptx_120f": ptx("120f"),
    "sm_90_relocatable": ["-rdc=true", *sass("90")],
    "sm_90_compressed": ["--compress-mode=size", *sass("90")],
    "ptx_75_plain": ["--compress-mode=none", *ptx("75")],
}
# Name -> options of the first file and of the second.
TWO_FILES: dict[str, tuple[list[str], list[str]]] = {
    "hole": (sass("75", "90"), sass("75")),
    "hole_filled_by_ptx": (sass("90"), ptx("75")),
    "whole": (sass("90"), sass("80", "90")),
}


@dataclass(frozen=True)
class Built:
    name: str
    site_packages: Path

    @property
    def library(self) -> Path:
        return self.site_packages / self.name / "fill.so"


@pytest.fixture(scope="module")
def machine() -> Machine:
    found = this_machine()
    if not found.gpus:
        pytest.skip("no GPU")
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc")
    root = tmp_path_factory.mktemp("fixtures")

    def compile_one(name: str) -> Built:
        site = root / name / "site-packages"
        package = site / name
        package.mkdir(parents=True)
        out = package / "fill.so"
        common = [compiler, "-cudart", "static", "-Xcompiler", "-fPIC"]
        if name in BUILDS:
            run([*common, "-shared", *BUILDS[name], "-o", out, SOURCE])
        else:
            first, second = TWO_FILES[name]
            run([*common, "-DTWO", *first, "-c", "-o", package / "one.o", SOURCE])
            run([*common, "-DSECOND", *second, "-c", "-o", package / "two.o", SOURCE])
            run([*common, "-shared", "-o", out, package / "one.o", package / "two.o"])
        metadata = site / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "RECORD").write_text(f"{name}/fill.so,,\n")
        return Built(name, site)

    with ThreadPoolExecutor(8) as pool:
        return {item.name: item for item in pool.map(compile_one, [*BUILDS, *TWO_FILES])}


def run(command: list[object]) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def judge(item: Built, target: Target) -> str:
    """The verdict: "refused" (some of it or nothing loads), "jit" or "native"."""
    findings = list(check_coverage(audit_environment(environment_at(item.site_packages)), target))
    wrong = [f for f in findings if f.severity in (Severity.WARNING, Severity.FATAL)]
    checks = {finding.check for finding in wrong}
    assert all(finding.remedy for finding in wrong)
    if checks & {"A1", "A3", "A4"}:
        return "refused"
    return "jit" if "A2" in checks else "native"


@pytest.fixture(scope="module")
def launched(built: dict[str, Built], machine: Machine) -> dict[str, tuple[Outcome, Outcome]]:
    """Each library launched as it is, and with the driver's compiler forbidden."""

    def launch(item: Built) -> tuple[Outcome, Outcome]:
        path = str(item.library)
        return (
            probe("fixture", FIXTURE=path, CUDA_CACHE_DISABLE="1"),
            probe("fixture", FIXTURE=path, CUDA_CACHE_DISABLE="1", CUDA_DISABLE_PTX_JIT="1"),
        )

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(built, pool.map(launch, built.values()), strict=True))


@pytest.mark.parametrize("name", [*BUILDS, *TWO_FILES])
def test_the_verdict_is_what_happens(
    name: str,
    built: dict[str, Built],
    launched: dict[str, tuple[Outcome, Outcome]],
    machine: Machine,
    record_property: Callable[[str, object], None],
) -> None:
    verdict = judge(built[name], machine.gpus[0].target)
    plain, without_jit = launched[name]
    happened = "refused" if not plain.ran else "native" if without_jit.ran else "jit"
    print(f"{name}: verdict {verdict}, happened {happened} ({plain.code}, {without_jit.code})")
    assert verdict == happened, (plain, without_jit)
    assert plain.code in (0, NO_IMAGE), plain
    if happened == "jit":
        assert without_jit.code == JIT_DISABLED, without_jit


def test_the_driver_and_every_library_that_is_here_run_a_kernel(machine: Machine) -> None:
    findings = list(check_kernels(this_environment()))
    print(*findings, sep="\n")
    assert findings[0].subject == "driver"
    assert [item for item in findings if item.severity is not Severity.OK] == []


def test_a_kernel_for_another_gpu_is_explained(
    built: dict[str, Built], machine: Machine, launched: dict[str, tuple[Outcome, Outcome]]
) -> None:
    outcome = launched["sm_75"][0]
    if machine.gpus[0].target.major == 7:
        pytest.skip("this GPU runs sm_75")
    assert outcome.code == NO_IMAGE
    assert "209" in outcome.text
