"""Any legal scene is encoded without a warning and read back within the steps of the format.

Each tolerance is half a step of what SOG stores, derived beside its check. Scenes are drawn from a
seed: hypothesis chooses how many splats and which extremes, numpy the values.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models.context import InvalidInput
from models.splat_to_sog.bundle import bundle
from models.splat_to_sog.canonical import QUAT_SCALE
from models.splat_to_sog.encode import Encoded, encode
from models.splat_to_sog.layout import log_position
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.readers import read
from models.splat_to_sog.rotations import unit_matrices
from models.splat_to_sog.splats import COEFFICIENTS, Splats

LARGEST = float(np.finfo(np.float32).max)
EPS = float(np.finfo(np.float32).eps)
EXTREMES = {
    "scales": (-np.inf, -100.0, 20.0, 80.0),
    "quats": (1e30, -1e30, 1e-30, 0.0),
    "opacities": (np.inf, -np.inf, 1e30, -1e30),
    "sh0": (1e5, -1e5, 0.0),
    "shN": (50.0, -50.0, 0.0),
}
ANY = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a scene is a seed: nothing to shrink
)


@st.composite
def scenes(draw: st.DrawFn, drawable: bool = False) -> Splats:
    """drawable: without what pictures cannot show (positions and sizes beyond 1e30)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.one_of(st.integers(1, 12), st.sampled_from([64, 255, 256, 257, 600])))
    k = COEFFICIENTS[draw(st.sampled_from([0, 0, 1, 2, 3]))]
    reach = draw(st.sampled_from([1e-30, 1e-6, 1.0, 100.0, 4e12, 1e30, LARGEST]))
    if drawable:
        reach = min(max(reach, 1e-6), 4e12)
    arrays = {
        "means": rng.uniform(-1, 1, (n, 3)) * reach,
        "scales": rng.normal(-4, 1, (n, 3)),
        "quats": rng.normal(size=(n, 4)),
        "opacities": rng.normal(0, 3, n),
        "sh0": rng.normal(size=(n, 3)),
        "shN": rng.normal(0, 0.2, (n, 3, k)),
    }
    arrays = {name: values.astype(np.float32) for name, values in arrays.items()}
    for name in draw(st.sets(st.sampled_from([*EXTREMES, "means"]))):
        share = draw(st.sampled_from([0.01, 0.3, 1.0]))  # of the numbers
        others = EXTREMES.get(name, (reach, -reach, 0.0))
        if drawable and name == "scales":
            others = (-np.inf, -100.0, 3.0)
        values = arrays[name]
        chosen = rng.random(values.shape) < share
        values[chosen] = rng.choice(np.float32(others), np.count_nonzero(chosen))
    placed = draw(st.sampled_from(["anywhere", "plane", "line", "one place", "far away"]))
    flat = {"plane": [2], "line": [0, 1], "one place": [0, 1, 2]}.get(placed, [])
    arrays["means"][:, flat] = arrays["means"][0, flat]
    if placed == "far away" and reach <= 1e30:
        arrays["means"] += np.float32(reach * 1e3)
    splats = Splats(**arrays, model=draw(st.sampled_from(["default", "antialiased", "2dgs"])))
    same = draw(st.sampled_from(["", "", "repeated", "identical"]))
    if same:
        splats = splats.take(rng.integers(0, n if same == "repeated" else 1, n))
    return splats


def decoded(made: Encoded) -> Splats:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.sog"
        path.write_bytes(bundle(made.files))
        return read(path, "out.sog")


def alphas(splats: Splats) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-splats.opacities.astype(np.float64)))


def covariances(splats: Splats) -> np.ndarray:
    """[N, 3, 3] in units of the splat's largest variance, float64."""
    q = splats.quats.astype(np.float64)
    q[~q.any(axis=1)] = (1, 0, 0, 0)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    scales = splats.scales.astype(np.float64)
    largest = scales.max(axis=1, keepdims=True)
    factor = (
        unit_matrices(q) * np.exp(np.maximum(scales - np.maximum(largest, -1e9), -300))[:, None]
    )
    return factor @ factor.transpose(0, 2, 1)


def assert_nearest(values: np.ndarray, found: np.ndarray, book: np.ndarray) -> None:
    """Each found value is as near as any level of the book."""
    best = np.abs(values[..., None].astype(np.float64) - book).min(axis=-1)
    np.testing.assert_array_equal(np.abs(values.astype(np.float64) - found), best)


