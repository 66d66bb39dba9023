"""Finishing as a whole, judged by another reader at points the bake did not choose."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import DracoPy
import numpy as np
import pytest
import trimesh

from models.context import PipelineError, Unavailable
from models.image_to_mesh.finishing.check import read_back
from models.image_to_mesh.finishing.closest import Nearest, build_surface
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.finish import Finished, FinishOptions, finish
from models.image_to_mesh.finishing.glb import encode_glb
from models.image_to_mesh.finishing.mesh import TexturedMesh
from models.image_to_mesh.finishing.normals import vertex_normals
from models.image_to_mesh.finishing.visibility import View
from models.image_to_mesh.geometry.cameras import Camera, object_to_camera
from tests.models.image_to_mesh.finishing.bumpy import bumpy
from tests.models.image_to_mesh.finishing.parse_glb import accessor, parse, view

ROOT = Path(__file__).resolve().parents[4]
OPTIONS = FinishOptions(faces=1500, texture_size=512, texture_format="png")


@pytest.fixture(scope="module")
def detailed() -> ColouredMesh:
    return bumpy()


@pytest.fixture(scope="module")
def finished(detailed: ColouredMesh) -> Finished:
    return finish(detailed, OPTIONS)


def ask(
    detailed: ColouredMesh, positions: np.ndarray, faces: np.ndarray, rng: np.random.Generator
) -> tuple[Nearest, Callable[[np.ndarray], np.ndarray]]:
    """5,000 random points of the detailed surface: where they lie on another, what they have."""
    face = rng.integers(0, len(detailed.faces), 5000)  # an icosphere's faces are of one size
    weights = rng.dirichlet((1, 1, 1), 5000)

    def have(values: np.ndarray) -> np.ndarray:
        return np.einsum("pk,pkc->pc", weights, values[detailed.faces[face]]).astype(np.float32)

    normals = have(vertex_normals(detailed.vertices, detailed.faces))
    return build_surface(positions, faces).nearest(have(detailed.vertices), normals), have


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("compression", ["none", "quantize", "draco"])
def test_colours_read_back_are_the_surface_s(
    detailed: ColouredMesh, finished: Finished, compression: str, rng: np.random.Generator
) -> None:
    """Through trimesh's reader of the file. The bands change by a fifth over a face's length."""
    glb = encode_glb(finished.mesh, "png", compression=compression)
    mesh = trimesh.load_scene(io.BytesIO(glb), file_type="glb", process=False).to_mesh()
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
    found, have = ask(detailed, vertices, faces, rng)
    texture = np.asarray(mesh.visual.uv, np.float32) * (1, -1) + (0, 1)  # trimesh turns v upwards
    if compression == "quantize":  # and takes whole numbers for what they stand for
        document, binary = parse(glb)
        attributes = document["meshes"][0]["primitives"][0]["attributes"]
        texture = accessor(document, binary, attributes["TEXCOORD_0"])
    uv = found.interpolate(texture.astype(np.float32), faces)
    picture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    column, row = np.clip(uv * len(picture), 0, len(picture) - 1).astype(int).T
    off = np.abs(picture[row, column] - 255 * have(detailed.colours))
    # Half a texel at 512 is 0.4 of 255 where colours change fastest; the rest is Draco's rounding.
    assert off.mean() < 1.5
    assert np.percentile(off, 99) < 8


def test_normal_map_brings_the_ripples_back(
    detailed: ColouredMesh, finished: Finished, rng: np.random.Generator
) -> None:
    """Shading with the map is several times nearer to the detailed surface than without."""
    mesh = finished.mesh
    assert mesh.normal_map is not None
    assert mesh.tangents is not None
    found, have = ask(detailed, mesh.positions[mesh.source], mesh.faces, rng)
    true = unit(have(vertex_normals(detailed.vertices, detailed.faces)))
    uv = found.interpolate(mesh.uv, mesh.faces)
    column, row = (np.clip(uv, 0, 1 - 1e-6) * len(mesh.normal_map)).astype(int).T
    x, y, z = (mesh.normal_map[row, column] / 127.5 - 1).T[..., None]
    n = unit(found.interpolate(mesh.normals[mesh.source], mesh.faces))
    t = unit(found.interpolate(mesh.tangents[:, :3].copy(), mesh.faces))
    b = unit(np.cross(n, t)) * mesh.tangents[mesh.faces[found.face, 0], 3:]

    def degrees(shown: np.ndarray) -> float:
        return float(np.degrees(np.arccos(np.clip((unit(shown) * true).sum(1), -1, 1))).mean())

    with_map, without = degrees(x * t + y * b + z * n), degrees(n)
    flat = degrees(build_surface(mesh.positions, mesh.triangles).table[found.face, 9:])
    assert without > 5  # the ripples are not in the faces
    assert with_map < 0.3 * min(without, flat)


def test_crumbs_go_holes_close_and_stages_are_told() -> None:
    told: list[str] = []
    facts = finish(bumpy(5, crumbs=True), OPTIONS, stage=told.append)
    assert told == ["clean", "simplify", "unwrap", "bake", "pad"]
    assert facts.facts["faces_floating"] == 20
    assert facts.facts["holes_closed"] == 1
    assert set(facts.facts["seconds"]) == set(told)
    assert 0.4 * OPTIONS.faces < facts.facts["faces"] <= OPTIONS.faces
    glb = read_back(encode_glb(facts.mesh, "jpeg"))
    assert glb.sound
    assert np.abs(np.array(glb.bounds)).max() < 0.5


def test_warm_up_leaves_nothing_to_compile() -> None:
    """In a process of its own: what a job imports later than `warm_up`, it would wait for."""
    code = """
