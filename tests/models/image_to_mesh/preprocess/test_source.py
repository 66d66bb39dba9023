"""Which method finds the object: by option, weights, packages and device; and who wins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.context import Cancelled, InputFile, InvalidInput, LocalContext, Unavailable
from models.image_to_mesh.options import EmbeddedOptions
from models.image_to_mesh.options.shared import MaskMethod
from models.image_to_mesh.pipeline import EmbeddedPipeline
from models.image_to_mesh.preprocess import source as source_module
from models.image_to_mesh.preprocess.background import Separation
from models.image_to_mesh.preprocess.decode import Picture
from models.image_to_mesh.preprocess.mask import cut_out
from models.image_to_mesh.preprocess.source import MaskSource, Method, judged, mask_source
from models.weights.catalogue import find_entries

ALPHA = np.pad(np.ones((20, 20), np.float32), 10)
RGB = np.zeros((40, 40, 3), np.uint8)
CHECKERS = (np.indices((40, 40)).sum(0) % 2 * 255).astype(np.uint8)
PHOTO = Picture("photo.jpg", np.dstack([CHECKERS] * 3 + [np.full((40, 40), 255, np.uint8)]))
LACKING = Unavailable("BiRefNet does not fit.", code="out_of_memory", next_step="Buy memory.")


def method(confidence: float, fault: Exception | None = None) -> Method:
    def run(rgb: np.ndarray, seed: int) -> Separation:
        if fault is not None:
            raise fault
        return Separation(ALPHA * confidence, confidence, "a reason")

    return run


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A models folder without weights; called, with files of the published sizes."""
    monkeypatch.setenv("MESHPRESS_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    def put() -> None:
        (entry,) = find_entries(["birefnet"])
        for file in entry.files:
            path = tmp_path / "models" / entry.name / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as sparse:
                sparse.truncate(file.size_bytes or 1)

    return put


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "find_spec", lambda name: None if name == "torch" else name)


def names(chosen: MaskSource) -> list[str]:
    return [name for name, _ in chosen.methods]


@pytest.mark.parametrize(
    ("option", "device", "order"),
    [
        ("auto", "cpu", ["background", "birefnet"]),
        ("auto", "cuda:0", ["birefnet", "background"]),
        ("birefnet", "cpu", ["birefnet"]),
        ("classic", "cuda:0", ["background"]),
    ],
)
def test_with_weights_the_device_decides(
    option: MaskMethod, device: str, order: list[str], weights: Callable[[], None]
) -> None:
    weights()
    assert names(mask_source(option, device)) == order


def test_without_weights_the_classical_method_tells_of_them(weights: Callable[[], None]) -> None:
    chosen = mask_source("auto", "cuda:0")
    assert (names(chosen), chosen.notes) == (["background"], ())
    with pytest.raises(InvalidInput) as caught:
        cut_out(PHOTO, source=chosen)
    assert "meshpress models pull birefnet" in caught.value.next_step


def test_weights_without_torch_are_a_warning(
    weights: Callable[[], None], monkeypatch: pytest.MonkeyPatch, samples: Path, tmp_path: Path
) -> None:
    """The embedded pipeline goes on without, and its report says what to do."""
    weights()
    without_torch(monkeypatch)
    picture = Picture("robot.png", np.dstack([RGB, np.full((40, 40), 255, np.uint8)]))
    picture.pixels[10:30, 10:30] = (200, 40, 40, 255)
    found = cut_out(picture, source=mask_source("auto", "cpu"))
    assert found.source == "background"
    (note,) = (note for note in found.notes if "torch" in note)
    assert 'pip install "meshpress[torch]"' in note
    # A file that marks its object itself needs no network, and hears nothing of it.
    robot = InputFile(samples / "robot.png", "robot.png")
    options = EmbeddedOptions(faces=500, resolution=128)
    report = EmbeddedPipeline()(LocalContext(tmp_path), [robot], options).report
    assert report["views"][0]["mask"]["source"] == "alpha"
    assert not any("torch" in warning for warning in report["warnings"])


