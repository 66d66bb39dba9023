"""Tiny releases on disk, once for all tests of a run, and pipelines made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from models.context import InputFile
from models.image_to_mesh.direct3d_s2.checkpoint import load_generator
from models.image_to_mesh.direct3d_s2.generator import Generator
from models.nn.residency import Residency
from tests.models.image_to_mesh.direct3d_s2.tiny import (
    egg,
    tiny_release,
    with_eggs,
    write_safetensors,
)
from tests.models.image_to_mesh.trellis.tiny import write_dinov2


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors are tiny here: threads that wait for one another cost more than they do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as they lie once they are converted: a folder an entry. Read, never write."""
    folder = tmp_path_factory.mktemp("models")
    for version in ("1.0", "1.1"):
        release = tiny_release(version)
        write_safetensors(release, folder / release.entry)
    write_dinov2(folder / "dinov2-large-registers")
    return folder


@pytest.fixture(scope="session")
def generators(models_folder: Path) -> dict[str, Generator]:
    """All networks tiny and random, by release."""
    return {version: load(models_folder, version) for version in ("1.0", "1.1")}


def load(folder: Path, version: str) -> Generator:
    release = tiny_release(version)
    images = folder / "dinov2-large-registers"
    return load_generator(release, folder / release.entry, images, Residency("cpu"), torch.float32)


@pytest.fixture(scope="session")
def egg_generators(generators: dict[str, Generator]) -> dict[str, Generator]:
    """The same, but what decodes a surface always decodes an egg."""
    return {version: with_eggs(generator) for version, generator in generators.items()}


@pytest.fixture
def oval(drawn: Callable[..., np.ndarray], save: Callable[..., InputFile]) -> InputFile:
    """The egg as one sees it from the front."""

    def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        plane = np.stack((x / 2 + 0.5, y / 2 + 0.5, np.full_like(x, 0.5)), axis=-1)
        return egg(torch.from_numpy(plane), 1).numpy() < 0

    return save(drawn(inside), "oval.png")