import sys
from models.image_to_mesh.finishing.finish import FinishOptions, finish, warm_up
from tests.models.image_to_mesh.finishing.bumpy import bumpy
warm_up()
warm = {name for name in sys.modules if name.endswith("_compiled")}
finish(bumpy(3, crumbs=True), FinishOptions(500, 128))
print(len(warm), {name for name in sys.modules if name.endswith("_compiled")} - warm)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stdout == "6 set()\n", run.stderr


def test_who_watches_may_stop_it(detailed: ColouredMesh) -> None:
    def stop(name: str) -> None:
        if name == "simplify":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        finish(detailed, OPTIONS, stage=stop)


@pytest.mark.parametrize(
    ("flaw", "code"),
    [
        ("no faces", "surface_empty"),
        ("no area", "surface_empty"),
        ("a place that is no number", "surface_not_finite"),
        ("a colour without end", "surface_not_finite"),
    ],
)
def test_a_mesh_that_is_none_is_refused_in_words(flaw: str, code: str) -> None:
    """Not by a fault of a compiled loop, which would take the whole runner with it."""
    ball = bumpy(3)
    vertices, faces, colours = ball.vertices.copy(), ball.faces, ball.colours.copy()
    if flaw == "no faces":
        faces = faces[:0]
    elif flaw == "no area":
        faces = np.stack((faces[:, 0], faces[:, 1], faces[:, 1]), axis=1)
    elif flaw == "a place that is no number":
        vertices[5, 1] = np.nan
    else:
        colours[7, 0] = np.inf
    with pytest.raises(PipelineError) as caught:
        finish(ColouredMesh(vertices, faces, colours), OPTIONS)
    assert caught.value.code == code
    assert caught.value.next_step


