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

from service.guard import installation, machine, packages, places
from service.guard.checks import guarded, run_checks
from service.guard.driver import check_driver
from service.guard.findings import Finding, Severity, fatal, info, ok, warning
from service.guard.report import exit_code, summary, to_json, to_text
from service.guard.requirement import machine_of

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
    assert {"python", "tree", "version", "packages", "imports", "torch", "D1"} <= checks
    assert {"data_dir", "temporary", "port", "L2", "L3"} <= checks
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
    ("name", "module"),
    [("opencv-python-headless", "cv2"), ("prometheus-client", "prometheus_client"), ("a-b", "a_b")],
)
def test_what_to_import_of_a_package(name: str, module: str) -> None:
    assert packages.module_of(name) == module


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
        assert requirement.applies(machine_of()), requirement
        assert not requirement.accepts("0"), requirement


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
    found = machine.this_machine()
    assert (found.cuda, found.fault, found.compat) == ((12, 8), "", False)
    (gpu,) = found.gpus
    assert (str(gpu), gpu.memory_bytes) == ("Test GPU (sm_86)", 8 << 30)
    driver, shown = check_driver(found)
    assert (driver.check, driver.message.startswith("CUDA 12.8")) == ("D1", True)
    assert (shown.subject, shown.message) == ("cuda:0", "Test GPU, sm_86, 8 GiB")


def test_a_driver_that_refuses(fake_driver: Callable[..., None]) -> None:
    fake_driver(init=999)
    finding = only(check_driver(machine.this_machine(), devices="cuda:0"))
    assert (finding.check, finding.severity) == ("D1", Severity.FATAL)
    assert "error 999, unsupported display driver" in finding.message


def test_a_driver_that_crashes_does_not_end_the_guard(fake_driver: Callable[..., None]) -> None:
    fake_driver(crash=1)
    finding = only(check_driver(machine.this_machine(), devices="cuda:0"))
    assert (finding.severity, "ended the process" in finding.message) == (Severity.FATAL, True)


def test_a_driver_that_shows_no_gpu(fake_driver: Callable[..., None]) -> None:
    fake_driver(init=100)
    assert machine.this_machine().fault == ""
    *_, gpu = check_driver(machine.this_machine(), devices="cuda:0", visible="")
    assert (gpu.severity, "CUDA_VISIBLE_DEVICES is ''" in gpu.message) == (Severity.FATAL, True)


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
    assert to_text([ok("A5", "x", "fine")]).startswith("ok    A5 nvrtc    x: fine")


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
    found = run_checks(data_dir=Path("/proc/x"), host="192.0.2.1", port=1, devices="cuda:0")
    findings = found.findings
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
