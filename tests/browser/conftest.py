"""Finds what the tests here drive: Node.js, its packages and Chromium. Installs nothing.

`npm ci --ignore-scripts` in this folder brings the packages (Node.js 22 among them);
Chromium comes from the system. Without them the tests skip and say why.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGES = HERE / "node_modules"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


def package(name: str) -> Path:
    path = PACKAGES / name
    if not path.is_dir():
        pytest.skip(f"npm package '{name}' absent: run 'npm ci --ignore-scripts' in tests/browser")
    return path


@pytest.fixture(scope="session")
def node() -> Callable[..., str]:
    """node(script, *arguments) -> its stdout; Node.js 22 from the packages."""
    architecture = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "x64")
    binary = package(f"node-linux-{architecture}") / "bin" / "node"

    def run(script: Path, *arguments: object) -> str:
        done = subprocess.run(
            [str(binary), str(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def splat_transform(node: Callable[..., str]) -> Callable[..., str]:
    """splat_transform(source, target): converts by the peer's command-line tool."""
    script = package("@playcanvas/splat-transform") / "bin" / "cli.mjs"
    return lambda *arguments: node(script, "-q", "-w", "-g", "cpu", *arguments)


@pytest.fixture(scope="session")
def chromium() -> Path:
    package("playcanvas")
    package("playwright-core")
    for name in CHROMIUM_NAMES:
        if found := shutil.which(name):
            return Path(found)
    pytest.skip(f"no browser on the PATH ({', '.join(CHROMIUM_NAMES)})")
