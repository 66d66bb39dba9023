"""The settings table: read, refused, passed on, offered by `serve`, and documented."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

from service.cli.serve import NOT_FOR_SERVING, serve
from service.settings import PREFIX, SettingError, Settings, read_settings, to_environment

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = fields(Settings)


def test_the_environment_wins_over_the_table_and_the_call_over_both() -> None:
    assert read_settings({}).port == 8080
    assert read_settings({"MESHPRESS_PORT": "81"}).port == 81
    assert read_settings({"MESHPRESS_PORT": "81"}, port=82).port == 82
    assert read_settings({"MESHPRESS_PORT": "81"}, port=None).port == 81
    assert read_settings({"MESHPRESS_PORT": "81", "SAGEMAKER_BIND_TO_PORT": "83"}).port == 83


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("MESHPRESS_PORT", "eighty", "'eighty'; allowed: a whole number from 0 to 65535"),
        ("MESHPRESS_PORT", "65536", "a whole number from 0 to 65535"),
        ("MESHPRESS_POLL_SECONDS", "nan", "a number from 0.005 to 60"),
        ("MESHPRESS_GUARD", "lax", "one of strict, serve, off"),
        ("MESHPRESS_PROT", "80", "MESHPRESS_PROT names no setting"),
        ("SAGEMAKER_BIND_TO_PORT", "x", "SAGEMAKER_BIND_TO_PORT"),
    ],
)
def test_what_is_not_allowed_is_named(variable: str, value: str, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        read_settings({variable: value})


def test_a_child_process_reads_the_same_settings(tmp_path: Path) -> None:
    settings = read_settings({}, port=81, data_dir=tmp_path, poll_seconds=0.01, guard="off")
    assert read_settings(to_environment(settings)) == settings


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_is_documented(setting) -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert f"| `{PREFIX}{setting.name.upper()}` |" in page
    assert setting.metadata["help"] in page


def test_each_setting_is_an_option_of_serve() -> None:
    offered = {param.name for param in serve.params} - {"role"}
    assert offered == {setting.name for setting in SETTINGS} - NOT_FOR_SERVING


def test_an_option_of_serve_is_refused_like_the_variable() -> None:
    with pytest.raises(click.BadParameter, match="one of strict, serve, off"):
        serve.make_context("serve", ["--guard", "lax"])
    context = serve.make_context("serve", ["--port", "81", "--data-dir", "~/x"])
    assert context.params["port"] == 81
    assert context.params["data_dir"] == Path.home() / "x"
    assert context.params["host"] is None  # not given: the environment or the table decides


def test_a_faulty_environment_ends_serve_with_code_2(meshpress) -> None:
    done = meshpress("serve", MESHPRESS_PORTT="80")
    assert done.returncode == 2
    expected = b"Error: MESHPRESS_PORTT names no setting; see docs/settings.md for the list.\n"
    assert done.stderr == expected


def test_the_reference_pages_do_not_drift() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
