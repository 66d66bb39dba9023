"""Findings A1 to A4: what is told of a package on a GPU, how bad, and with which remedy."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import pytest

from service.guard.audit import audit_environment
from service.guard.coverage import check_coverage
from service.guard.findings import Finding, Severity
from service.guard.installed import environment_at
from service.guard.targets import Target

LIB = "torch/lib/libtorch_cuda.so"


def findings(site: Any, target: str, expected: Collection[str] = ()) -> list[Finding]:
    audit = audit_environment(environment_at(site.root))
    return list(check_coverage(audit, Target.parse(target), expected))


def faults(site: Any, target: str, expected: Collection[str] = ()) -> list[Finding]:
    """All but what is well."""
    told = findings(site, target, expected)
    return [finding for finding in told if finding.severity is not Severity.OK]


def only(site: Any, target: str, expected: Collection[str] = ()) -> Finding:
    (finding,) = faults(site, target, expected)
    return finding


def test_a_stack_that_fits_is_well(site: Any) -> None:
    site.install("torch", "2.8.0", {LIB: "every"}, {"torch/version.py": "cuda = '12.8'"})
    site.install("nvidia-nccl-cu12", "2.27", {"nvidia/nccl/lib/libnccl.so.2": "hole"})
    told = findings(site, "sm_86")
    assert [finding.severity for finding in told] == [Severity.OK] * 3
    assert {finding.check for finding in told} == {"A1", "A4"}


# -- A1 --------------------------------------------------------------------------------------


def test_a1_names_the_first_release_with_the_target(site: Any) -> None:
    site.install("torch", "2.7.1", {LIB: "hole"})
    finding = only(site, "sm_120")
    assert (finding.check, finding.severity, finding.subject) == (
        "A1",
        Severity.FATAL,
        "torch 2.7.1",
    )
    assert "carries sm_75, sm_86; nothing of it loads on sm_120 (0 of 2" in finding.message
    assert finding.remedy.startswith("Install torch==2.8.0 (first PyPI release with sm_120)")
    assert "TORCH_CUDA_ARCH_LIST=12.0 and nvcc >= 12.8" in finding.remedy
    assert finding.details["libraries"][0] == {
        "file": LIB,
        "codes": ["sm_75", "sm_86"],
        "native": 0,
        "jit": 0,
        "nothing": 2,
    }


def test_a1_names_the_last_release_for_a_card_that_was_dropped(site: Any) -> None:
    site.install("torch", "2.8.0", {LIB: "sass_75"})
    remedy = only(site, "sm_61").remedy
    assert remedy.startswith("Install torch<=2.7.1 (last PyPI release with all of sm_61)")
    assert "nvcc >= 8.0, < 13.0" in remedy


def test_a1_of_another_build_of_a_release_that_has_the_target(site: Any) -> None:
    site.install("torch", "2.8.0+cu126", {LIB: "hole"})
    assert "torch==2.8.0 as PyPI has it" in only(site, "sm_120").remedy


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("flash-attn", "FLASH_ATTN_CUDA_ARCHS=80"),  # 80 serves 8.6: it has no value of its own
        ("spconv-cu120", "CUMM_CUDA_ARCH_LIST=8.6"),
        ("torch-scatter", "TORCH_CUDA_ARCH_LIST=8.6"),
        ("my-own-kernels", "TORCH_CUDA_ARCH_LIST=8.6"),
    ],
)
def test_a1_says_how_to_rebuild_what_no_release_helps(site: Any, name: str, remedy: str) -> None:
    site.install(name, "1.0", {"pkg/_C.so": "sass_90"})
    finding = only(site, "sm_86")
    assert finding.severity is Severity.FATAL
    assert remedy in finding.remedy


def test_kernels_of_an_exact_chip_beside_general_ones_are_no_fault(site: Any) -> None:
    """xformers 0.0.29 brings FlashAttention 3 for sm_90a in a library of its own."""
    site.install("xformers", "0.0.29.post3", {"x/_C.so": "every", "x/_fa3.so": "exact_90a"})
    finding = only(site, "sm_86")
    assert (finding.check, finding.severity) == ("A1", Severity.INFO)
    assert "is for sm_90a, compute_90a alone" in finding.message


def test_kernels_of_an_exact_chip_alone_are_a_fault(site: Any) -> None:
    site.install("flash-attn-3", "3.0", {"x/_fa3.so": "exact_90a"})
    assert only(site, "sm_86").severity is Severity.FATAL


def test_one_of_several_libraries_for_versions_of_cuda_is_enough(site: Any) -> None:
    site.install("bitsandbytes", "0.48", {"b/cuda118.so": "sass_75", "b/cuda128.so": "sass_120"})
    assert faults(site, "sm_120") == []
    assert only(site, "sm_90").severity is Severity.FATAL


def test_vendor_libraries_need_any_container(site: Any) -> None:
    site.install("torch", "2.6.0", {LIB: "every"})
    site.install("nvidia-cublas-cu12", "12.4", {"nvidia/cublas/lib/libcublas.so.12": "hole"})
    assert faults(site, "sm_75") == []  # one of two containers: it chooses
    finding = only(site, "sm_90")
    assert (finding.check, finding.severity) == ("A1", Severity.WARNING)
    assert finding.subject == "nvidia-cublas-cu12"


def test_a_vendor_library_of_a_single_stub_is_passed_over(site: Any) -> None:
    """libcufft.so.11 registers one kernel for sm_52 and keeps the others elsewhere."""
    site.install("nvidia-cufft-cu12", "11", {"nvidia/cufft/lib/libcufft.so.11": "sass_75"})
    assert faults(site, "sm_120") == []


def test_a_library_nobody_owns_is_judged_too(site: Any, compiled: Any) -> None:
    site.install("torch", "2.8.0", {LIB: "every"})
    (site.folder / "mine.so").write_bytes((compiled / "sass_75.so").read_bytes())
    finding = only(site, "sm_86")
    assert (finding.subject, finding.severity) == ("mine.so", Severity.FATAL)
    assert finding.remedy.startswith("Rebuild it with")


# -- A2 --------------------------------------------------------------------------------------


def test_a2_names_the_driver_that_can_compile(site: Any) -> None:
    site.install("spconv-cu124", "2.3.8", {"spconv/core_cc.so": "ptx_75"})
    finding = only(site, "sm_120")
    assert (finding.check, finding.severity) == ("A2", Severity.WARNING)
    assert "only by driver JIT of compute_75 (PTX ISA 9.0): 1 of 1" in finding.message
    assert finding.remedy.startswith("Needs driver >= 580;")
    assert "CUDA_CACHE_PATH" in finding.remedy
    assert finding.details["driver"] == "580"


# -- A3 --------------------------------------------------------------------------------------


def test_a3_a_hole_in_one_library(site: Any) -> None:
    site.install("torch", "2.11.0", {LIB: "every", "torch/lib/libtorch_cuda_linalg.so": "sass_86"})
    finding = only(site, "sm_75")
    assert (finding.check, finding.severity) == ("A3", Severity.WARNING)
    assert "libtorch_cuda_linalg.so: 1 of 1 kernel groups cannot load on sm_75" in finding.message
    assert finding.message.endswith("torch.linalg may fail")
    assert finding.remedy.startswith("Install torch<=2.10.0 (last PyPI release with all of sm_75)")


def test_a3_is_fatal_when_most_of_it_is_missing(site: Any) -> None:
    site.install("x-ops", "1.0", {"a.so": "sass_75", "b.so": "sass_86", "c.so": "sass_86"})
    told = faults(site, "sm_75")
    assert [(item.check, item.severity) for item in told] == [("A3", Severity.FATAL)] * 2


def test_a3_inside_one_library_though_the_union_has_the_target(site: Any) -> None:
    site.install("x-ops", "1.0", {"a.so": "hole"})
    assert "1 of 2 kernel groups cannot load on sm_75" in only(site, "sm_75").message


# -- A4 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "version"),
    [("sm_75", "2.10.0"), ("sm_120", "2.13.0")],  # 2.11 and 2.14 both have sm_120, so 2.13 has
)
def test_a4_a_cpu_build_of_torch(site: Any, target: str, version: str) -> None:
    texts = {"torch/version.py": "cuda: Optional[str] = None"}
    site.install("torch", "2.13.0+cpu", {"torch/lib/libtorch_cpu.so": "link_time"}, texts)
    finding = only(site, target)
    assert (finding.check, finding.severity) == ("A4", Severity.FATAL)
    assert finding.message == "is a CPU build: torch/version.py names no CUDA"
    assert f"--force-reinstall torch=={version}," in finding.remedy
    assert "no CPU wheel index" in finding.remedy


def test_a4_an_extension_whose_wheel_has_no_library(site: Any) -> None:
    site.install("nvdiffrast", "0.4.0", {}, {"nvdiffrast/__init__.py": ""})
    finding = only(site, "sm_120")
    assert (finding.check, finding.severity) == ("A4", Severity.FATAL)
    assert finding.message == "was installed without CUDA code: it holds no shared library"
    assert "TORCH_CUDA_ARCH_LIST=12.0 pip wheel --no-build-isolation" in finding.remedy
    assert "CUDA_HOME=" in finding.remedy


def test_a4_an_extension_built_for_the_cpu(site: Any) -> None:
    site.install("torch-scatter", "2.1.2", {"torch_scatter/_scatter_cpu.so": "no_kernel"})
    assert "shared libraries, none with device code" in only(site, "sm_75").message


def test_a4_a_wheel_from_pypi_is_installed_again(site: Any) -> None:
    site.install("spconv-cu124", "2.3.8")
    remedy = only(site, "sm_75").remedy
    assert remedy == "pip install --force-reinstall spconv-cu124==2.3.8 --no-deps."


def test_a4_what_the_lock_expects(site: Any) -> None:
    site.install("my-kernels", "1.0")
    assert faults(site, "sm_75") == []
    assert only(site, "sm_75", expected={"my-kernels"}).severity is Severity.FATAL


@pytest.mark.parametrize(
    ("requires", "count"), [((), 1), (("libcudf-cu12==25.10", "numpy"), 0), (("numpy",), 1)]
)
def test_a4_a_name_for_cuda_with_nothing_in_it(
    site: Any, requires: tuple[str, ...], count: int
) -> None:
    """dask-cudf-cu12 is pure Python over another's code; a truncated wheel leans on none."""
    site.install("dask-cudf-cu12", "25.10", requires=requires)
    assert [item.severity for item in faults(site, "sm_75")] == [Severity.WARNING] * count


