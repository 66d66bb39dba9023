"""A whole scene coded on a GPU against the CPU: what is not the palette's is the same file."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from models.context import Cancelled
from models.splat_to_sog.encode import encode
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.splats import Splats

pytestmark = pytest.mark.gpu

OF_THE_PALETTE = {"shN_centroids.webp", "shN_labels.webp", "meta.json"}


def scene(rng, n: int, coefficients: int = 15) -> Splats:
    def values(*shape: int) -> np.ndarray:
        return rng.normal(size=(n, *shape)).astype(np.float32)

    return Splats(
        means=values(3) * 4,
        scales=values(3) - 4,
        quats=values(4),
        opacities=values(),
        sh0=values(3),
        shN=values(3, coefficients) * np.float32(0.1),
    )


@pytest.mark.parametrize("preset", ["quality", "small"])
def test_attributes_are_the_cpus_to_the_byte_and_runs_alike(rng, cuda, preset) -> None:
    splats = scene(rng, 50_000)
    ours, again = (encode(splats, SogOptions(preset=preset), device=cuda) for _ in range(2))
    assert ours.files == again.files
    cpu = encode(splats, SogOptions(preset=preset))
    np.testing.assert_array_equal(ours.order, cpu.order)
    for name in ours.files.keys() - OF_THE_PALETTE:
        assert ours.files[name] == cpu.files[name], name
    sizes = [sum(map(len, found.files.values())) for found in (ours, cpu)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)  # palettes of the same price


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
@pytest.mark.parametrize("n", [1, 2, 129, 5000])
def test_scenes_of_any_size_and_degree(rng, cuda, n, coefficients) -> None:
    splats = scene(rng, n, coefficients)
    ours, cpu = (encode(splats, SogOptions(), device=device) for device in (cuda, "cpu"))
    assert ours.files.keys() == cpu.files.keys()
    for name in ours.files.keys() - OF_THE_PALETTE:
        assert ours.files[name] == cpu.files[name], name


def test_scenes_at_the_ends_of_their_range(rng, cuda) -> None:
    splats = scene(rng, 3000)
    splats.means[:5] = 1e30
    splats.scales[10:40, 2] = -np.inf
    splats.opacities[:2] = np.inf, -np.inf
    splats.sh0[:] = 0.5
    for factor in (0, 1e-30, 1e25):
        odd = replace(splats, shN=splats.shN * np.float32(factor))
        ours, cpu = (encode(odd, SogOptions(), device=device) for device in (cuda, "cpu"))
        for name in ours.files.keys() - OF_THE_PALETTE:
            assert ours.files[name] == cpu.files[name], (factor, name)


@pytest.mark.parametrize("stage", ["quantise", "palette", "textures"])
def test_who_cancels_leaves_no_thread_behind(rng, cuda, stage) -> None:
    def cancel(at: str, fraction: float) -> None:
        if at == stage:
            raise Cancelled("the user asked for it")

    splats, before = scene(rng, 20_000), threading.active_count()
    with pytest.raises(Cancelled):
        encode(splats, SogOptions(), cancel, device=cuda)
    assert threading.active_count() == before
