"""Wheels judged before they are installed, and archives that are no wheels."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.guard import wheel as wheel_module
from service.guard.coverage import check_coverage
from service.guard.errors import GuardError
from service.guard.findings import Severity
from service.guard.targets import Target
from service.guard.wheel import audit_wheel

TAG = "cp312-cp312-manylinux_2_28_x86_64"
STORED_OR_PACKED = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]


def made(
    folder: Path,
    name: str,
    version: str,
    members: Mapping[str, bytes],
    compression: int = zipfile.ZIP_DEFLATED,
    record: tuple[str, ...] | None = None,
    requires: tuple[str, ...] = (),
) -> Path:
    """A wheel of these members; `record` names others than it holds."""
    path = folder / f"{name.replace('-', '_')}-{version}-{TAG}.whl"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    headers = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    listed = members if record is None else record
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file, content in members.items():
            archive.writestr(file, content)
        archive.writestr(f"{info}/METADATA", "\n".join(headers) + "\n\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{file},sha256=x,1\n" for file in listed))
    return path


@pytest.mark.parametrize("compression", STORED_OR_PACKED)
def test_libraries_are_read_however_they_are_stored(
    compiled: Path, tmp_path: Path, compression: int
) -> None:
    members = {
        "spconv/core_cc.so": (compiled / "hole.so").read_bytes(),
        "spconv/pad.txt": b"x",  # what follows begins at an odd place of the file
        "spconv/libs/libcudart-1.so.12": (compiled / "every.so").read_bytes(),
        "spconv/host.so": (compiled / "link_time.so").read_bytes(),
    }
    path = made(tmp_path, "spconv-cu124", "2.3.8", members, compression, requires=("numpy", "fire"))
    wheel = audit_wheel(path)
    assert (wheel.python, wheel.abi, wheel.platform) == ("cp312", "cp312", "manylinux_2_28_x86_64")
    assert wheel.distribution.requires == ("numpy", "fire")
    assert wheel.distribution.files["spconv/core_cc.so"] == "sha256=x"
    assert {item.file: (item.vendor, item.groups.total) for item in wheel.audit.libraries} == {
        "spconv/core_cc.so": (False, 2),
        "spconv/libs/libcudart-1.so.12": (True, 1),
    }
    assert wheel.audit.read == 3


def test_the_findings_are_those_of_an_installed_package(compiled: Path, tmp_path: Path) -> None:
    library = (compiled / "hole.so").read_bytes()
    version = b"cuda: Optional[str] = '12.6'\n"
    path = made(
        tmp_path,
        "torch",
        "2.7.1",
        {"torch/lib/libtorch_cuda.so": library, "torch/version.py": version},
    )
    audit = audit_wheel(path).audit
    assert audit.cuda_of_torch == "12.6"
    told = list(check_coverage(audit, Target.parse("sm_120")))
    worst = [finding for finding in told if finding.severity is Severity.FATAL]
    assert [finding.check for finding in worst] == ["A1"]
    assert "torch==2.8.0" in worst[0].remedy


def test_a_truncated_extension_wheel_is_found(tmp_path: Path) -> None:
    """nvdiffrast built from a tree that lacks setup.py: pure Python, 11 kB, exit code 0."""
    path = made(tmp_path, "nvdiffrast", "0.4.0", {"nvdiffrast/__init__.py": b""})
    (finding,) = check_coverage(audit_wheel(path).audit, Target.parse("sm_86"))
    assert (finding.check, finding.severity) == ("A4", Severity.FATAL)
    assert "without CUDA code" in finding.message


def test_libraries_that_record_names_and_the_wheel_lacks(compiled: Path, tmp_path: Path) -> None:
    members = {"x/a.so": (compiled / "every.so").read_bytes()}
    path = made(tmp_path, "xformers", "0.0.31", members, record=("x/a.so", "x/b.so"))
    assert audit_wheel(path).audit.missing == {"xformers": ("x/b.so",)}


@pytest.mark.parametrize("compression", STORED_OR_PACKED[:2])
def test_a_damaged_library_in_a_sound_wheel(
    compiled: Path, tmp_path: Path, compression: int
) -> None:
    cut = (compiled / "every.so").read_bytes()[:5000]
    path = made(tmp_path, "x", "1.0", {"x/a.so": cut}, compression)
    (library,) = audit_wheel(path).audit.libraries
    assert "damaged" in library.groups.faults[0]


def test_bits_flipped_in_a_packed_library(compiled: Path, tmp_path: Path) -> None:
    path = made(tmp_path, "x", "1.0", {"x/a.so": (compiled / "every.so").read_bytes()})
    data = bytearray(path.read_bytes())
    data[500:600] = bytes(100)
    path.write_bytes(data)
    (library,) = audit_wheel(path).audit.libraries
    assert "cannot be unpacked" in library.groups.faults[0]


# -- no wheels -------------------------------------------------------------------------------


def test_a_download_that_was_cut_off_is_refused(compiled: Path, tmp_path: Path) -> None:
    path = made(tmp_path, "x", "1.0", {"x/a.so": (compiled / "every.so").read_bytes()})
    data = path.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(GuardError, match="cannot be read as a wheel") as caught:
            audit_wheel(path)
        assert "Download it again" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "message"),
    [("torch.zip", "its name is not"), ("torch.whl", "its name is not")]
    + [(f"torch-1-{TAG}.whl", "No such file")],
)
def test_other_files_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(GuardError, match=message):
        audit_wheel(tmp_path / name)


def test_a_zip_without_metadata_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"torch-1-{TAG}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("torch/__init__.py", "")
    with pytest.raises(GuardError, match="no \\*.dist-info/METADATA"):
        audit_wheel(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = made(tmp_path, "x", "1.0", {"x/a.so": bytes(wheel_module.SMALL_BYTES + 1)})
    assert path.stat().st_size < 100_000
    with pytest.raises(GuardError, match="times what is stored") as caught:
        audit_wheel(path)
    assert "no wheel anybody would install" in caught.value.next_step


def test_a_wheel_larger_than_any_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path, "x", "1.0", {"x/a.so": bytes(1000), "x/b.so": bytes(1000)})
    monkeypatch.setattr(wheel_module, "WHEEL_BYTES", 1999)
    with pytest.raises(GuardError, match="unpacks to 4 files of"):
        audit_wheel(path)
    monkeypatch.setattr(wheel_module, "WHEEL_BYTES", 10**6)
    monkeypatch.setattr(wheel_module, "LIBRARY_BYTES", 999)
    with pytest.raises(GuardError, match="x/a.so in .* unpacks to 1000 bytes"):
        audit_wheel(path)


def test_nothing_is_left_in_the_scratch_folder(compiled: Path, tmp_path: Path) -> None:
    path = made(tmp_path, "x", "1.0", {"x/a.so": (compiled / "every.so").read_bytes()})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    audit_wheel(path, scratch)
    assert list(scratch.iterdir()) == []


def test_a_wheel_without_record_says_so(tmp_path: Path) -> None:
    path = tmp_path / f"x-1.0-{TAG}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x-1.0.dist-info/METADATA", "Name: x\nVersion: 1.0\n\n")
    assert audit_wheel(path).distribution.faults == ("it has no RECORD",)