def test_the_longer_stages_look_in_between() -> None:
    """Before a pass of the simplification, parts of the search, each view and the normal map."""
    ball = bumpy(4)
    square = View(np.ones((64, 64, 4), np.float32), Camera(object_to_camera(0, 0)))
    told: list[str] = []

    def looks(views: int, normal_map: bool, stop: int = -1) -> list[str]:
        """The stages in which it looked; at the look of that number it is stopped."""
        seen: list[str] = []

        def check() -> None:
            seen.append(told[-1])
            if len(seen) == stop:
                raise InterruptedError

        told.clear()
        options = FinishOptions(1000, 256, normal_map=normal_map)
        finish(ball, options, stage=told.append, check=check, views=[square] * views)
        return seen

    least = looks(0, False)
    assert least.count("simplify") >= 1 and least.count("bake") >= 1
    every = looks(2, True)
    assert len(every) == len(least) + 2 + 1
    for stop in range(1, len(every) + 1):
        with pytest.raises(InterruptedError):
            looks(2, True, stop)
        assert told[-1] == every[stop - 1]


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**40])
def test_size_has_no_effect(scale: float) -> None:
    """A power of two changes no digit: the same charts and the same picture."""
    ball = bumpy(4)
    scaled = ColouredMesh((ball.vertices * scale).astype(np.float32), ball.faces, ball.colours)
    own, other = (finish(mesh, FinishOptions(6000, 256)).mesh for mesh in (ball, scaled))
    assert np.array_equal(own.faces, other.faces)
    assert np.array_equal(own.uv, other.uv)
    assert np.abs(own.texture.astype(int) - other.texture).max() <= 1


def test_the_back_of_an_open_surface_is_shown(finished: Finished) -> None:
    """A viewer leaves out faces that look away, unless the material says otherwise."""
    ball = bumpy(3)
    half = ball.faces[ball.vertices[ball.faces, 1].mean(axis=1) > 0]
    bowl = finish(ColouredMesh(ball.vertices, half, ball.colours), FinishOptions(500, 128)).mesh
    for mesh, open_ in ((bowl, True), (finished.mesh, False)):
        document, _ = parse(encode_glb(mesh))
        assert document["materials"][0].get("doubleSided", False) is open_


def test_same_input_gives_the_same_mesh(finished: Finished, detailed: ColouredMesh) -> None:
    again = finish(detailed, OPTIONS)
    for name, value in vars(finished.mesh).items():
        assert np.array_equal(value, getattr(again.mesh, name)), name


def test_views_colour_what_they_see_and_nothing_else() -> None:
    """A red picture from the front: the front turns red, the back keeps its own green."""
    mesh = bumpy(4)
    green = np.tile(np.array([0, 1, 0], np.float32), (len(mesh.vertices), 1))
    mesh = ColouredMesh(mesh.vertices, mesh.faces, green)
    ticks = (np.arange(300) + 0.5) / 300 * 2 - 1
    x, y = np.meshgrid(ticks, -ticks)
    rgba = np.zeros((300, 300, 4), np.float32)
    rgba[(x / 0.45) ** 2 + (y / 0.35) ** 2 < 1.1] = (1, 0, 0, 1)
    seen = View(rgba, Camera(object_to_camera(0, 0)))
    result = finish(mesh, FinishOptions(1000, 256, normal_map=False), views=[seen])
    colours = result.mesh.vertex_colours().astype(int)
    z = result.mesh.normals[:, 2]
    assert result.mesh.normal_map is None
    assert (colours[z > 0.9] == (255, 0, 0)).all(axis=1).mean() > 0.98
    assert (colours[z < 0] == (0, 255, 0)).all(axis=1).mean() > 0.98
    assert 0.3 < result.facts["texture_from_views"] < 0.6


