"""Environments of a few text files and the libraries in fixtures/, each compiled for some GPUs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


class Site:
    """A site-packages folder one can install made-up packages into."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "lib" / "python3.12" / "site-packages"
        self.folder.mkdir(parents=True)

    def install(
        self,
        name: str,
        version: str,
        libraries: Mapping[str, str] | None = None,  # path in site-packages -> fixture, "every"
        texts: Mapping[str, str] | None = None,
        requires: tuple[str, ...] = (),
    ) -> Path:
        """Its dist-info folder."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n\nWords.\n")
        record = [f"{info.name}/METADATA,,"]
        for file, fixture in (libraries or {}).items():
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(FIXTURES / f"{fixture}.so", self.folder / file)
            record.append(f"{file},sha256=made-up,1")
        for file, text in (texts or {}).items():
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / file).write_text(text)
            record.append(f"{file},,")
        (info / "RECORD").write_text("\n".join(record) + "\n")
        return info


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "venv")


@pytest.fixture(scope="session")
def compiled() -> Path:
    """The folder of libraries compiled by its build.py."""
    return FIXTURES
