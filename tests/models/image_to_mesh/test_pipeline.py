"""The embedded pipeline end to end: sound files, honest reports, precise refusals."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from pydantic import ValidationError

from models.context import Cancelled, InputFile, InvalidInput, LocalContext, PipelineResult
from models.image_to_mesh.finishing.check import read_back
from models.image_to_mesh.options import EmbeddedOptions
from models.image_to_mesh.pipeline import load

Run = Callable[..., PipelineResult]
Save = Callable[..., InputFile]
Draw = Callable[..., np.ndarray]


def merged(path: Path) -> trimesh.Trimesh:
    (mesh,) = trimesh.load_scene(path).geometry.values()
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    return mesh


def test_sample_becomes_a_sound_textured_glb(run: Run, samples: Path) -> None:
    result = run([InputFile(samples / "robot.png", "robot.png")])
    (artifact,) = result.artifacts
    mesh = merged(artifact.path)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert np.allclose(np.ptp(mesh.bounds, axis=0).max(), 1, atol=1e-4)
    assert np.abs(mesh.bounds).max() <= 0.5
    assert np.argmax(np.ptp(mesh.bounds, axis=0)) == 1  # the robot stands: +Y is up
    material = trimesh.load_scene(artifact.path, process=False).dump()[0].visual.material
    assert material.baseColorTexture.size == (1024, 1024)
    assert material.metallicFactor == 0
    assert 0.7 <= material.roughnessFactor <= 0.95
    # The antenna's red ball is up at the viewer's left, -x; a mirrored mesh would have it at +x.
    assert mesh.vertices[np.argmax(mesh.vertices[:, 1]), 0] < -0.1


def test_report_is_json_and_says_what_was_done(run: Run, samples: Path) -> None:
    report = json.loads(json.dumps(run([InputFile(samples / "robot.png", "robot.png")]).report))
    assert report["method"] == "medial balls"
    assert report["views_source"] == "single"
    assert report["views"][0]["mask"] == {"source": "alpha", "confidence": 1.0}
    assert report["mesh"]["watertight"] is True
    assert report["mesh"]["degenerate_faces"] == 0
    assert 1000 < report["mesh"]["faces"] <= 20_000
    assert set(report["seconds"]) == {"decode", "mask", "geometry", "simplify", "texture", "export"}
    assert any("estimated from the outline" in warning for warning in report["warnings"])


def test_equal_input_gives_equal_bytes(run: Run, samples: Path) -> None:
    robot = InputFile(samples / "robot.png", "robot.png")
    formats = ("glb", "obj", "ply", "stl")
    first = [a.path.read_bytes() for a in run([robot], formats=formats, resolution=128).artifacts]
    second = [a.path.read_bytes() for a in run([robot], formats=formats, resolution=128).artifacts]
    assert first == second


def test_every_format_holds_the_same_closed_mesh(run: Run, samples: Path) -> None:
    result = run(
        [InputFile(samples / "robot.png", "robot.png")], formats=("obj", "glb", "ply", "stl")
    )
    names = [artifact.name for artifact in result.artifacts]
    assert names == ["mesh.obj.zip", "mesh.glb", "mesh.ply", "mesh.stl"]
    paths = {artifact.name: artifact.path for artifact in result.artifacts}
    volume = result.report["mesh"]["volume"]
    for name in ("mesh.ply", "mesh.stl"):
        mesh = trimesh.load_mesh(paths[name])
        assert mesh.is_watertight, name
        assert mesh.volume == pytest.approx(volume, rel=1e-4), name
    colours = trimesh.load_mesh(paths["mesh.ply"], process=False).visual.vertex_colors
    assert np.ptp(colours[:, :3].astype(int), axis=0).min() > 100
    with zipfile.ZipFile(paths["mesh.obj.zip"]) as archive:
        assert archive.namelist() == ["mesh.obj", "mesh.mtl", "mesh.jpg"]
        text, material = archive.read("mesh.obj").decode(), archive.read("mesh.mtl").decode()
    assert "mtllib mesh.mtl" in text
    assert "map_Kd mesh.jpg" in material
    lines = [line.split() for line in text.splitlines()]
    positions = np.array([line[1:] for line in lines if line[0] == "v"], float)
    corners = np.array([[c.split("/") for c in line[1:]] for line in lines if line[0] == "f"], int)
    whole = trimesh.Trimesh(positions, corners[:, :, 0] - 1, process=False)
    assert whole.is_watertight
    assert whole.volume == pytest.approx(volume, rel=1e-4)


def test_png_texture_is_lossless_and_2048_is_larger(run: Run, samples: Path) -> None:
    robot = InputFile(samples / "robot.png", "robot.png")
    (artifact,) = run([robot], texture_format="png", texture_size=2048).artifacts
    material = trimesh.load_scene(artifact.path, process=False).dump()[0].visual.material
    assert material.baseColorTexture.size == (2048, 2048)
    assert b'"mimeType":"image/png"' in artifact.path.read_bytes()


def test_handles_and_loose_parts_survive(run: Run, save: Save, drawn: Draw) -> None:
    def mug_and_ball(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        handle = np.hypot(x - 0.2, y - 0.2)
        cup = (np.abs(x + 0.2) < 0.35) & (np.abs(y - 0.2) < 0.5)
        return cup | ((handle < 0.42) & (handle > 0.25) & (x > 0.1)) | (np.hypot(x, y + 0.7) < 0.15)

    (artifact,) = run([save(drawn(mug_and_ball))]).artifacts
    parts = merged(artifact.path).split()
    assert sorted(part.euler_number for part in parts) == [0, 2]  # a handle, and a ball


@pytest.mark.parametrize("kind", ["pinched", "hair", "border", "wide"])
def test_awkward_pictures_come_out_sound(kind: str, run: Run, save: Save, drawn: Draw) -> None:
    shapes = {
        "pinched": lambda x, y: (
            (np.abs(x) + np.abs(y - 0.4) < 0.4) | (np.abs(x) + np.abs(y + 0.4) < 0.4)
        ),
        "hair": lambda x, y: (
            (np.hypot(x, y) < 0.4) | (np.abs(np.sin(40 * x)) < 0.2) & (np.abs(y) < 0.9)
        ),
        "border": lambda x, y: x + y > 0.2,
    }
    picture = drawn(shapes[kind]) if kind != "wide" else np.full((20, 400, 4), 200, np.uint8)
    if kind == "wide":
        picture[:, :10, 3] = 0
    facts = run([save(picture)], resolution=128).report["mesh"]
    assert facts["watertight"]
    assert facts["volume"] > 0
    assert facts["degenerate_faces"] == 0


def test_random_outlines_come_out_sound(run: Run, save: Save, rng: np.random.Generator) -> None:
    """Noise is the hardest outline: pinches, specks, holes and the border all at once."""
    from scipy import ndimage

    for smoothing in (2.0, 6.0):
        noise = ndimage.gaussian_filter(rng.normal(size=(120, 140)), smoothing)
        picture = np.full((120, 140, 4), 120, np.uint8)
        picture[..., 3] = np.where(noise > np.quantile(noise, 0.6), 255, 0)
        facts = run([save(picture)], resolution=128, faces=5000).report["mesh"]
        assert facts["watertight"]
        assert facts["degenerate_faces"] == 0


def test_declared_azimuth_turns_the_object(run: Run, save: Save, drawn: Draw) -> None:
    """A lump at the image's right, seen from the object's left side, lies at the object's back."""
    picture = drawn(lambda x, y: (np.hypot(x, y) < 0.4) | (np.hypot(x - 0.5, y) < 0.2))
    (artifact,) = run([save(picture)], azimuth=(90,)).artifacts
    bounds = merged(artifact.path).bounds
    assert np.ptp(bounds, axis=0)[2] == pytest.approx(1, abs=1e-3)
    assert narrow_end_is_back(artifact.path)


