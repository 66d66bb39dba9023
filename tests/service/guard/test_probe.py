"""K: one tiny kernel per library in a process of its own; here every library is a stand-in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.guard import probe as probing
from service.guard.findings import Severity
from service.guard.probe import check_kernels, probe

# The parts of libcuda that the probe calls, with a kernel that is run here: out[i] = i + 1.
FAKE_LIBCUDA = """
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long long ptr;
int cuInit(unsigned f) { return 0; }
int cuGetErrorString(int e, const char **s) { *s = "a planted error"; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = malloc(1); return 0; }
int cuCtxSetCurrent(void *c) { return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : 6; return 0; }
int cuModuleLoadData(void **m, const char *image) {
  *m = malloc(1);
  return strstr(image, ".version 6.3") ? LOAD : 218;
}
int cuModuleGetFunction(void **f, void *m, const char *name) {
  *f = m;
  return strcmp(name, "fill");
}
int cuMemAlloc_v2(ptr *p, size_t n) { *p = (ptr)calloc(n, 1); return 0; }
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void *stream, void **a, void **extra) {
  unsigned *out = (unsigned *)*(ptr *)a[0], count = *(unsigned *)a[1];
  for (unsigned i = 0; i < gx * bx; i++) if (i < count) out[i] = i + 1 + WRONG;
  return 0;
}
int cuMemcpyDtoH_v2(void *to, ptr from, size_t n) { memcpy(to, (void *)from, n); return 0; }
"""


@pytest.fixture
def fake_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`fake_driver(load=209)`: a libcuda.so.1 whose cuModuleLoadData returns that."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")

    def build(load: int = 0, wrong: int = 0) -> None:
        source = tmp_path / "cuda.c"
        source.write_text(FAKE_LIBCUDA)
        defines = [f"-DLOAD={load}", f"-DWRONG={wrong}"]
        command = [compiler, "-w", "-shared", "-fPIC", *defines, "-o", tmp_path / "libcuda.so.1"]
        subprocess.run([*command, source], check=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    return build


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """`stand_in("cupy", "raise …")`: a module of that name for the child to import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def write(name: str, source: str) -> None:
        (folder / f"{name}.py").write_text(source)

    return write


def test_the_driver_compiles_and_runs_a_kernel(fake_driver: Any, fake_environment: Any) -> None:
    fake_driver()
    (finding,) = check_kernels(fake_environment.read())
    assert (finding.check, finding.severity, finding.subject) == ("K", Severity.OK, "driver")


@pytest.mark.parametrize(
    ("fault", "code", "cause"), [({"load": 209}, 209, "A1"), ({"load": 222}, 222, "A2")]
)
def test_a_cuda_error_names_the_check_that_finds_its_cause(
    fake_driver: Any, fake_environment: Any, fault: dict[str, int], code: int, cause: str
) -> None:
    fake_driver(**fault)
    (finding,) = check_kernels(fake_environment.read())
    assert finding.severity is Severity.FATAL
    assert finding.details == {"code": code, "cause": cause}
    assert f"cuModuleLoadData: error {code}, a planted error. Most likely {cause}" in (
        finding.message
    )
    assert finding.remedy


def test_a_kernel_that_computes_nonsense_is_found(fake_driver: Any) -> None:
    fake_driver(wrong=1)
    outcome = probe("driver")
    assert (outcome.ran, "its result is wrong" in outcome.text) == (False, True)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ImportError('libcublas.so.12: cannot open shared object file')", "libcublas.so.12"),
        ("import os; os.abort()", "the process ended with status -6"),
        ("import sys; sys.exit('no')", "SystemExit: no"),
        ("import time; time.sleep(60)", "no answer in 1 s"),
        ("print('noise')\nraise RuntimeError('no kernel image is available')", "no kernel image"),
    ],
)
def test_a_library_that_breaks_ends_nothing_else(stand_in: Any, source: str, said: str) -> None:
    stand_in("cupy", source)
    outcome = probe("cupy", seconds=1 if "sleep" in source else 60)
    assert not outcome.ran
    assert said in outcome.text


def test_only_what_is_installed_is_tried_and_only_torch_is_essential(
    fake_driver: Any, fake_environment: Any, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_driver()
    for name in ("torch", "xformers", "cupy"):
        stand_in(name, "raise RuntimeError('CUDA error: no kernel image is available')")
    fake_environment.install("torch", "2.8.0")
    fake_environment.install("cupy-cuda12x", "13.6.0")
    _, torch, cupy = check_kernels(fake_environment.read())
    assert [torch.subject, cupy.subject] == ["torch", "cupy"]
    assert [torch.severity, cupy.severity] == [Severity.FATAL, Severity.WARNING]
    assert torch.message.startswith("torch: RuntimeError: CUDA error: no kernel image is available")
    assert torch.details["cause"] == "A1"


def test_an_interpreter_that_is_not_there() -> None:
    assert "does not start" in probe("driver", python="/nonexistent/python").text


def test_every_library_has_a_probe() -> None:
    source = probing.SCRIPT.read_text()
    assert all(f"def probe_{name}(" in source for name, _ in probing.LIBRARIES)
    done = subprocess.run(
        [sys.executable, "-S", str(probing.SCRIPT), "driver"],
        capture_output=True,
        env={**os.environ, "LD_LIBRARY_PATH": ""},
        check=False,
    )
    assert done.returncode == 0, "standard library only"
