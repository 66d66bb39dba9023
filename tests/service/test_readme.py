"""What the README tells people to type works: its `sh` and `python` blocks, on a real service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder that looks like the checkout, with `meshpress` on its PATH."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "tests").symlink_to(ROOT / "tests")
    (folder / "bin").mkdir()
    command = folder / "bin" / "meshpress"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m service.cli "$@"\n')
    command.chmod(0o755)
    return folder


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs_and_writes_what_it_says(number, folder, live_service):
    language, text = BLOCKS[number]
    text = text.replace("http://127.0.0.1:8080", live_service.url)
    command = ["sh", "-eu", "-c", text] if language == "sh" else [sys.executable, "-c", text]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MESHPRESS_")}
    environment |= {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode in ({0, 1} if "doctor" in text else {0}), done.stderr + done.stdout
    written = re.findall(r"[\w-]+\.(?:glb|sog)\b", text)
    made = [name for name in written if (folder / name).is_file()]
    assert {Path(name).name for name in written} - {"mesh.glb"} == set(made) - {"mesh.glb"}
    for name in made:
        head = (folder / name).read_bytes()[:4]
        assert head == (b"glTF" if name.endswith(".glb") else b"PK\x03\x04"), name


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
