"""The comparison: against an independent rasteriser, on real scenes, and on what may go wrong."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest
from PIL import Image

from models.splat_to_sog.metrics import project_numba, rasterise_numba, renderer, report
from models.splat_to_sog.metrics.cameras import orbit
from models.splat_to_sog.metrics.report import compare, default_views
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import Splats
from tests.models.splat_to_sog.conftest import MakeSplats


def noisy(splats: Splats, amount: float, rng: np.random.Generator) -> Splats:
    """Every attribute a little off, as coding leaves it."""

    def off(values: np.ndarray) -> np.ndarray:
        return values + rng.normal(0, amount, values.shape).astype(np.float32)

    return replace(splats, scales=off(splats.scales), sh0=off(splats.sh0), quats=off(splats.quats))


@pytest.fixture
def yardstick(shared: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The independent rasteriser that measures every codec alike; no trace of it is left."""
    source = shared("tools/splat_eval/render_metric.py")
    monkeypatch.setattr(sys, "path", [str(source.parent), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(Path(tempfile.gettempdir()) / "numba"))
    spec = importlib.util.spec_from_file_location("render_metric", source)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_yardstick(splats: Splats) -> dict[str, np.ndarray]:
    return {
        "pos": splats.means,
        "dc": splats.sh0,
        "op": splats.opacities,
        "scale": splats.scales,
        "rot": splats.quats,
        "sh": splats.shN.reshape(len(splats), -1),
    }


@pytest.mark.parametrize("pair", [("biker.compressed.ply", "biker.spz"), ("playbot", None)])
def test_agrees_with_the_yardstick(
    pair: tuple[str, str | None],
    yardstick: ModuleType,
    shared: Callable[[str], Path],
    samples: Path,
    rng: np.random.Generator,
) -> None:
    """Same cameras, same picture, same figures as an implementation that shares no line with ours.

    It computes in float32 with fast arithmetic: a pixel at alpha = 1/255 may fall either way.
    """
    if pair[1] is None:
        original = read(samples / "playbot.compressed.ply", "playbot")
        original = original.take(np.arange(0, len(original), 4))
        decoded = noisy(original, 0.02, rng)
    else:
        original, decoded = (read(shared(f"data/splats/{name}"), name) for name in pair)
    ours = compare(original, decoded, views=4, size_px=256, attributes=False)
    theirs = yardstick.metric(as_yardstick(original), as_yardstick(decoded), 4, 256)
    assert ours.psnr_db == pytest.approx(theirs["psnr"], abs=0.1)
    assert ours.psnr_pooled_db == pytest.approx(theirs["psnr_pooled"], abs=0.1)
    assert ours.ssim == pytest.approx(theirs["ssim"], abs=1e-4)
    camera = orbit(original, 4, 256)[1]
    drawn = np.minimum(renderer.renderer(original).render(camera), 1)
    pose = yardstick.cameras(as_yardstick(original), 4)[1]
    error = np.abs(drawn - yardstick.render(as_yardstick(original), *pose, 256))
    assert np.mean(error > 1e-3) < 1e-3 and error.max() < 0.01
    assert drawn.mean() > 0.01


def test_equal_scenes(make_splats: MakeSplats) -> None:
    splats = make_splats(300, 1)
    found = compare(splats, splats, views=4, size_px=48)
    assert found.psnr_db == found.psnr_pooled_db == 120
    assert found.ssim == pytest.approx(1)
    assert found.backend == "numba"


def test_the_report_is_json(make_splats: MakeSplats, rng: np.random.Generator) -> None:
    splats = make_splats(300, 1)
    decoded = noisy(splats, 0.1, rng)
    found = compare(splats, decoded, views=4, size_px=64)
    facts = json.loads(json.dumps(found.report(), allow_nan=False))
    assert facts["psnr_db"] == round(found.psnr_db, 2) < 60
    assert facts["psnr_min_db"] == min(view["psnr_db"] for view in facts["views"])
    assert len(facts["views"]) == 4
    assert facts["attributes"]["colour"]["rms"] > 0
    assert "attributes" not in compare(splats, decoded, views=1, attributes=False).report()
    more = compare(splats, noisy(splats, 0.3, rng), views=4, size_px=64)
    assert more.psnr_db < found.psnr_db - 3 and more.ssim < found.ssim


def test_the_preview_shows_the_worst_view(make_splats: MakeSplats, rng) -> None:
    splats = make_splats(300)
    decoded = noisy(splats, 0.3, rng)
    found = compare(splats, decoded, views=4, size_px=64, attributes=False)
    worst = min(range(4), key=lambda view: found.views[view].psnr_db)
    camera = orbit(splats, 4, 64)[worst]
    with Image.open(io.BytesIO(found.preview)) as picture:
        assert picture.format == "WEBP" and picture.size == (1024, 340)
        strip = np.asarray(picture.convert("RGB"), np.float64) / 255
    a, b = (np.minimum(renderer.renderer(s).render(camera), 1) for s in (splats, decoded))
    panels = [strip[:, :340], strip[:, 342:682], strip[:, 684:]]
    for panel, image in zip(panels, (a, b, np.minimum(10 * np.abs(a - b), 1)), strict=True):
        enlarged = image[np.arange(340) * 64 // 340][:, np.arange(340) * 64 // 340]
        assert np.abs(panel - enlarged).mean() < 0.05  # lossy, edges of enlarged pixels


def test_steps_are_told_and_may_stop_it(make_splats: MakeSplats) -> None:
    splats, steps = make_splats(50), []
    compare(splats, splats, views=4, size_px=32, on_step=steps.append)
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == 0.8

    def stop(fraction: float) -> None:
        if fraction > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(splats, splats, views=4, size_px=32, on_step=stop)


def test_views_by_default() -> None:
    assert default_views(1) == default_views(500_000) == 8
    assert default_views(500_001) == 4
    assert default_views(500_001, "cuda:0") == 8


def test_without_the_compiler_the_reference_draws(
    make_splats: MakeSplats, monkeypatch, rng
) -> None:
    splats = make_splats(200, 1)
    decoded = noisy(splats, 0.1, rng)
    compiled = compare(splats, decoded, views=2, size_px=48, attributes=False)
    monkeypatch.setattr(renderer, "_have_numba", lambda: False)
    for module in (project_numba, rasterise_numba):
        for name in ("project", "rasterise"):
            monkeypatch.delattr(module, name, raising=False)
    plain = compare(splats, decoded, views=2, size_px=48, attributes=False)
    assert plain.backend == "numpy"
    assert plain.psnr_db == pytest.approx(compiled.psnr_db, abs=0.01)


def test_a_single_splat_is_compared(make_splats: MakeSplats) -> None:
    splats = make_splats(1)
    found = compare(splats, replace(splats, sh0=splats.sh0 + np.float32(0.5)), views=4, size_px=64)
    assert found.psnr_db < 60


def test_numba_is_loaded_on_demand() -> None:
    code = (
        "import sys, models.splat_to_sog.metrics.report;"
        "sys.exit(any(m in sys.modules for m in ('numba', 'cupy', 'torch')))"
    )
    root = Path(report.__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