def assert_close(splats: Splats, made: Encoded) -> None:
    """By the finest steps. `made.order` says which splat is stored where."""
    back, splats = decoded(made), splats.take(made.order)
    meta = json.loads(made.files["meta.json"])
    assert (len(back), back.degree, back.model) == (len(splats), splats.degree, splats.model)
    np.testing.assert_array_equal(np.sort(made.order), np.arange(len(splats)))

    # Positions: half a step of 65,535 between the ends, and a float32 of the result.
    low, high = (np.array(meta["means"][end]) for end in ("mins", "maxs"))
    error = np.abs(log_position(back.means) - log_position(splats.means))
    magnitude = np.abs(log_position(splats.means))
    assert (error <= (high - low) / 65535 / 2 * (1 + 1e-9) + EPS + 1e-12 * magnitude).all()

    # Opacities: half of 1/255, and the clamp of 1e-6 with which readers take logits.
    assert np.abs(alphas(back) - alphas(splats)).max() <= 0.5 / 255 + 2e-6

    # Colours and scales: the nearest level; axes may be renamed, which keeps sorted scales sorted.
    books = {name: np.float64(np.float32(meta[name]["codebook"])) for name in ("sh0", "scales")}
    assert_nearest(splats.sh0, back.sh0, books["sh0"])
    if len(np.unique(splats.sh0)) <= 256:
        np.testing.assert_array_equal(back.sh0, splats.sh0)
    known, found = np.sort(splats.scales), np.sort(back.scales)
    finite = np.isfinite(known)
    assert_nearest(known[finite], found[finite], books["scales"])
    lowest = known[finite].min(initial=np.inf) if finite.any() else 0.0
    assert (found[~finite] <= lowest - 19).all()

    # Covariances: the scales as found, turned by at most what rounding x, y, z to half a code does:
    # w is above 0.5, so it moves by no more than they do; an angle is twice that.
    turn = 2 * math.sqrt(3) * (0.5 / QUAT_SCALE) * 2
    shrunk = np.abs(np.expm1(2 * np.where(finite, found - np.where(finite, known, 0), 0)))
    drawn = finite.any(axis=1)
    change = np.linalg.norm(covariances(back) - covariances(splats), axis=(1, 2))
    limit = 2 * turn * math.sqrt(2) + 4 * shrunk.max(axis=1) + 1e-6
    assert (change <= limit)[drawn].all()
    assert np.isfinite(back.shN).all()


def with_cores(count: int, splats: Splats, options: SogOptions) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: count)
        patch.setattr(os, "sched_getaffinity", lambda process: set(range(count)), raising=False)
        return bundle(encode(splats, options).files)


@given(scenes())
@ANY
def test_quality_keeps_every_scene_within_its_finest_steps(splats: Splats) -> None:
    """Without harmonics, which would set the price of all other numbers."""
    splats = splats.cut_degree(0)
    assert_close(splats, encode(splats, SogOptions()))


@given(scenes(), st.integers(0, 3))
@settings(ANY, max_examples=8)
def test_the_same_bytes_again_and_on_any_number_of_cores(splats: Splats, degree: int) -> None:
    options = SogOptions(sh_degree=degree, seed=5)
    before = [getattr(splats, name).copy() for name in ("means", "scales", "quats", "sh0", "shN")]
    first = bundle(encode(splats, options).files)
    assert first == with_cores(1, splats, options) == with_cores(7, splats, options)
    for name, copy in zip(("means", "scales", "quats", "sh0", "shN"), before, strict=True):
        np.testing.assert_array_equal(getattr(splats, name), copy, name)


@given(scenes())
@settings(ANY, max_examples=4)
def test_any_scene_meets_a_size_or_says_what_it_takes(splats: Splats) -> None:
    target = 5000 + 6 * len(splats)
    try:
        made = encode(splats, SogOptions(target_bytes=target))
    except InvalidInput as refused:
        assert refused.code == "target_unreachable"
        return
    assert len(bundle(made.files)) <= target
    back = decoded(made)
    assert (len(back), back.degree, back.model) == (len(splats), splats.degree, splats.model)
    for name in ("means", "scales", "quats", "opacities", "sh0", "shN"):
        assert np.isfinite(getattr(back, name)).all(), name


@given(scenes(drawable=True), st.sampled_from(["small", "tiny"]))
@settings(ANY, max_examples=4)
def test_presets_that_look_at_pictures_take_any_scene(splats: Splats, preset: str) -> None:
    options = SogOptions(preset=preset)
    made = encode(splats, options)
    back = decoded(made)
    assert (len(back), back.degree, back.model) == (len(splats), splats.degree, splats.model)
    for name in ("means", "scales", "quats", "opacities", "sh0", "shN"):
        assert np.isfinite(getattr(back, name)).all(), name
    assert bundle(made.files) == with_cores(7, splats, options)


@pytest.mark.parametrize("field", ["opacities", "scales"])
def test_nothing_but_minus_infinity(make_splats, field: str) -> None:
    """A scene of invisible splats, and one of points: legal, and drawn as nothing."""
    splats = make_splats(100, 1)
    getattr(splats, field)[:] = -np.inf
    for options in (SogOptions(), SogOptions(preset="small")):
        made = encode(splats, options)
        back = decoded(made)
        assert (alphas(back) < 2e-6).all() or field == "scales"
        assert (back.scales <= -20).all() or field == "opacities"
    splats = splats.cut_degree(0)
    assert_close(splats, encode(splats, SogOptions()))
