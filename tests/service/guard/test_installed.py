"""What is installed, read from metadata that is as broken as it comes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from service.guard.errors import GuardError
from service.guard.installed import (
    environment_at,
    normalised,
    read_distribution,
    read_headers,
    this_environment,
)


def test_this_environment_is_the_one_that_runs() -> None:
    here = this_environment()
    assert here.python == sys.version_info[:2]
    assert here.root == Path(sys.prefix)
    pytest_itself = here.distributions["pytest"]
    assert pytest_itself.version == pytest.__version__
    file = pytest_itself.path_of("pytest/__init__.py")
    assert file == Path(pytest.__file__)
    assert pytest_itself.files["pytest/__init__.py"].startswith("sha256=")


@pytest.mark.parametrize("below", ["", "lib/python3.12/site-packages"])
def test_a_venv_and_its_site_packages_are_the_same(site: Any, below: str) -> None:
    site.install("NVIDIA_cuBLAS.cu12", "12.8.4.1", requires=("numpy>=2",))
    found = environment_at(site.root / below)
    assert found.python == (3, 12)
    assert found.site_packages == (site.folder.resolve(),)
    package = found.distributions["nvidia-cublas-cu12"]
    assert (package.version, package.requires) == ("12.8.4.1", ("numpy>=2",))
    assert package.faults == found.faults == ()


def test_a_target_folder_is_an_environment_of_unknown_python(site: Any, tmp_path: Path) -> None:
    site.install("torch", "2.8.0")
    folder = tmp_path / "target"
    site.folder.rename(folder)
    found = environment_at(folder)
    assert found.python is None
    assert list(found.distributions) == ["torch"]


def test_lib64_that_is_a_link_counts_once(site: Any) -> None:
    site.install("torch", "2.8.0")
    (site.root / "lib64").symlink_to("lib")
    found = environment_at(site.root)
    assert len(found.site_packages) == 1
    assert found.faults == ()


def test_packages_of_the_base_python_where_the_venv_lets_them_in(site: Any, tmp_path: Path) -> None:
    base = type(site)(tmp_path / "base")
    base.install("torch", "2.6.0")
    base.install("numpy", "2.2.6")
    site.install("torch", "2.8.0")
    settings = site.root / "pyvenv.cfg"
    settings.write_text(f"home = {base.root}/bin\ninclude-system-site-packages = true\n")
    found = environment_at(site.root)
    assert found.distributions["torch"].version == "2.8.0"  # as Python finds it
    assert found.distributions["numpy"].version == "2.2.6"
    settings.write_text(f"home = {base.root}/bin\ninclude-system-site-packages = false\n")
    assert list(environment_at(site.root).distributions) == ["torch"]


def test_what_is_no_environment_is_refused_with_what_would_be(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "holds no Python packages"),
        (tmp_path / "none", "does not exist"),
        (Path(__file__), "is not a folder"),
    ):
        with pytest.raises(GuardError, match=message) as caught:
            environment_at(path)
        assert "site-packages" in caught.value.next_step


def test_two_of_one_name_are_told_and_the_first_is_kept(site: Any) -> None:
    site.install("torch", "2.6.0")
    site.install("torch", "2.8.0")
    found = environment_at(site.root)
    assert found.distributions["torch"].version == "2.6.0"
    assert "torch is there twice: 2.6.0 in" in found.faults[0]


def test_left_overs_of_pip_are_not_packages(site: Any) -> None:
    info = site.install("torch", "2.8.0")
    info.rename(info.with_name("~orch-2.8.0.dist-info"))
    (site.folder / "numpy-2.2.6.dist-info").mkdir()
    assert list(environment_at(site.root).distributions) == ["numpy"]


# -- one package -----------------------------------------------------------------------------


def test_a_package_without_record_is_kept_with_its_fault(site: Any) -> None:
    info = site.install("torch", "2.8.0")
    (info / "RECORD").unlink()
    package = read_distribution(info)
    assert (package.name, package.version, package.files) == ("torch", "2.8.0", {})
    assert package.faults == ("RECORD cannot be read: No such file or directory",)


def test_a_package_without_metadata_has_the_name_of_its_folder(site: Any) -> None:
    info = site.install("flash-attn", "2.8.3.post2")
    (info / "METADATA").unlink()
    package = read_distribution(info)
    assert (package.name, package.version) == ("flash-attn", "2.8.3.post2")
    assert len(package.faults) == 2


@pytest.mark.parametrize("content", [b"\xff\xfe\x00garbage", b"", b"\0" * 100, b"Name\n: x"])
def test_metadata_that_is_no_text_is_no_traceback(site: Any, content: bytes) -> None:
    info = site.install("torch", "2.8.0")
    (info / "METADATA").write_bytes(content)
    (info / "RECORD").write_bytes(content)
    package = read_distribution(info)
    assert (package.name, package.version) == ("torch", "2.8.0")
    assert package.faults


def test_names_that_are_not_utf8_survive(site: Any) -> None:
    info = site.install("torch", "2.8.0")
    (info / "RECORD").write_bytes(b"torch/caf\xe9.py,sha256=x,1\ntorch/a.so,sha256=y,1\n")
    package = read_distribution(info)
    assert package.files["torch/a.so"] == "sha256=y"
    assert len(package.files) == 2
    assert package.faults == ("RECORD is not UTF-8",)


def test_a_record_row_too_long_for_csv_is_a_fault(site: Any) -> None:
    info = site.install("torch", "2.8.0")
    (info / "RECORD").write_text('"' + "a" * 200_000)
    assert "RECORD cannot be read" in read_distribution(info).faults[0]


def test_eggs_are_packages_too(site: Any) -> None:
    folder = site.folder / "mmcv-2.1.0-py3.12.egg-info"
    folder.mkdir()
    (folder / "PKG-INFO").write_text("Name: mmcv\nVersion: 2.1.0\n")
    (folder / "installed-files.txt").write_text("../mmcv/_ext.so\nPKG-INFO\n")
    file = site.folder / "apex-0.1.egg-info"
    file.write_text("Metadata-Version: 1.0\nName: apex\nVersion: 0.1\n")
    found = environment_at(site.root).distributions
    assert (found["mmcv"].version, found["apex"].version) == ("2.1.0", "0.1")
    assert found["mmcv"].path_of("mmcv/_ext.so") == site.folder / "mmcv" / "_ext.so"
    assert set(found["mmcv"].files) == {"mmcv/_ext.so", "mmcv-2.1.0-py3.12.egg-info/PKG-INFO"}


def test_files_outside_site_packages_have_their_place(site: Any) -> None:
    info = site.install("torch", "2.8.0")
    (info / "RECORD").write_text("../../../bin/torchrun,sha256=x,1\n")
    package = read_distribution(info)
    (file,) = package.files
    assert package.path_of(file) == site.root / "bin" / "torchrun"


def test_headers_end_at_the_description_and_folded_ones_are_joined() -> None:
    headers = read_headers("Name: a\nLicense: one\n two\nRequires-Dist: b\n\nName: not a header\n")
    assert headers == {"name": ["a"], "license": ["one two"], "requires-dist": ["b"]}


def test_names_are_normalised_as_pip_does() -> None:
    assert normalised("NVIDIA__cuBLAS.-cu12") == "nvidia-cublas-cu12"
