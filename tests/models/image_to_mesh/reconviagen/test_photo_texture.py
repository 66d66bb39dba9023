"""Photos paint the mesh where they fit it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.photo_scene import decoded, load, pattern, render, shoot
from models.context import Cancelled, InputFile, LocalContext
from models.image_to_mesh.finishing.bake_views import paint_views
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.normals import vertex_normals
from models.image_to_mesh.options import ReconViaGenOptions
from models.image_to_mesh.preprocess.mask import Cutout
from models.image_to_mesh.reconviagen.cameras import photos_of
from models.image_to_mesh.reconviagen.photo_texture import even_exposures, fits, photo_texture
from models.image_to_mesh.reconviagen.pipeline import ReconViaGenPipeline
from models.image_to_mesh.reconviagen.preprocess import Framed
from models.image_to_mesh.reconviagen.registration.drawing import Fit
from models.image_to_mesh.reconviagen.registration.photos import Photo
from models.image_to_mesh.trellis.voxel_mesh import DecodedMesh
from models.nn.residency import Residency

Meshes = Callable[[str], ColouredMesh]
NAMES = [f"{number}.png" for number in range(16)]


@pytest.fixture
def mesh_of(shared: Callable[[str], Path]) -> Meshes:
    return lambda name: load(shared(f"data/meshes/meshes/{name}.npz"))


# -- painting ------------------------------------------------------------------------------------


def test_colours_come_nearer_to_the_truth(mesh_of: Meshes, rng: np.random.Generator) -> None:
    """Those of the vertices, printed with a pattern that the network shows blurred."""
    truth, paint = mesh_of("pm_expresso-cup"), pattern(rng)
    scene = shoot(truth, 4, rng, paint=paint)
    mesh, sharp = (
        decoded(truth, np.random.default_rng(5), blurs=blurs, bend=0.002, paint=paint)
        for blurs in (6, 0)
    )
    painted = photo_texture(mesh, scene.photos, NAMES[:4])
    assert painted.facts["texture"]["source"] == "photos"
    assert len(painted.views) == 4 and not painted.warnings
    normals = vertex_normals(mesh.vertices, mesh.faces).astype(np.float32)
    nothing = np.full_like(mesh.colours, 100)
    colours, share = paint_views(
        mesh.vertices, normals, nothing, mesh.vertices, mesh.faces, painted.views, 400.0
    )
    seen = colours.max(axis=1) <= 1  # none of the network's colour is in them
    assert share > 0.3 and seen.mean() > 0.2
    before, after = (
        -10 * np.log10(((one - sharp.colours)[seen] ** 2).mean()) for one in (mesh.colours, colours)
    )
    assert after > before + 4


def test_sixteen_photos_one_of_another_object_and_one_without_a_camera(
    mesh_of: Meshes, rng: np.random.Generator
) -> None:
    truth = mesh_of("pm_police-car")
    scene = shoot(truth, 16, rng)
    stranger = shoot(mesh_of("pm_mushroom"), 4, rng)
    photos: list[Photo | None] = list(scene.photos)
    photos[3] = replace(
        scene.photos[3], rgba=stranger.photos[3].rgba, intrinsics=stranger.photos[3].intrinsics
    )
    photos[9] = None
    painted = photo_texture(decoded(truth, rng, bend=0.005), photos, NAMES)
    facts = painted.facts["texture"]
    used = [view is not None and view["used"] for view in facts["views"]]
    assert used == [number not in (3, 9) for number in range(16)]
    assert len(painted.views) == 14
    assert [warning.split()[0].rstrip(":") for warning in painted.warnings] == ["9.png", "3.png"]
    assert facts["seconds"] > 0


@pytest.mark.parametrize("photos", [1, 3])
def test_another_object_is_refused(photos: int, mesh_of: Meshes, rng: np.random.Generator) -> None:
    scene = shoot(mesh_of("kk_knight"), photos, rng)
    other = decoded(mesh_of("kk_mug_full"), rng)
    painted = photo_texture(other, scene.photos, NAMES[:photos])
    assert painted.mesh is other and not painted.views
    assert painted.facts["texture"]["source"] == "decoder"
    assert "does not fit the photos" in painted.warnings[0]
    assert f"of {photos} photos fit" in painted.warnings[0]


def test_the_same_shape_in_other_colours_is_refused(
    mesh_of: Meshes, rng: np.random.Generator
) -> None:
    truth = mesh_of("kk_knight")
    scene = shoot(truth, 1, rng, degrees=0, share=0)
    right = decoded(truth, rng, bend=0.002)
    assert photo_texture(right, scene.photos, NAMES[:1]).views
    negative = replace(right, colours=1 - right.colours)
    assert not photo_texture(negative, scene.photos, NAMES[:1]).views


def test_cameras_that_look_apart_are_refused(mesh_of: Meshes, rng: np.random.Generator) -> None:
    truth = mesh_of("kk_mug_full")
    scene = shoot(truth, 3, rng)
    away = [replace(photo, to_camera=photo.to_camera * [[1, 1, 1, -1]]) for photo in scene.photos]
    for photos in ([None, None, None], away):
        painted = photo_texture(truth, photos, NAMES[:3])
        assert not painted.views and painted.mesh is truth
        assert any("network's colours" in warning for warning in painted.warnings)


@pytest.mark.parametrize("fault", ["not a number", "flat"])
def test_what_is_no_surface_is_left_to_finishing(fault: str) -> None:
    points = np.array([[0, 0, 0], [0.5, 0, 0], [1, 0, 0]], np.float32)
    if fault == "not a number":
        points = np.full((3, 3), np.nan, np.float32)
    mesh = ColouredMesh(points, np.array([[0, 1, 2]], np.int32), np.zeros((3, 3), np.float32))
    photo = Photo(np.ones((9, 9, 4), np.float32), np.eye(3, 4), np.eye(3))
    painted = photo_texture(mesh, [photo], NAMES[:1])
    assert painted.mesh is mesh and not painted.views


def test_cameras_that_see_nothing_or_too_much_are_none() -> None:
    rgba = np.ones((518, 518, 4), np.float32)
    cutout, frame = Cutout("a.png", rgba, "alpha", 1.0), Framed(rgba[..., :3], 0, 0, 518)
    poses = torch.tensor([[0, 0, 2, 0, 0, 0, 1, angle, angle] for angle in (0.8, 0.0, 3.5)])
    found = photos_of(poses.float(), [frame] * 3, [cutout] * 3)
    assert [photo is not None for photo in found] == [True, False, False]
    assert found[0] is not None
    np.testing.assert_allclose(found[0].intrinsics[0, 0], 259 / np.tan(0.4), rtol=1e-6)


def test_exposures_become_those_of_the_middle_photo() -> None:
    colour = np.array([0.2, 0.4, 0.3], np.float32)
    gains = [np.full(3, gain, np.float32) for gain in (0.8, 1.1, 1.3)]
    common, each = even_exposures(gains)
    np.testing.assert_allclose(common, 1.1, rtol=1e-6)
    for gain, own in zip(gains, each, strict=True):  # what the photo shows, and is made
        np.testing.assert_allclose(colour * gain * own, colour * common, rtol=1e-6)
    assert even_exposures([np.full(3, 9.0, np.float32)])[0][0] == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("iou", "error", "spread", "expected"),
    [
        (0.95, 0.05, 0.0, True),  # of one colour, and so is the mesh
        (0.95, 0.12, 0.14, True),
        (0.95, 0.12, 0.12, False),  # as far off as a mesh of one colour would be
        (0.95, 0.16, 0.30, False),
        (0.80, 0.02, 0.10, False),
    ],
)
def test_what_fits(iou: float, error: float, spread: float, expected: bool) -> None:
    assert fits(Fit(iou, np.ones(3, np.float32), error, spread)) is expected


# -- in the pipeline -----------------------------------------------------------------------------


@dataclass
class KnowsAll:
    """A generator whose networks see through the photos: it knows their cameras and the mesh."""

    surface: ColouredMesh
    poses: torch.Tensor  # (n, 9)
    base: Any

    @property
    def networks(self) -> Any:
        return self.base.networks

    residency = Residency("cpu")

    def look(self, pictures: Any, on_layer: Any = None) -> Any:
        return replace(self.base.look(pictures, on_layer), poses=self.poses)

    def structure(self, *given: Any) -> torch.Tensor:
        return torch.zeros(1, 4, dtype=torch.int32)

    def latent(self, *given: Any) -> None:
        return None

    def mesh(self, latent: None) -> DecodedMesh:
        x, y, z = torch.from_numpy(self.surface.vertices).unbind(1)
        faces = torch.from_numpy(self.surface.faces).long()
        vertices = torch.stack((x, -z, y), dim=1)  # z up, as the decoder has it
        return DecodedMesh(vertices, faces, torch.from_numpy(self.surface.colours), vertices)


def aimed(mesh: ColouredMesh, azimuth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo with the object in its very middle, as VGGT takes it to be: camera and picture."""
    side, a = 384, np.radians(azimuth)
    intrinsics = np.array([[1.5 * side, 0, side / 2], [0, 1.5 * side, side / 2], [0, 0, 1]])
    at = 2.2 * np.array([np.sin(a), 0.4, np.cos(a)])
    target = np.zeros(3)
    for _ in range(4):
        ahead = (target - at) / np.linalg.norm(target - at)
        right = np.cross(ahead, (0, 1, 0))
        right /= np.linalg.norm(right)
        turn = np.stack([right, np.cross(ahead, right), ahead])
        camera = np.column_stack([turn, -turn @ at])
        rgba = render(mesh, camera, intrinsics, side, side)
        rows, columns = np.nonzero(rgba[..., 3] > 0.8)
        middle = np.array([np.ptp(columns) / 2 + columns.min(), np.ptp(rows) / 2 + rows.min()])
        shift = np.append((middle + 0.5 - side / 2) / (1.5 * side), 0) * 2.2
        target = target + turn.T @ shift
    return camera, intrinsics, rgba


