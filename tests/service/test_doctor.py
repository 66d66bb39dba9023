"""The guard: each check on a sound and on a broken subject, the report, and the exit codes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from service.guard import device, installation, packages, places
from service.guard.checks import guarded, run_checks
from service.guard.findings import Finding, Severity, fatal, info, ok, warning
from service.guard.report import exit_code, summary, to_json, to_text

ROOT = Path(__file__).resolve().parents[2]


def only(findings: object) -> Finding:
    (finding,) = findings  # type: ignore[misc]
    return finding


# -- the command ---------------------------------------------------------------------------


def test_doctor_finds_this_installation_sound(meshpress: Callable) -> None:
    done = meshpress("doctor", "--json")
    facts = json.loads(done.stdout)
    faults = [item for item in facts["findings"] if item["severity"] == "fatal"]
    assert faults == []
    assert done.returncode == facts["exit_code"] <= 1
    checks = {item["check"] for item in facts["findings"]}
    assert {"python", "tree", "version", "packages", "imports", "torch", "driver"} <= checks
    assert {"data_dir", "temporary", "port"} <= checks
    versions = {item["subject"] for item in facts["findings"] if item["check"] == "packages"}
    assert {"numpy", "dbos", "uvicorn", "opencv-python-headless"} <= versions


def test_doctor_says_what_cannot_serve_and_why(meshpress: Callable) -> None:
    done = meshpress("doctor", "--quick", MESHPRESS_DATA_DIR="/proc/nowhere")
    assert done.returncode == 2
    text = done.stdout.decode()
    assert "FAIL  data_dir" in text
    assert "-> Set MESHPRESS_DATA_DIR" in text
    assert text.splitlines()[-1].startswith("meshpress cannot serve here: /proc/nowhere")


def test_runs_without_any_installed_package() -> None:
    """-S hides site-packages: what is left is the standard library."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "service.guard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "FAIL  packages    numpy: not installed" in done.stdout
    assert "-> pip install 'numpy>=2.0'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_command_that_cannot_load_gives_the_report_instead_of_a_traceback(
    tmp_path: Path, meshpress: Callable
) -> None:
    """A stray `models` ahead of ours on the path, as some other package may bring one."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    done = meshpress("--version", PYTHONPATH=f"{tmp_path}:{ROOT}")
    text = done.stderr.decode()
    assert done.returncode == 2
    assert "FAIL  tree" in text
    assert f"Remove {tmp_path} from PYTHONPATH" in text
    assert "Traceback" not in text
    assert text.splitlines()[-1].startswith("meshpress cannot start: ")


# -- packages ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "version", "accepted"),
    [
        (">=2.0", "2.0", True),
        (">=2.0", "2.0.0rc1", True),  # by the release alone, which is what our clauses compare
        (">=2.0", "1.26.4", False),
        (">=2.0.36", "2.0.36.post1", True),
        (">=0.61,<0.65", "0.65.0", False),
        ("==3.4.*", "3.4.12", True),
        ("==3.4.*", "3.40", False),
        ("==3.4.*", "3.5.0", False),
        ("==2.13.0", "2.13.0+cpu", True),
        ("==2.13", "2.13.0", True),
        ("!=1.2", "1.2.0", False),
        ("~=1.4.2", "1.4.9", True),
        ("~=1.4.2", "1.5.0", False),
        ("<=3", "3.0.1", False),
        (">1.0", "1.0", False),
        ("", "0", True),
    ],
)
def test_versions(versions: str, version: str, accepted: bool) -> None:
    assert packages.Requirement("it", versions).accepts(version) is accepted


@pytest.mark.parametrize(
    ("text", "name", "versions", "module"),
    [
        ("uvicorn[standard]>=0.34", "uvicorn", ">=0.34", "uvicorn"),
        ("opencv-python-headless>=4.10", "opencv-python-headless", ">=4.10", "cv2"),
        ("numba (>=0.61,<0.65)", "numba", ">=0.61,<0.65", "numba"),
        ('tomli>=2 ; python_version < "3.11"', "tomli", ">=2", "tomli"),
        ("click", "click", "", "click"),
    ],
)
def test_requirements_are_read(text: str, name: str, versions: str, module: str) -> None:
    requirement = packages.parse(text)
    assert (requirement.name, requirement.versions) == (name, versions)
    assert requirement.module == module


def test_a_missing_and_an_old_package() -> None:
    missing, old, good = packages.check_packages(["nosuchpackage>=1", "click>=99", "click>=8"])
    assert (missing.severity, missing.message) == (Severity.FATAL, "not installed")
    assert missing.remedy == "pip install 'nosuchpackage>=1'"
    assert old.severity is Severity.FATAL
    assert "needed: >=99" in old.message
    assert good.severity is Severity.OK


def test_every_requirement_of_the_project_is_understood() -> None:
    required = installation.requirements()
    assert len(required) > 15
    for requirement in map(packages.parse, required):
        for clause in requirement.versions.split(","):
            assert packages._CLAUSE.fullmatch(clause), f"{requirement.name}: {clause!r}"


def test_imports_survive_a_package_that_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sound_one.py").write_text("")
    (tmp_path / "broken_one.py").write_text("raise ImportError('libGL.so.1: cannot open')")
    (tmp_path / "crashing_one.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    modules = ["sound_one", "broken_one", "crashing_one", "json"]
    broken, crashed, untried = packages.check_imports(modules)
    assert (broken.severity, broken.subject) == (Severity.FATAL, "broken_one")
    assert "libGL.so.1" in broken.message
    assert (crashed.severity, crashed.subject) == (Severity.FATAL, "crashing_one")
    assert untried.subject == "json"
    assert only(packages.check_imports(["sound_one", "json"])).severity is Severity.OK


# -- our own tree ----------------------------------------------------------------------------


def test_a_shadowing_models_package_is_found(tmp_path: Path) -> None:
    assert only(installation.check_tree()).severity is Severity.OK
    stray = only(installation.check_tree(models=tmp_path / "models"))
    assert stray.severity is Severity.FATAL
    assert str(tmp_path) in stray.remedy


def test_an_installed_package_of_another_version_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "meshpress-9.9.9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: meshpress\nVersion: 9.9.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = only(installation.check_version())
    assert finding.severity is Severity.FATAL
    assert "9.9.9 is installed" in finding.message


# -- places ----------------------------------------------------------------------------------


def test_data_dir(tmp_path: Path) -> None:
    absent = tmp_path / "a" / "b"
    assert only(places.check_data_dir(absent, 1)).severity is Severity.OK
    assert list(tmp_path.iterdir()) == []  # nothing is made by looking
    full = only(places.check_data_dir(tmp_path, 2**60))
    assert (full.severity, "MESHPRESS_MIN_FREE_BYTES" in full.remedy) == (Severity.FATAL, True)
    (tmp_path / "file").touch()
    assert "is not a folder" in only(places.check_data_dir(tmp_path / "file" / "x", 1)).message
    unwritable = only(places.check_data_dir(Path("/proc/meshpress"), 1))
    assert unwritable.severity is Severity.FATAL


def test_caches_of_what_is_installed(tmp_path: Path) -> None:
    places_of = {"TRITON_CACHE_DIR": str(tmp_path), "CUPY_CACHE_DIR": "/proc/x"}
    found = list(places.check_caches({"triton", "cupy"}.__contains__, places_of))
    assert [(item.subject, item.severity) for item in found] == [
        ("triton", Severity.OK),
        ("cupy", Severity.WARNING),
    ]
    assert "CUPY_CACHE_DIR" in found[1].remedy
    assert list(places.check_caches({"numpy"}.__contains__, places_of)) == []


def test_a_port_in_use_and_an_address_of_another_machine() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert only(places.check_port("127.0.0.1", port)).severity is Severity.WARNING
    assert only(places.check_port("127.0.0.1", port)).severity is Severity.OK
    assert only(places.check_port("192.0.2.1", port)).severity is Severity.FATAL


# -- GPU -------------------------------------------------------------------------------------

FAKE_LIBCUDA = """
#include <string.h>
#include <stddef.h>
int cuDriverGetVersion(int *v) { *v = 12080; return 0; }
int cuInit(unsigned f) { return INIT; }
int cuGetErrorString(int e, const char **s) { *s = "unsupported display driver"; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, "Test GPU", n); return 0; }
int cuDeviceTotalMem_v2(size_t *m, int d) { *m = (size_t)8 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) {
  *v = a == 75 ? 8 : 6;
  return CRASH ? *(volatile int *)0 : 0;
}
"""


@pytest.fixture
def fake_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`fake_driver(init=803)`: a libcuda.so.1 compiled for the test stands in for the driver."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")

    def build(init: int = 0, crash: int = 0) -> None:
        source = tmp_path / "cuda.c"
        source.write_text(FAKE_LIBCUDA)
        defines = [f"-DINIT={init}", f"-DCRASH={crash}"]
        library = str(tmp_path / "libcuda.so.1")
        command = [compiler, "-w", "-shared", "-fPIC", *defines, "-o", library, str(source)]
        subprocess.run(command, check=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    return build


def test_a_gpu_is_described(fake_driver: Callable[..., None]) -> None:
    fake_driver()
    driver, gpu = device.check_driver("auto")
    assert driver.severity is Severity.OK
    assert driver.message.startswith("CUDA 12.8")
    assert (gpu.subject, gpu.message) == ("cuda:0", "Test GPU, sm_86, 8 GiB")
    assert gpu.details["capability"] == [8, 6]


def test_a_driver_that_refuses(fake_driver: Callable[..., None]) -> None:
    fake_driver(init=803)
    finding = only(device.check_driver("cuda:0"))
    assert finding.severity is Severity.FATAL
    assert "error 803, unsupported display driver" in finding.message


def test_a_driver_that_crashes_does_not_end_the_guard(fake_driver: Callable[..., None]) -> None:
    fake_driver(crash=1)
    finding = only(device.check_driver("cuda:0"))
    assert (finding.severity, "ended the process" in finding.message) == (Severity.FATAL, True)


def test_no_visible_gpu(fake_driver: Callable[..., None], monkeypatch) -> None:
    fake_driver(init=100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, gpu = device.check_driver("cuda:0")
    assert (gpu.severity, "CUDA_VISIBLE_DEVICES is ''" in gpu.message) == (Severity.FATAL, True)


def test_no_driver_is_a_fault_only_where_a_gpu_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "ask_driver", lambda: {"error": "no NVIDIA driver library"})
    monkeypatch.setattr(device, "kernel_driver", lambda: "")
    assert only(device.check_driver("auto")).severity is Severity.INFO
    asked = only(device.check_driver("cuda:0"))
    assert (asked.severity, "--gpus all" in asked.remedy) == (Severity.FATAL, True)


def test_the_kernel_driver_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    assert device.kernel_driver(file) == "570.86.15"
    assert device.kernel_driver(tmp_path / "absent") == ""


@pytest.mark.parametrize(
    ("text", "cuda"),
    [("cuda: Optional[str] = '12.8'\n", "12.8"), ("cuda: Optional[str] = None\n", "")],
)
def test_torch_is_read_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cuda: str
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.8.0'\n{text}")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert device.torch_cuda() == cuda


def test_environment_traps() -> None:
    traps = {"CUDA_FORCE_PTX_JIT": "1", "LD_LIBRARY_PATH": "/usr/local/cuda/compat"}
    found = [finding.subject for finding in device.check_traps(traps)]
    assert found == ["CUDA_FORCE_PTX_JIT", "LD_LIBRARY_PATH"]
    assert list(device.check_traps({"CUDA_FORCE_PTX_JIT": "0"})) == []


# -- the report ------------------------------------------------------------------------------

GOOD, FACT = ok("a", "x", "fine"), info("b", "y", "a fact")
WARN, FATAL = warning("c", "z", "slow", "do this"), fatal("d", "w", "broken", "do that")


@pytest.mark.parametrize(
    ("findings", "code"), [([GOOD, FACT], 0), ([GOOD, WARN], 1), ([WARN, FATAL, GOOD], 2), ([], 0)]
)
def test_exit_codes(findings: list[Finding], code: int) -> None:
    assert exit_code(findings) == code
    assert json.loads(to_json(findings))["exit_code"] == code


def test_each_fault_has_its_remedy_below_it_and_the_summary_is_last() -> None:
    text = to_text([GOOD, FACT, WARN, FATAL])
    expected = """\
        ok    a           x: fine
        info  b           y: a fact
        WARN  c           z: slow
                          -> do this
        FAIL  d           w: broken
                          -> do that

        meshpress cannot serve here: w: broken"""
    assert text == textwrap.dedent(expected)
    assert summary([GOOD, WARN]) == "meshpress can serve here, with 1 warning"


def test_json_keeps_every_field() -> None:
    (row,) = json.loads(to_json([FATAL]))["findings"]
    assert row == {
        "check": "d",
        "severity": "fatal",
        "subject": "w",
        "message": "broken",
        "remedy": "do that",
        "details": {},
    }


def test_every_fault_has_a_remedy() -> None:
    findings = run_checks(data_dir=Path("/proc/x"), host="192.0.2.1", port=1, devices="cuda:0")
    faults = [item for item in findings if item.severity in (Severity.WARNING, Severity.FATAL)]
    assert {"data_dir", "port"} <= {item.check for item in faults}
    assert all(item.remedy for item in faults)


def test_a_check_that_fails_itself_is_a_finding() -> None:
    def broken() -> list[Finding]:
        raise OSError("disk on fire")

    finding = only(guarded("broken", broken))
    assert (finding.severity, finding.check) == (Severity.WARNING, "broken")
    assert "disk on fire" in finding.message


def test_looking_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_checks(port=None)
    assert os.listdir(tmp_path) == []