def narrow_end_is_back(path: Path) -> bool:
    mesh = merged(path)
    back, front = mesh.vertices[:, 2].argmin(), mesh.vertices[:, 2].argmax()
    # The lump (radius 0.2) is narrower across than the body (0.4), close to its end.
    near = [np.abs(mesh.vertices[:, 2] - mesh.vertices[k, 2]) < 0.15 for k in (back, front)]
    return bool(np.ptp(mesh.vertices[near[0], 1]) < np.ptp(mesh.vertices[near[1], 1]))


def test_unlabelled_views_are_reported_as_a_guess(run: Run, save: Save, drawn: Draw) -> None:
    front = drawn(lambda x, y: np.hypot(x / 0.5, y / 0.8) < 1)
    side = drawn(lambda x, y: np.hypot(x / 0.3, y / 0.8) < 1)
    report = run([save(front, "1.png"), save(side, "2.png")], resolution=128).report
    assert report["views_guessed"] is True
    assert 0 < report["views_confidence"] < 1
    assert any("guess" in warning for warning in report["warnings"])
    named = run([save(front, "a-front.png"), save(side, "a-left.png")], resolution=128).report
    assert named["views_source"] == "file names"
    assert [view["label"] for view in named["views"]] == ["front", "left"]


@pytest.mark.parametrize(
    ("count", "options", "code", "words"),
    [
        (0, {}, "image_count", "0 images"),
        (17, {}, "image_count", "1 to 16"),
        (1, {"azimuth": (0, 90)}, "angles_count", "azimuth has 2 value(s) for 1 image(s)"),
        (2, {"elevation": (0,)}, "angles_count", "elevation has 1 value(s) for 2 image(s)"),
    ],
)
def test_wrong_counts_are_refused(
    count: int, options: dict, code: str, words: str, run: Run, samples: Path
) -> None:
    with pytest.raises(InvalidInput) as caught:
        run([InputFile(samples / "robot.png", "robot.png")] * count, **options)
    assert caught.value.code == code
    assert words in caught.value.message