def encoded(camera: np.ndarray, first: np.ndarray, tangent: float) -> torch.Tensor:
    """As VGGT encodes it: in the world of the first camera; (9,)."""
    turn = camera[:, :3] @ first[:, :3].T
    shift = camera[:, 3] - turn @ first[:, 3]
    w = np.sqrt(max(0.0, 1 + np.trace(turn))) / 2
    x, y, z = (
        (turn[2, 1] - turn[1, 2]) / (4 * w),
        (turn[0, 2] - turn[2, 0]) / (4 * w),
        (turn[1, 0] - turn[0, 1]) / (4 * w),
    )
    angle = 2 * np.arctan(tangent)
    return torch.tensor([*shift, x, y, z, w, angle, angle], dtype=torch.float32)


def run_known(
    loaded: ReconViaGenPipeline,
    mesh: ColouredMesh,
    truth: ColouredMesh,
    save: Callable[..., InputFile],
    folder: Path,
    **options: Any,
) -> dict[str, Any]:
    shots = [aimed(truth, azimuth) for azimuth in (10, 100)]
    files, poses = [], []
    for camera, intrinsics, rgba in shots:
        files.append(save((rgba * 255 + 0.5).astype(np.uint8), "photo.png"))
        rows, columns = np.nonzero(rgba[..., 3] > 0.8)
        side = int(max(np.ptp(rows), np.ptp(columns)) * 1.1) // 2 * 2
        poses.append(encoded(camera, shots[0][0], side / 2 / intrinsics[0, 0]))
    generator = KnowsAll(mesh, torch.stack(poses), loaded.generator)
    pipeline = ReconViaGenPipeline(generator, loaded.release)
    chosen = {"faces": 1000, "texture_size": 1024, "normal_map": False, "formats": ("ply",)}
    return pipeline(LocalContext(folder), files, ReconViaGenOptions(**(chosen | options))).report