def test_a_part_in_front_keeps_its_colour_to_itself() -> None:
    """A small red ball before a white wall: none of its red reaches the wall behind it."""
    ball = trimesh.creation.icosphere(4, radius=0.15)
    ball.apply_translation((0, 0, 0.35))
    wall = trimesh.creation.box(extents=(0.9, 0.9, 0.1))
    for _ in range(5):
        wall = wall.subdivide()
    both = trimesh.util.concatenate([wall, ball])
    colours = np.full((len(both.vertices), 3), 0.5, np.float32)
    mesh = ColouredMesh(both.vertices.astype(np.float32), both.faces.astype(np.int32), colours)
    ticks = (np.arange(400) + 0.5) / 400 * 2 - 1
    x, y = np.meshgrid(ticks, -ticks)
    rgba = np.zeros((400, 400, 4), np.float32)
    rgba[(abs(x) < 0.45) & (abs(y) < 0.45)] = 1
    rgba[x**2 + y**2 < 0.15**2] = (1, 0, 0, 1)
    seen = View(rgba, Camera(object_to_camera(0, 0)))
    result = finish(mesh, FinishOptions(3000, 512, normal_map=False), views=[seen])
    place = np.meshgrid(np.linspace(-0.1, 0.1, 20), np.linspace(-0.1, 0.1, 20))
    covered = np.stack((*place, np.full_like(place[0], 0.05)), -1).reshape(-1, 3)
    top = covered + (0, 0, 0.43)
    for points, expected in ((covered, (128, 128, 128)), (top, (255, 0, 0))):
        up = np.tile(np.array([0, 0, 1], np.float32), (len(points), 1))
        surface = build_surface(result.mesh.positions[result.mesh.source], result.mesh.faces)
        found = surface.nearest(points.astype(np.float32), up)
        uv = found.interpolate(result.mesh.uv, result.mesh.faces)
        column, row = np.clip(uv * 512, 0, 511).astype(int).T
        shown = result.mesh.texture[row, column].astype(int)
        assert (np.abs(shown - expected).max(axis=1) < 40).mean() > 0.98


def test_draco_that_is_missing_is_said(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "DracoPy", None)  # as Python marks what cannot be imported
    with pytest.raises(Unavailable) as caught:
        encode_glb(finished.mesh, compression="draco")
    assert "pip install 'meshpress[draco]'" in caught.value.next_step


def test_compressed_files_are_smaller_and_hold_the_same(finished: Finished) -> None:
    files = {
        kind: encode_glb(finished.mesh, compression=kind)
        for kind in ("none", "quantize", "meshopt", "draco")
    }
    sizes = {kind: len(data) for kind, data in files.items()}
    assert sizes["draco"] < sizes["meshopt"] < sizes["quantize"] < sizes["none"]
    plain = read_back(files["none"])
    for kind in ("quantize", "meshopt", "draco"):
        facts = read_back(files[kind])
        assert facts.faces == plain.faces, kind
        assert facts.watertight, kind
        assert np.allclose(facts.bounds, plain.bounds, atol=3e-5), kind


@pytest.mark.parametrize("compression", ["quantize", "meshopt"])
def test_quantised_positions_stay_apart(compression: str, finished: Finished) -> None:
    """Faces smaller than a step of 16 bits: rounded alone, their corners would become one."""
    mesh = finished.mesh
    positions = mesh.positions.copy()
    face = mesh.triangles[0]
    low = positions.min(axis=0)
    step = (positions.max(axis=0) - low).max() / 65535
    middle = low + np.round((positions[face].mean(axis=0) - low) / step) * step
    positions[face] = middle + 0.2 * step * np.eye(3, dtype=np.float32)
    facts = read_back(encode_glb(replace(mesh, positions=positions), compression=compression))
    assert facts.positions == len(positions)
    assert facts.watertight
    assert not facts.degenerate_faces


def test_tangents_follow_draco_s_order(finished: Finished) -> None:
    """Draco numbers vertices anew: each must still have the tangent of its own place."""
    mesh: TexturedMesh = finished.mesh
    glb = encode_glb(mesh, compression="draco")
    document, binary = parse(glb)
    primitive = document["meshes"][0]["primitives"][0]
    draco = primitive["extensions"]["KHR_draco_mesh_compression"]["bufferView"]
    decoded = DracoPy.decode(view(document, binary, draco))
    tangents = accessor(document, binary, primitive["attributes"]["TANGENT"])
    assert len(tangents) == len(decoded.points)
    assert mesh.tangents is not None
    uv = np.asarray(decoded.tex_coord)
    gap = np.abs(uv[:, None] - mesh.uv[None]).max(axis=2)
    gap += np.abs(decoded.points[:, None] - mesh.positions[mesh.source][None]).max(axis=2)
    own = mesh.tangents[gap.argmin(axis=1)]
    assert np.abs(tangents - own).max() < 0.005  # half a step of 8 bits
