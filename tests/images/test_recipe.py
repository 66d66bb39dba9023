"""The recipe of the images, as far as it can be checked without building one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STACKS = {path.stem: path for path in (ROOT / "third_party/stacks").glob("*.lock")}
EXTENSIONS = ROOT / "third_party/images/extensions.sh"
LICENCE = "i-accept-nvidia-source-code-license-non-commercial"
LOCKS = [*STACKS.values(), *(ROOT / "third_party/images").glob("*.lock")]

RECORDER = """\
#!{python}
import os, sys
with open({log!r}, "a") as log:
    chosen = {{name: value for name, value in os.environ.items() if "ARCH" in name}}
    print(sys.argv[1:], chosen, os.environ.get("FLASH_ATTENTION_FORCE_BUILD"), file=log)
"""


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_hashes_and_names_no_host(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    entries = text.replace("\\\n", " ").splitlines()
    packages = [entry for entry in entries if entry and not entry.lstrip().startswith("#")]
    assert packages
    assert all("==" in entry and "--hash=sha256:" in entry for entry in packages)


@pytest.mark.parametrize("stack", STACKS)
def test_a_lock_has_all_that_meshpress_needs(stack: str) -> None:
    """A dependency added to pyproject.toml must reach every image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = list(project["dependencies"])
    if stack != "cpu":
        needed += [item for item in project["optional-dependencies"]["gpu"] if "[" not in item]
        needed += project["optional-dependencies"]["torch"]
    locked = pins(STACKS[stack])
    names = {re.split(r"[<>=~!\[]", item)[0].strip() for item in needed}
    assert names - set(locked) == set()


def test_the_stack_without_a_gpu_has_no_cuda() -> None:
    assert not [name for name in pins(STACKS["cpu"]) if re.match("nvidia|torch|cupy|triton", name)]


@pytest.mark.parametrize("file", ["Dockerfile.gpu", "docker-bake.hcl", "docs/images.md"])
def test_every_stack_is_told_of(file: str) -> None:
    text = (ROOT / file).read_text()
    assert [stack for stack in STACKS if not re.search(rf"\b{stack}\b", text)] == []


def test_the_label_says_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile.gpu").read_text()


def test_no_step_mounts_another_stage() -> None:
    """buildah 1.28 mounts a stage that came from the cache without its layers."""
    assert not re.search(r"--mount=\S*\bfrom=", (ROOT / "Dockerfile.gpu").read_text())


@pytest.fixture
def compile_with(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Runs extensions.sh with stand-ins for python, git and nvcc: (exit code, stderr, calls)."""
    log = tmp_path / "calls"
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "git", "nvcc"):
        stand_in = folder / name
        stand_in.write_text(RECORDER.format(python=sys.executable, log=str(log)))
        stand_in.chmod(0o755)

    def run(**variables: str) -> tuple[int, str, str]:
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", "CUDA_HOME": str(tmp_path)}
        result = subprocess.run(
            [str(EXTENSIONS), str(tmp_path / "wheels")],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return result.returncode, result.stderr, log.read_text() if log.exists() else ""

    return run


@pytest.mark.parametrize(("stack", "arch"), [("sm_86", "80"), ("sm_120", "120")])
def test_flash_attn_is_compiled_from_the_hashed_source_for_one_gpu(
    compile_with: Callable[..., tuple[int, str, str]], stack: str, arch: str
) -> None:
    code, error, calls = compile_with(STACK=stack, FLASH_ATTN="1")
    assert (code, error) == (0, "")
    assert f"'FLASH_ATTN_CUDA_ARCHS': '{arch}'" in calls
    assert "'--require-hashes'" in calls
    assert calls.rstrip().endswith("TRUE")  # else its setup fetches a wheel that no hash covers


@pytest.mark.parametrize(
    ("stack", "arch"), [("sm_75", "7.5"), ("sm_86", "8.6"), ("sm_120", "12.0+PTX")]
)
def test_nvdiffrast_is_compiled_once_its_licence_is_accepted(
    compile_with: Callable[..., tuple[int, str, str]], stack: str, arch: str
) -> None:
    code, error, calls = compile_with(STACK=stack, NVDIFFRAST=LICENCE)
    assert (code, error) == (0, "")
    assert f"'TORCH_CUDA_ARCH_LIST': '{arch}'" in calls


def test_nothing_is_compiled_unasked(compile_with: Callable[..., tuple[int, str, str]]) -> None:
    assert compile_with(STACK="sm_86", FLASH_ATTN="0", NVDIFFRAST="") == (0, "", "")


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"STACK": "sm_75", "FLASH_ATTN": "1"}, "8.0 and newer, a T4 is 7.5"),
        ({"STACK": "cpu", "FLASH_ATTN": "1"}, "needs a GPU"),
        ({"STACK": "sm_86", "FLASH_ATTN": "yes"}, "FLASH_ATTN is 'yes'; allowed: 0, 1"),
        ({"STACK": "sm_86", "NVDIFFRAST": "1"}, f"NVDIFFRAST={LICENCE}"),
        ({"STACK": "cpu", "NVDIFFRAST": LICENCE}, "needs a GPU"),
        ({"STACK": "sm_86", "FLASH_ATTN": "1", "CUDA_HOME": "/nowhere"}, "set BUILD_IMAGE"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_fetched(
    compile_with: Callable[..., tuple[int, str, str]], variables: dict[str, str], reason: str
) -> None:
    code, error, calls = compile_with(**variables)
    assert (code, calls) == (2, "")
    assert reason in error