def test_the_network_by_name_needs_weights_and_torch(
    weights: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = mask_source("birefnet", "cpu")
    with pytest.raises(Unavailable) as caught:
        cut_out(PHOTO, source=chosen)
    assert caught.value.code == "weights_missing"
    assert "meshpress models pull birefnet" in caught.value.next_step
    weights()
    without_torch(monkeypatch)
    with pytest.raises(Unavailable) as caught:
        cut_out(PHOTO, source=chosen)
    assert caught.value.code == "torch_missing"


def test_damaged_weights_cost_a_note_where_there_is_another_way(
    weights: Callable[[], None],
) -> None:
    weights()  # of the right size, and all zeros
    chosen = mask_source("auto", "cpu")
    first = MaskSource(chosen.methods[::-1])
    found = first.find(np.where(ALPHA[..., None] > 0, np.uint8(200), RGB).astype(np.uint8), 0)
    assert found.source == "background"
    assert "model.safetensors cannot be read" in found.notes[0]
    with pytest.raises(InvalidInput) as caught:
        cut_out(PHOTO, source=chosen)
    assert "meshpress models verify" in caught.value.next_step


def test_the_first_that_is_sure_wins() -> None:
    def never(rgb: np.ndarray, seed: int) -> Separation:
        raise AssertionError("asked although the first was sure")

    found = MaskSource((("background", method(0.6)), ("birefnet", never))).find(RGB, 0)
    assert (found.source, found.separation.confidence) == ("background", 0.6)


def test_else_the_surest_wins() -> None:
    for order in ((0.2, 0.4), (0.4, 0.2)):
        methods = (("birefnet", method(order[0])), ("background", method(order[1])))
        found = MaskSource(methods).find(RGB, 0)  # type: ignore[arg-type]
        assert found.separation.confidence == 0.4
    sure = MaskSource((("birefnet", method(0.1)), ("background", method(0.9)))).find(RGB, 0)
    assert sure.source == "background"


def test_a_method_that_cannot_run_is_noted_or_raised() -> None:
    broken = method(1, LACKING)
    found = MaskSource((("birefnet", broken), ("background", method(0.9)))).find(RGB, 0)
    assert (found.source, found.notes) == ("background", ("BiRefNet does not fit. Buy memory.",))
    with pytest.raises(Unavailable):
        MaskSource((("birefnet", broken),)).find(RGB, 0)


def test_a_pipeline_is_cancelled_within_the_network(
    weights: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Cancelled while the network's fifth stage runs: the sixth never does."""
    from models.image_to_mesh.preprocess.birefnet import remover as remover_module
    from models.image_to_mesh.preprocess.birefnet.network import BiRefNet, BiRefNetConfig
    from models.nn.residency import Residency
    from tests.models.image_to_mesh.preprocess.seeded import seeded

    weights()
    tiny = BiRefNetConfig(8, (1, 1, 1, 1), (1, 1, 2, 2), 4, inner=8, branch=8, detail=4)
    network = seeded(BiRefNet(tiny))
    remover = remover_module.BackgroundRemover(network, Residency("cpu"), 64)
    monkeypatch.setattr(remover_module, "shared_remover", lambda folder, device: remover)
    run = 0

    def count(*_: object) -> None:
        nonlocal run
        run += 1

    for part in remover_module.stages(network):
        part.register_forward_hook(count)
    Image.fromarray(PHOTO.pixels[..., :3]).save(tmp_path / "photo.png")
    context = LocalContext(tmp_path, is_cancelled=lambda: run == 5)
    inputs = [InputFile(tmp_path / "photo.png", "photo.png")]
    with pytest.raises(Cancelled):
        EmbeddedPipeline()(context, inputs, EmbeddedOptions(mask="birefnet"))
    assert run == 5


def test_the_cutout_carries_the_networks_alpha() -> None:
    cutout = cut_out(PHOTO, source=MaskSource((("birefnet", method(0.9)),), notes=("by hand",)))
    assert (cutout.source, cutout.confidence) == ("birefnet", 0.9)
    assert np.array_equal(cutout.rgba[..., 3], ALPHA * np.float32(0.9))
    assert cutout.notes == ("photo.jpg: by hand",)


@pytest.mark.parametrize(
    ("alpha", "low", "high", "reason"),
    [
        (ALPHA, 1.0, 1.0, "outline"),
        (0.6 * ALPHA, 0.15, 0.25, "outline"),
        (0.4 * ALPHA, 0.0, 0.0, "no object"),
        (np.ones((9, 9), np.float32), 0.0, 0.0, "fills"),
    ],
    ids=["sharp", "vague", "nothing", "all"],
)
def test_confidence_of_a_mask(alpha: np.ndarray, low: float, high: float, reason: str) -> None:
    verdict = judged(alpha)
    assert low - 1e-6 <= verdict.confidence <= high + 1e-6
    assert reason in verdict.reason


def test_the_pipeline_imports_no_torch() -> None:
    code = "import sys, models.image_to_mesh.pipeline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
