"""Who may import whom, and what `meshpress --version` must not load."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import models
import service

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "numpy",
    "fastapi",
    "dbos",
    "sqlalchemy",
    "pydantic",
    "httpx",
    "rich",
    "structlog",
)
LINT = (
    "import sys\nfrom importlinter.cli import lint_imports\nsys.exit(lint_imports(no_cache=True))"
)


def test_contracts_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert f"Contracts: {len(contracts['contracts'])} kept, 0 broken." in done.stdout


def test_a_breach_is_found(tmp_path: Path) -> None:
    """The contracts can fail: a copy of the tree in which a model imports the service."""
    for package in ("service", "models"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "models" / "__init__.py").write_text("import service\n")
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    first = contract["contracts"][0]
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_packages = ["service", "models"]\n'
        f"[[tool.importlinter.contracts]]\nname = {json.dumps(first['name'])}\n"
        f"type = {json.dumps(first['type'])}\n"
        f"source_modules = {json.dumps(first['source_modules'])}\n"
        f"forbidden_modules = {json.dumps(first['forbidden_modules'])}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "models never imports service BROKEN" in done.stdout


def loaded_by(*arguments: str) -> set[str]:
    """The top-level modules in a process that has run this command line."""
    code = (
        "import json, sys\nfrom service.cli.root import run\n"
        "code = run(sys.argv[1:])\n"
        "sys.stderr.write(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    exit_code, names = json.loads(done.stderr)
    assert exit_code == 0
    return set(names)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["serve", "--help"]])
def test_what_only_prints_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_help_of_a_pipeline_does_not_load_it() -> None:
    loaded = loaded_by("mesh", "--help")
    assert "pydantic" in loaded
    assert loaded.isdisjoint({"torch", "numpy", "fastapi", "dbos", "sqlalchemy", "httpx"})


def test_the_local_verbs_load_no_server() -> None:
    assert loaded_by("doctor", "--quick").isdisjoint({"fastapi", "dbos", "sqlalchemy", "torch"})


def test_the_splat_pipeline_loads_compilers_and_trees_only_when_it_uses_them() -> None:
    code = (
        "import json, sys, models.splat_to_sog.pipeline\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(json.loads(done.stdout))
    assert "numpy" in loaded
    assert loaded.isdisjoint({"numba", "scipy", "cv2", "cupy", "torch"})


def test_service_and_models_come_from_one_tree() -> None:
    assert Path(service.__file__).parents[1] == Path(models.__file__).parents[1] == ROOT
