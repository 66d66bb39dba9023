"""The procedural scenes and their trainer, as far as they run without a card."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.scenes import fit, gaussians, stage  # noqa: E402
from benchmarks.scenes.mesh import Material, ball, moved  # noqa: E402
from benchmarks.scenes.shading import Lamp, Sky, fractal  # noqa: E402
from benchmarks.scenes.stage import Scene, Stage, look_at, viewpoints  # noqa: E402
from benchmarks.scenes.zbuffer import visible  # noqa: E402
from models.splat_to_sog.metrics.project import project  # noqa: E402
from models.splat_to_sog.readers import read  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Generator[None, None, None]:
    """Tensors this small only wait for each other on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def view_of(size: int = 32, distance: float = 3.0) -> stage.View:
    return look_at(
        np.array([0.4, -0.7, -distance]), np.zeros(3), 1.2 * size, (size, size), 0.01, "cpu"
    )


def test_nearest_triangle_of_each_pixel(rng: np.random.Generator) -> None:
    """Against every ray with every triangle, solved as a 3 x 3 system."""
    points = torch.tensor(rng.normal(0, 0.8, (90, 3)))
    faces = torch.arange(90).view(30, 3)
    view = view_of()
    hits = visible(points, faces, view)
    seen = (points - view.position) @ view.rotation.T
    rays = view.rays(torch.arange(32 * 32))
    # ray * t = a + u (b - a) + v (c - a)
    a, b, c = seen[faces].unbind(1)
    system = torch.stack(
        [
            rays[:, None].expand(-1, 30, -1),
            (a - b).expand(1024, -1, -1),
            (a - c).expand(1024, -1, -1),
        ],
        dim=-1,
    )
    t, u, v = torch.linalg.solve(system, a.expand(1024, -1, -1)).unbind(-1)
    inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    depth, face = torch.where(inside, t, torch.inf).min(1)
    expected = depth.isfinite().nonzero().squeeze(1)
    assert len(expected) > 200
    assert hits.pixels.tolist() == expected.tolist()
    assert hits.faces.tolist() == face[expected].tolist()
    torch.testing.assert_close(hits.depth, depth[expected], rtol=1e-6, atol=0)  # kept as float32
    wanted = torch.stack([1 - u - v, u, v], -1)[expected, face[expected]]
    torch.testing.assert_close(hits.weights, wanted, rtol=0, atol=1e-9)


def test_noise_is_smooth_and_covers_its_range(rng: np.random.Generator) -> None:
    at = torch.tensor(rng.uniform(-50, 50, (20000, 3)), dtype=torch.float32)
    values = fractal(at, 3)
    assert 0 <= values.min() < 0.2 and 0.8 < values.max() <= 1
    assert (fractal(at + 1e-4, 3) - values).abs().max() < 0.02


