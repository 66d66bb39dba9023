"""ReconViaGen on a GPU: near its fp32 self on a CPU, and nothing left behind when a job ends."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.context import Cancelled, InputFile, LocalContext
from models.image_to_mesh.options import ReconViaGenOptions
from models.image_to_mesh.reconviagen.checkpoint import Folders, load_generator
from models.image_to_mesh.reconviagen.generator import Generator
from models.image_to_mesh.reconviagen.multi_view_flow import MultiViewCrossAttention
from models.image_to_mesh.reconviagen.pipeline import ReconViaGenPipeline
from models.image_to_mesh.reconviagen.release import read_release
from models.nn.attention import Segments
from models.nn.residency import Residency
from tests.gpu.memory import memory
from tests.models.image_to_mesh.reconviagen.tiny import tiny_vggt, write_all

pytestmark = pytest.mark.gpu

WITHIN = {torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""11 and 8 bits, through a few dozen roundings, of the largest value."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    weights = tmp_path_factory.mktemp("models")
    write_all(weights)
    return weights


def pipeline_on(
    device: str, folder: Path, dtype: torch.dtype, offload: bool = False
) -> ReconViaGenPipeline:
    release = read_release(folder / "reconviagen-v0-2")
    folders = Folders(folder / "dinov2-large-registers", folder / "vggt-object-v0-1")
    residency = Residency(device, offload=offload)
    return ReconViaGenPipeline(
        load_generator(release, folders, residency, dtype, tiny_vggt), release
    )


def looked(generator: Generator, rng_seed: int) -> list[Tensor]:
    rng = np.random.default_rng(rng_seed)
    pictures = [rng.integers(0, 256, (518, 518, 3), dtype=np.uint8) for _ in range(3)]
    seen = generator.look(pictures)
    return [seen.structure.cpu(), seen.latent.cpu(), seen.poses]


@pytest.mark.parametrize("dtype", WITHIN, ids=str)
def test_what_is_seen_is_what_a_cpu_sees(
    folder: Path, rng: np.random.Generator, dtype: torch.dtype
) -> None:
    seed = int(rng.integers(1 << 30))
    expected = looked(pipeline_on("cpu", folder, torch.float32).generator, seed)
    found = looked(pipeline_on("cuda", folder, dtype).generator, seed)
    for out, exact in zip(found, expected, strict=True):
        assert out.isfinite().all()
        assert (out - exact).abs().max() <= WITHIN[dtype] * exact.abs().max()


@pytest.mark.parametrize("dtype", WITHIN, ids=str)
@torch.no_grad()
def test_views_are_averaged_as_in_fp64(
    folder: Path, rng: np.random.Generator, dtype: torch.dtype
) -> None:
    torch.manual_seed(int(rng.integers(1 << 30)))
    layer = MultiViewCrossAttention(128, 96, 2)
    x, views = torch.randn(700, 128), torch.randn(5, 137, 96)
    exact = layer.double()(x.double(), layer.keys_values(views.double()), Segments([700]))
    layer = layer.to("cuda", dtype)
    x, views = x.to("cuda", dtype), views.to("cuda", dtype)
    out = layer(x, layer.keys_values(views), Segments([700])).cpu().double()
    assert (out - exact).norm() <= 2 * WITHIN[dtype] * exact.norm()


@pytest.mark.parametrize("offload", [False, True], ids=["resident", "off_loaded"])
def test_memory_is_back_after_success_cancel_and_failure(
    folder: Path,
    disc: InputFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offload: bool,
) -> None:
    pipeline = pipeline_on("cuda", folder, torch.bfloat16, offload)
    options = ReconViaGenOptions(formats=("splat",), steps=3)
    pipeline(LocalContext(tmp_path, device="cuda"), [disc, disc], options)
    gc.collect()
    torch.cuda.empty_cache()
    before = memory()

    for stage in ("look", "structure", "latent"):
        seen: list[str] = []
        context = LocalContext(
            tmp_path,
            device="cuda",
            on_progress=lambda name, *_, seen=seen: seen.append(name),
            is_cancelled=lambda stage=stage, seen=seen: seen.count(stage) > 1,
        )
        with pytest.raises(Cancelled) as stopped:
            pipeline(context, [disc, disc], options)
        assert all(now <= then for now, then in zip(memory(), before, strict=True))
        assert stopped.value.code == "cancelled"  # held until here, as a job's record would

    def broken(*arguments: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(pipeline.generator.base.networks.latent_flow.out_layer, "forward", broken)
    with pytest.raises(RuntimeError, match="out of luck") as failed:
        pipeline(LocalContext(tmp_path, device="cuda"), [disc, disc], options)
    assert all(now <= then for now, then in zip(memory(), before, strict=True))
    assert failed.value.args
