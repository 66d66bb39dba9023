"""A tiny release on disk and a pipeline loaded from it, once for all tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.image_to_mesh.reconviagen.checkpoint import Folders, load_generator
from models.image_to_mesh.reconviagen.pipeline import ReconViaGenPipeline
from models.image_to_mesh.reconviagen.release import read_release
from models.nn.residency import Residency
from tests.models.image_to_mesh.reconviagen.tiny import tiny_vggt, write_all


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small cost more to share out than to compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as `meshpress models pull` lays them out: a folder an entry. Read, never write."""
    folder = tmp_path_factory.mktemp("models")
    write_all(folder)
    return folder


def load_from(folder: Path, dtype: torch.dtype = torch.float32) -> ReconViaGenPipeline:
    release = read_release(folder / "reconviagen-v0-2")
    folders = Folders(folder / "dinov2-large-registers", folder / "vggt-object-v0-1")
    return ReconViaGenPipeline(
        load_generator(release, folders, Residency("cpu"), dtype, tiny_vggt), release
    )


@pytest.fixture(scope="session")
def loaded(models_folder: Path) -> ReconViaGenPipeline:
    return load_from(models_folder)