def test_a4_damaged_and_missing_libraries(site: Any) -> None:
    site.install("torch", "2.8.0", {LIB: "every", "torch/lib/b.so": "every", "torch/c.so": "every"})
    damaged = site.folder / "torch/lib/b.so"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    (site.folder / "torch/c.so").unlink()
    told = faults(site, "sm_86")
    assert [(item.check, item.severity) for item in told] == [("A4", Severity.FATAL)] * 2
    assert told[0].message == "torch/c.so is in its RECORD and not there"
    assert told[1].message.startswith("torch/lib/b.so: damaged:")
    assert told[0].remedy == "pip install --force-reinstall torch==2.8.0 --no-deps."


def test_a4_damage_elsewhere_is_a_warning(site: Any) -> None:
    site.install("torch", "2.8.0", {LIB: "every"})
    site.install("pyelftools", "0.32", {}, {"elftools/test/a.so": ""})
    finding = only(site, "sm_86")
    assert (finding.severity, finding.subject) == (Severity.WARNING, "pyelftools 0.32")


def test_every_fault_has_a_remedy_and_every_finding_its_target(site: Any) -> None:
    site.install("torch", "2.7.1", {LIB: "hole"})
    site.install("xformers", "0.0.31", {"x/_C.so": "ptx_75", "x/_f.so": "exact_90a"})
    site.install("nvdiffrast", "0.4.0")
    told = faults(site, "12.0")
    assert len(told) == 4
    for finding in told:
        assert finding.details["target"] == "sm_120"
        assert finding.remedy or finding.severity is Severity.INFO
        assert not re.search(r"\s{2}|\{|None", finding.message + finding.remedy)