@pytest.mark.parametrize(
    "options",
    [{"faces": 10}, {"texture_size": 512}, {"azimuth": (500,)}, {"formats": ()}, {"colour": "red"}],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ValidationError):
        EmbeddedOptions(**options)


def test_progress_rises_and_cancel_stops(samples: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, float]] = []
    robot = [InputFile(samples / "robot.png", "robot.png")]
    watched = LocalContext(
        tmp_path, on_progress=lambda stage, fraction, _: steps.append((stage, fraction))
    )
    load("cpu")(watched, robot, EmbeddedOptions(resolution=128))
    fractions = [fraction for _, fraction in steps]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    stopped = LocalContext(
        tmp_path, is_cancelled=lambda: len(steps) > 8, on_progress=watched.on_progress
    )
    with pytest.raises(Cancelled):
        load("cpu")(stopped, robot, EmbeddedOptions(resolution=128))


def test_reading_back_sees_a_planted_hole(run: Run, samples: Path) -> None:
    """The check must be able to fail: take one triangle out of the exported file's index."""
    (artifact,) = run([InputFile(samples / "robot.png", "robot.png")]).artifacts
    data = artifact.path.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    document = json.loads(data[20 : 20 + length])
    view = document["bufferViews"][3]
    start = 20 + length + 8 + view["byteOffset"]
    corrupt = bytearray(data)
    corrupt[start : start + 6] = corrupt[start : start + 2] * 3  # three times the same corner
    facts = read_back(bytes(corrupt))
    assert read_back(data).sound
    assert not facts.watertight
    assert facts.degenerate_faces == 1
    assert not facts.sound


def test_glb_parts_are_aligned_and_complete(run: Run, samples: Path) -> None:
    (artifact,) = run([InputFile(samples / "robot.png", "robot.png")]).artifacts
    data = artifact.path.read_bytes()
    assert int.from_bytes(data[8:12], "little") == len(data)
    length = int.from_bytes(data[12:16], "little")
    document = json.loads(data[20 : 20 + length])
    assert length % 4 == 0
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    assert data[20 + length + 4 : 20 + length + 8] == b"BIN\0"
    image = document["bufferViews"][4]
    start = 20 + length + 8 + image["byteOffset"]
    from PIL import Image

    with Image.open(io.BytesIO(data[start : start + image["byteLength"]])) as texture:
        assert texture.format == "JPEG"