def test_pipeline_paints_what_it_finds(
    loaded: ReconViaGenPipeline,
    mesh_of: Meshes,
    save: Callable[..., InputFile],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    truth = mesh_of("kk_couch_pillows")
    mesh = decoded(truth, rng, faces=8000, bend=0.003)
    report = run_known(loaded, mesh, truth, save, tmp_path, texture_from="photos")
    assert report["texture"]["source"] == "photos"
    assert [view["used"] for view in report["texture"]["views"]] == [True] * 2
    assert min(view["outline_iou"] for view in report["texture"]["views"]) > 0.93
    assert report["mesh"]["texture_from_views"] > 0.1
    assert report["seconds"]["register"] > 0


def test_random_networks_fit_nothing_and_say_so(
    loaded: ReconViaGenPipeline,
    drawn: Callable[..., np.ndarray],
    save: Callable[..., InputFile],
    tmp_path: Path,
) -> None:
    disc = save(drawn(lambda x, y: x**2 + y**2 < 0.5), "disc.png")
    bar = save(drawn(lambda x, y: (abs(x) < 0.8) & (abs(y) < 0.2)), "bar.png")
    options = ReconViaGenOptions(
        steps=2, faces=500, texture_size=1024, normal_map=False, texture_from="photos"
    )
    report = loaded(LocalContext(tmp_path), [disc, bar], options).report
    assert report["texture"]["source"] == "decoder"
    assert report["mesh"]["texture_from_views"] == 0
    assert any("network's colours" in warning for warning in report["warnings"])


def test_cancelling_ends_the_search(
    loaded: ReconViaGenPipeline,
    mesh_of: Meshes,
    save: Callable[..., InputFile],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    seen: list[str] = []
    truth = mesh_of("kk_mug_full")
    context = LocalContext(
        tmp_path,
        on_progress=lambda stage, *_: seen.append(stage),
        is_cancelled=lambda: seen.count("register") > 1,
    )
    camera, intrinsics, rgba = aimed(truth, 20)
    file = save((rgba * 255 + 0.5).astype(np.uint8), "photo.png")
    pose = encoded(camera, camera, 0.3)[None]
    pipeline = ReconViaGenPipeline(KnowsAll(truth, pose, loaded.generator), loaded.release)
    with pytest.raises(Cancelled):
        pipeline(context, [file], ReconViaGenOptions(texture_from="photos"))
    assert seen[-1] == "register" and seen.count("register") == 2
