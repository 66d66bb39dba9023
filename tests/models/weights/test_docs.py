"""docs/models.md: its table is the catalogue's, its errors are all there are, its code runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.weights.catalogue import CATALOGUE
from models.weights.safetensors import check

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_the_table_is_the_catalogues(entry, page) -> None:
    link = f"[{entry.repo}](https://huggingface.co/{entry.repo})"
    row = (
        f"| `{entry.name}` | {link} | `{entry.revision[:12] or 'newest'}` | {entry.licence.name} | "
    )
    assert row in page
    if not entry.optional:
        assert f"{row}{', '.join(entry.pipelines)} |" in page


def test_every_code_is_explained(page) -> None:
    raised = {
        keyword.value.value
        for path in (ROOT / "models" / "weights").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }
    explained = set(re.findall(r"^\| `((?:weights|hub)_\w+)` \|", page, re.MULTILINE))
    assert raised == explained


def test_the_conversion_makes_files_that_are_taken(page, tmp_path) -> None:
    """A checkpoint of two networks in one file becomes one flat safetensors file."""
    import torch
    from safetensors.torch import load_file

    shared = torch.arange(6.0)
    tree = {"vae": {"a.weight": shared.reshape(2, 3).T, "b": shared}, "dit": {"c": torch.ones(2)}}
    torch.save(tree, tmp_path / "model.ckpt")
    (module,) = re.findall(r"^python -m (\S+) model_dense.ckpt", page, re.MULTILINE)
    files = [str(tmp_path / f"model.{suffix}") for suffix in ("ckpt", "safetensors")]
    subprocess.run([sys.executable, "-m", module, *files], cwd=ROOT, check=True, timeout=120)
    check(tmp_path / "model.safetensors")
    state = load_file(tmp_path / "model.safetensors")
    assert set(state) == {"vae.a.weight", "vae.b", "dit.c"}
    assert torch.equal(state["vae.a.weight"], shared.reshape(2, 3).T)
