"""The audit of an environment: whose libraries, which containers, what the cache knows."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.guard import audit as audit_module
from service.guard.audit import (
    Groups,
    audit_environment,
    audit_library,
    cuda_in_version_file,
    default_cache,
    is_shared_library,
    is_vendor,
)
from service.guard.installed import environment_at, this_environment
from service.guard.targets import Target


def run(site: Any, cache: Path | None = None) -> Any:
    return audit_environment(environment_at(site.root), cache)


def test_each_library_has_its_owner_and_strays_have_none(site: Any, compiled: Path) -> None:
    site.install("torch", "2.8.0", {"torch/lib/libtorch_cuda.so": "every"})
    site.install("nvidia-cublas-cu12", "12.8", {"nvidia/cublas/lib/libcublas.so.12": "hole"})
    shutil.copyfile(compiled / "sass_75.so", site.folder / "stray.so")
    found = {library.file: library for library in run(site).libraries}
    assert {file: (library.owner, library.vendor) for file, library in found.items()} == {
        "nvidia/cublas/lib/libcublas.so.12": ("nvidia-cublas-cu12", True),
        "stray.so": ("", False),
        "torch/lib/libtorch_cuda.so": ("torch", False),
    }


def test_only_libraries_with_device_code_are_kept_and_all_are_counted(
    site: Any, compiled: Path
) -> None:
    site.install(
        "torch",
        "2.8.0",
        {"torch/_C.so": "link_time", "torch/a.so": "every", "torch/b.so": "no_kernel"},
        {"torch/libm.so": "/* GNU ld script */"},
    )
    result = run(site)
    assert [library.file for library in result.libraries] == ["torch/a.so"]
    assert result.shared["torch"] == 4


def test_links_are_not_read_twice(site: Any) -> None:
    site.install("torch", "2.8.0", {"torch/lib/libx.so.1.2": "every"})
    (site.folder / "torch/lib/libx.so.1").symlink_to("libx.so.1.2")
    os.link(site.folder / "torch/lib/libx.so.1.2", site.folder / "torch/lib/libx.so")
    assert run(site).read == 1


def test_what_record_names_and_is_not_there_is_missing(site: Any) -> None:
    site.install("torch", "2.8.0", {"torch/lib/a.so": "every", "torch/lib/b.so": "every"})
    (site.folder / "torch/lib/b.so").unlink()
    assert run(site).missing == {"torch": ("torch/lib/b.so",)}


@pytest.mark.parametrize(
    ("name", "target", "expected"),  # containers: native, by JIT, nothing
    [
        ("every", "sm_75", (1, 0, 0)),
        ("every", "sm_89", (1, 0, 0)),
        ("every", "sm_121", (1, 0, 0)),
        ("every", "sm_100", (0, 0, 1)),
        ("ptx_75", "sm_120", (0, 1, 0)),
        ("hole", "sm_75", (1, 0, 1)),  # the union of its codes says yes
        ("hole", "sm_86", (2, 0, 0)),
        ("some_empty", "sm_86", (1, 0, 0)),  # two of three have no kernel
        ("some_empty", "sm_75", (0, 0, 1)),  # and these two say sm_75
        ("exact_90a", "sm_90", (1, 0, 0)),
        ("exact_90a", "sm_100", (0, 0, 1)),
        ("family_120f", "sm_121", (1, 0, 0)),
        ("exact_120a", "sm_121", (0, 0, 1)),
        ("relocatable", "sm_86", (1, 0, 0)),
    ],
)
def test_coverage_is_judged_container_by_container(
    compiled: Path, name: str, target: str, expected: tuple[int, int, int]
) -> None:
    groups = audit_library(compiled / f"{name}.so")
    coverage = audit_module.coverage_of(groups, Target.parse(target))
    assert (coverage.native, coverage.by_jit, coverage.nothing) == expected
    assert coverage.total == groups.total


def test_the_ptx_that_is_compiled_is_named(compiled: Path) -> None:
    coverage = audit_module.coverage_of(
        audit_library(compiled / "sass_ptx_75.so"), Target.parse("sm_86")
    )
    assert [str(code) for code in coverage.jit] == ["compute_75@9.0"]


# -- the cache -------------------------------------------------------------------------------


def test_a_second_audit_reads_nothing_and_says_the_same(site: Any, tmp_path: Path) -> None:
    site.install(
        "torch", "2.8.0", {"torch/a.so": "every", "torch/b.so": "hole", "torch/c.so": "link_time"}
    )
    (site.folder / "torch/a.so").write_bytes((site.folder / "torch/a.so").read_bytes()[:5000])
    cache = tmp_path / "deep" / "cache.json"
    first = run(site, cache)
    second = run(site, cache)
    assert (first.read, first.cached, second.read, second.cached) == (3, 0, 0, 3)
    assert first.libraries == second.libraries
    assert first.libraries[0].groups.faults


def test_a_changed_library_is_read_again(site: Any, compiled: Path, tmp_path: Path) -> None:
    site.install("torch", "2.8.0", {"torch/a.so": "sass_75", "torch/b.so": "every"})
    cache = tmp_path / "cache.json"
    run(site, cache)
    shutil.copyfile(compiled / "sass_120.so", site.folder / "torch/a.so")
    again = run(site, cache)
    assert again.read == 1
    assert again.libraries[0].groups.names == ["sm_120"]


def test_a_change_of_time_alone_counts_by_the_second(site: Any, tmp_path: Path) -> None:
    """Image layers keep whole seconds: what a build has read must stay known in the image."""
    site.install("torch", "2.8.0", {"torch/a.so": "every"})
    file, cache = site.folder / "torch/a.so", tmp_path / "cache.json"
    os.utime(file, ns=(10**18, 10**18 + 999_999_999))
    run(site, cache)
    os.utime(file, ns=(10**18, 10**18))
    assert run(site, cache).read == 0
    os.utime(file, ns=(10**18, 10**18 + 10**9))
    assert run(site, cache).read == 1


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"version": 0}', '{"version": 1, "files": {"KEY": [[["sm_x", 1]], 0, 0, []]}}']
    + ['{"version": 1, "files": []}', "[" * 10_000],
)
def test_a_broken_cache_is_as_none(site: Any, tmp_path: Path, content: str) -> None:
    site.install("torch", "2.8.0", {"torch/a.so": "every"})
    cache = tmp_path / "cache.json"
    cache.write_text(content)
    assert run(site, cache).read == 1
    assert run(site, cache).read == 0  # and it was replaced


def test_a_cache_that_cannot_be_written_costs_time_only(site: Any, tmp_path: Path) -> None:
    site.install("torch", "2.8.0", {"torch/a.so": "every"})
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    result = run(site, blocked / "cache.json")
    assert (result.read, len(result.libraries)) == (1, 1)


def test_a_cache_is_replaced_whole(site: Any, tmp_path: Path, monkeypatch: Any) -> None:
    site.install("torch", "2.8.0", {"torch/a.so": "every"})
    cache = tmp_path / "kept" / "cache.json"
    run(site, cache)
    before = cache.read_text()
    site.install("xformers", "0.0.1", {"xformers/a.so": "hole"})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    assert run(site, cache).read == 1
    assert cache.read_text() == before
    assert os.listdir(cache.parent) == ["cache.json"]


def test_the_cache_forgets_what_is_gone(site: Any, tmp_path: Path) -> None:
    site.install("torch", "2.8.0", {"torch/a.so": "every", "torch/b.so": "every"})
    cache = tmp_path / "cache.json"
    run(site, cache)
    (site.folder / "torch/b.so").unlink()
    run(site, cache)
    assert len(json.loads(cache.read_text())["files"]) == 1


def test_the_cache_lies_in_our_own_venv_or_in_the_users_folder(
    site: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    other = environment_at(site.root)
    assert default_cache(other).is_relative_to(tmp_path / "home")
    monkeypatch.setattr("sys.prefix", str(other.root))
    monkeypatch.setattr("sys.base_prefix", "/usr")
    assert default_cache(other) == other.root / ".guard-audit.json"


def test_a_user_without_a_home_gets_a_temporary_one(site: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert default_cache(environment_at(site.root)).is_absolute()


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("libtorch.so", True),
        ("libcudart-8774224f.so.12.4.127", True),
        ("_C.cpython-312-x86_64-linux-gnu.so", True),
        ("a.so.py", True),  # odd, but a name like that is loadable; it is no ELF file then
        ("libtorch.a", False),
        ("so", False),
        (".so", False),
        ("notes.some", False),
    ],
)
def test_what_counts_as_a_shared_library(name: str, expected: bool) -> None:
    assert is_shared_library(name) is expected


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        ("nvidia-nccl-cu12", "libnccl.so.2", True),
        ("torchvision", "libnvjpeg.8dd2b5e6.so.12", True),  # a copy, renamed by auditwheel
        ("cumm-cu124", "libnvrtc-builtins-4425561a.so.12.4.127", True),
        ("torch", "libtorch_cuda.so", False),
        ("xformers", "_C.so", False),
    ],
)
def test_whose_libraries_choose_among_their_kernels(owner: str, name: str, expected: bool) -> None:
    assert is_vendor(owner, name) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cuda: Optional[str] = '12.8'\nhip = None\n", "12.8"),
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", ""),
        ("cuda = None", ""),
        ("hip = '6.0'", None),
        ("", None),
    ],
)
def test_cuda_of_torch(text: str, expected: str | None) -> None:
    assert cuda_in_version_file(text) == expected


def test_this_environment_can_be_audited(tmp_path: Path) -> None:
    result = audit_environment(this_environment(), tmp_path / "cache.json")
    assert result.read > 10
    assert all(library.groups != Groups() for library in result.libraries)
