"""A tiny release on disk, once for all tests of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.image_to_mesh.trellis.tiny import write_dinov2, write_release


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as `meshpress models pull` lays them out: a folder an entry. Read, never write."""
    folder = tmp_path_factory.mktemp("models")
    write_release(folder / "trellis-image-large")
    write_dinov2(folder / "dinov2-large-registers")
    return folder
