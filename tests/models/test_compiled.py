"""Compiled loops: kept on disk where that can be, and worked out again where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import compiled


def test_a_full_disk_costs_time_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = compiled.numba.njit

    def failing(*args: object, cache: bool = False, **options: object) -> object:
        if cache:
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    monkeypatch.setattr(compiled.numba, "njit", failing)
    double = compiled.kernel(compiled.f64, returns=compiled.f64)(lambda x: 2 * x)
    assert double(21.0) == 42.0
    assert "No space left" in caplog.text


def test_where_compiled_code_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def find() -> Path | None:
        return compiled.cache_folder.__wrapped__(Path(__file__).parent)

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    assert find().parent == tmp_path / "chosen" and find().is_dir()
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find().parent == tmp_path
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert find() is None
    assert "not cached" in caplog.text
    monkeypatch.setattr(compiled, "cache_folder", lambda package: None)
    double = compiled.kernel(compiled.f64, returns=compiled.f64)(lambda x: 2 * x)
    assert double(21.0) == 42.0


def test_a_change_of_any_source_asks_for_another_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """numba looks at a kernel's own file alone; the constants of its neighbours are in it too."""
    find = compiled.cache_folder.__wrapped__
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    package = tmp_path / "package"
    package.mkdir()
    (package / "constants.py").write_text("SIDE = 1")
    before = find(package)
    assert find(package) == before
    (package / "constants.py").write_text("SIDE = 2")
    assert find(package) != before