@pytest.fixture
def one_ball(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(stage, "SHADOW_PX", 128)
    white = Material((0.6, 0.6, 0.6), 0.2)
    floor = moved(ball(1.0, white, 12), (0.0, 1.6, 0.0))
    mesh = stage.Mesh(*vars(floor).values())
    lamp = Lamp((0.3, -1.0, -0.4), (3, 3, 3), 100.0)
    sky = Sky((0.2, 0.3, 0.5), (0.6, 0.6, 0.6), (0.1, 0.1, 0.1), (lamp,))
    return Scene(mesh, lamp, sky, 2.0, (0, 1, 0), (2, 3), (10, 50), 0.2, None)


def test_colour_depends_on_where_one_stands(one_ball: Scene) -> None:
    staged = Stage(one_ball, "cpu")
    points, _ = staged.scatter(64, torch.Generator().manual_seed(0))
    corners = staged.faces[:64]
    weights = torch.full((64, 3), 1 / 3, dtype=torch.float64)
    here, there = (
        staged.colours(corners, weights, points.double(), torch.tensor(eye, dtype=torch.float64))
        for eye in ([0.0, -3.0, 0.0], [3.0, -1.0, 0.0])
    )
    assert (here - there).abs().max() > 0.05


def test_shadow_falls_behind_the_caster(monkeypatch: pytest.MonkeyPatch, one_ball: Scene) -> None:
    monkeypatch.setattr(stage, "SHADOW_PX", 512)
    top, bottom = (torch.tensor([[0.0, y, 0.0]], dtype=torch.float64) for y in (0.6, 2.6))
    staged = Stage(dataclasses.replace(one_ball, sun=Lamp((0, -1, 0.01), (1, 1, 1), 9.0)), "cpu")
    assert staged.sunlit(top, torch.tensor([[0.0, -1.0, 0.0]])) == 1
    assert staged.sunlit(bottom, torch.tensor([[0.0, 1.0, 0.0]])) == 0


@pytest.mark.parametrize("name", sorted(fit.SCENES))
def test_scene_follows_from_its_seed(name: str) -> None:
    first, again, other = (fit.SCENES[name](seed).mesh for seed in (0, 0, 1))
    assert np.isfinite(first.points).all() and np.isfinite(first.normals()).all()
    assert first.faces.max() < len(first.points)
    assert np.array_equal(first.points, again.points)
    assert not np.array_equal(first.points, other.points)


def test_held_out_views_are_new() -> None:
    scene = fit.SCENES["still_life"](0)
    train = torch.stack([v.position for v in viewpoints(scene, 160, 8, 0.0, "cpu")])
    held = torch.stack([v.position for v in viewpoints(scene, 8, 8, 160.5, "cpu")])
    assert torch.cdist(train, held).min() > 0.01


def some_parameters(rng: np.random.Generator, n: int) -> gaussians.Parameters:
    values = {
        "means": rng.normal(0, 0.7, (n, 3)),
        "scales": rng.normal(-3, 0.7, (n, 3)),
        "quats": rng.normal(0, 1, (n, 4)),
        "opacities": rng.normal(0, 2, n),
        "sh0": rng.normal(0, 1, (n, 3)),
        "shN": rng.normal(0, 0.2, (n, 3, 15)),
    }
    return {k: torch.tensor(v, dtype=torch.float32) for k, v in values.items()}


def test_trainer_projects_as_the_product_does(rng: np.random.Generator) -> None:
    parameters = some_parameters(rng, 2000)
    parameters["opacities"].clamp_(min=-5)  # export drops what is all but invisible
    view = view_of(64)
    flat = gaussians.project(parameters, view, 3)
    wanted = project(gaussians.export(parameters), fit.camera(view))
    assert len(wanted) > 1500
    rows = torch.tensor(wanted.rows, dtype=torch.int64)
    assert (flat.depths[rows].diff() >= -1e-5).all()
    for name in ("means2d", "conics", "colours", "opacities", "radii"):
        got, reference = getattr(flat, name)[rows].numpy(), getattr(wanted, name)
        # float32 against float64: conics of needles lose some digits
        np.testing.assert_allclose(got, reference, rtol=2e-3, atol=2e-3, err_msg=name)


def test_moved_gaussians_look_as_before(rng: np.random.Generator) -> None:
    parameters = {k: v.requires_grad_() for k, v in some_parameters(rng, 600).items()}
    with torch.no_grad():
        parameters["opacities"][:100] = -9.0
    before = {k: v.detach().clone() for k, v in parameters.items()}
    optimiser = torch.optim.Adam(parameters.values())
    assert gaussians.relocate(parameters, optimiser, torch.Generator().manual_seed(1)) >= 100
    opacity = parameters["opacities"].detach().sigmoid()
    assert opacity.min() > gaussians.DEAD
    # Those that share a place let through together what the one did.
    old = before["opacities"].sigmoid()
    places = {}
    for i, place in enumerate(map(tuple, parameters["means"].tolist())):
        places.setdefault(place, []).append(i)
    shared = [rows for rows in places.values() if 1 < len(rows) <= gaussians.CROWD]
    assert len(shared) > 50
    line = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    for rows in shared:
        first = min(rows, key=lambda i: -old[i])
        together = 1 - (1 - opacity[rows]).prod()
        assert abs(float(together) - float(old[first])) < 1e-3
        # Across a line through the middle too: the paper keeps this integral.
        shrunk = (parameters["scales"][first, 0] - before["scales"][first, 0]).detach().exp()
        one = old[first] * torch.exp(-0.5 * line**2)
        many = 1 - (1 - opacity[first] * torch.exp(-0.5 * (line / shrunk) ** 2)) ** len(rows)
        assert abs(float(many.sum() / one.sum()) - 1) < 2e-3


def test_similarity_is_that_of_scikit_image(rng: np.random.Generator) -> None:
    skimage = pytest.importorskip("skimage.metrics")
    a = rng.random((40, 56, 3))
    b = np.clip(a + rng.normal(0, 0.1, a.shape), 0, 1)
    # Black around both, as the trainer's convolution sees them; then the same pixels.
    _, wanted = skimage.structural_similarity(
        *(np.pad(image, ((8, 8), (8, 8), (0, 0))) for image in (a, b)),
        channel_axis=2,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    got = fit.similarity(torch.tensor(a), torch.tensor(b))
    assert math.isclose(float(got), float(wanted[8:-8, 8:-8].mean()), abs_tol=1e-9)


def test_file_reads_back(rng: np.random.Generator, tmp_path: Path) -> None:
    splats = gaussians.export(some_parameters(rng, 50))
    fit.write_ply(tmp_path / "a.ply", splats)
    again = read(tmp_path / "a.ply", "a.ply")
    for field in ("means", "scales", "quats", "opacities", "sh0", "shN"):
        assert np.array_equal(getattr(again, field), getattr(splats, field))


def dense(means2d, conics, colours, opacities, radii, depths, width, height):  # type: ignore[no-untyped-def]
    """Every Gaussian at every pixel, with autograd's own gradients: stands in for the kernels."""
    order = depths.argsort()[: int(depths.isfinite().sum())]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    dx = x[..., None] - means2d[order, 0]
    dy = y[..., None] - means2d[order, 1]
    a, b, c = conics[order].unbind(1)
    alpha = opacities[order] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = alpha.clamp_max(0.99)
    passed = torch.cumprod(1 - alpha, dim=2)
    passed = torch.cat([torch.ones_like(passed[..., :1]), passed[..., :-1]], dim=2)
    return (alpha * passed) @ colours[order]


def test_fit_comes_closer_to_the_photographs(one_ball: Scene) -> None:
    staged = Stage(one_ball, "cpu")
    views = viewpoints(one_ball, 4, 24, 0.0, "cpu")
    photographs = [(staged.photograph(view) * 255).round().byte() for view in views]
    parameters = fit.first_points(staged, 120, seed=0)

    def error() -> float:
        total = 0.0
        for view, photograph in zip(views, photographs, strict=True):
            flat = gaussians.project(parameters, view, 3)
            picture = dense(*vars(flat).values(), view.width, view.height).detach()
            total += float(((picture - photograph.float() / 255) ** 2).mean())
        return total

    before = error()
    fit.fit(parameters, views, photographs, 60, 3.0, 0, dense)
    assert error() < 0.7 * before
    assert parameters["shN"].abs().max() > 0
    splats = gaussians.export(parameters)
    assert fit.statistics(splats)["finite"]
