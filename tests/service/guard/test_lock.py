"""L1: what is installed is what the lock says, version by version and file by file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.guard.errors import GuardError
from service.guard.findings import Finding, Severity
from service.guard.lock import check_lock, read_lock

STACKS = Path(__file__).resolve().parents[3] / "third_party" / "stacks"


def faults(findings: Any) -> list[Finding]:
    return [item for item in findings if item.severity is not Severity.OK]


def test_torch_replaced_after_locking(fake_environment: Any) -> None:
    """The case seen in the field: a later install brought a newer torch."""
    env = fake_environment
    env.install("torch", "2.9.1")
    env.install("numpy", "2.2.6")
    env.install("late-comer", "1.2", requires=("torch>=2.9",))
    env.install("innocent", "3.4", requires=("torch>=2.0",))
    lock = env.lock(numpy="2.2.6", torch="2.8.0")
    (finding,) = faults(check_lock(env.read(), lock))
    assert (finding.check, finding.severity) == ("L1", Severity.FATAL)
    assert finding.message == "torch is 2.9.1, the lock says 2.8.0."
    assert finding.remedy == (
        "late-comer 1.2 (requires torch>=2.9), installed after the lock, replaced it: install with "
        "--no-deps or --require-hashes as the last step. Repair: pip install --no-deps "
        f"--require-hashes --force-reinstall -r {lock}"
    )


def test_torch_comes_first_and_strays_are_named(fake_environment: Any) -> None:
    env = fake_environment
    for name, version in (("aaa", "2"), ("torch", "2.8.0+cu126"), ("stray", "0.1")):
        env.install(name, version)
    found = faults(check_lock(env.read(), env.lock(aaa="1", torch="2.8.0", gone="3")))
    assert [item.subject for item in found] == ["torch", "aaa", "gone"]
    assert found[0].message == "torch is 2.8.0+cu126, the lock says 2.8.0."
    assert "Something installed after the lock (not in it: stray 0.1) replaced it" in (
        found[0].remedy
    )
    assert found[2].message == "gone is missing; the lock says 3."


def test_a_file_that_another_package_overwrote(fake_environment: Any) -> None:
    env = fake_environment
    env.install("torch", "2.8.0", {"torch/lib/libtorch.so": b"right", "torch/a.py": b"fine"})
    env.install("rogue", "1.0", {"torch/lib/libtorch.so": b"wrong"})
    lock = env.lock(torch="2.8.0")
    assert faults(check_lock(env.read(), lock)) == []
    (finding,) = faults(check_lock(env.read(), lock, files=True))
    assert finding.message == ("torch/lib/libtorch.so of torch 2.8.0 was overwritten by rogue 1.0.")
    assert finding.remedy == (
        "Uninstall rogue 1.0, then: pip install --no-deps --require-hashes --force-reinstall "
        f"-r {lock}"
    )


def test_a_file_that_is_gone(fake_environment: Any) -> None:
    env = fake_environment
    env.install("torch", "2.8.0", {"torch/a.py": b"a", "torch/b.py": b"b"})
    (env.site_packages / "torch/a.py").unlink()
    (finding,) = faults(check_lock(env.read(), env.lock(torch="2.8.0"), files=True))
    assert finding.message == "torch/a.py of torch 2.8.0 is gone."


def test_a_sound_environment(fake_environment: Any) -> None:
    env = fake_environment
    env.install("torch", "2.8.0", {"torch/a.py": b"a"})
    (finding,) = check_lock(env.read(), env.lock(torch="2.8"), files=True)
    assert (finding.severity, finding.message) == (
        Severity.OK,
        "1 packages as stack.lock says, every file their own",
    )


@pytest.mark.parametrize("stack", ["sm_75", "sm_86", "sm_120"])
def test_the_shipped_locks_are_read(stack: str) -> None:
    locked = {item.name: item for item in read_lock(STACKS / f"{stack}.lock", (3, 12))}
    assert {"torch", "numpy", "nvidia-cuda-nvrtc-cu12"} <= set(locked)
    assert all(item.hashes for item in locked.values())


def test_what_is_no_lock_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.lock"
    file.write_text("torch>=2\n")
    with pytest.raises(GuardError, match="pins no package"):
        read_lock(file)
    with pytest.raises(GuardError, match="cannot be read"):
        read_lock(tmp_path / "absent")
