"""Any legal scene survives every writer: hypothesis draws sizes, degrees, models and extremes.

Tolerances are half a step of the format at the value's place, derived beside each check.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.context import InvalidInput
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import COEFFICIENTS, SH_C0, Splats
from models.splat_to_sog.writers.curve import curve_order
from models.splat_to_sog.writers.formats import SpzOptions, StreamedOptions
from models.splat_to_sog.writers.lod_tree import bounds_of, build_tree, leaves
from models.splat_to_sog.writers.write import write

LARGEST = float(np.finfo(np.float32).max)
EPS = float(np.finfo(np.float32).eps)


def floats(low: float, high: float, *others: float) -> st.SearchStrategy[float]:
    spread = st.floats(low, high, width=32, allow_subnormal=False)
    return st.one_of(spread, st.sampled_from([0.0, low, high, *others]))


@st.composite
def scenes(draw: st.DrawFn, max_degree: int = 3) -> Splats:
    """Values of a trained scene, mixed with everything that is legal: huge positions, flat and
    enormous splats, opacities of +-inf, quaternions of any length and of none."""
    n = draw(st.one_of(st.integers(1, 8), st.sampled_from([255, 256, 257, 600])))
    k = COEFFICIENTS[draw(st.integers(0, max_degree))]
    reach = draw(st.sampled_from([1e-6, 1.0, 100.0, 1e6, 1e30, LARGEST]))

    def array(elements: st.SearchStrategy[float], *shape: int) -> np.ndarray:
        return draw(hnp.arrays(np.float32, (n, *shape), elements=elements, fill=st.just(0.5)))

    reach = float(np.float32(reach))
    quats = array(floats(-1, 1, 1e30, -1e-30), 4)
    quats[: draw(st.integers(0, 2))] = 0
    return Splats(
        means=array(floats(-reach, reach), 3),
        scales=array(floats(-12, 4, -np.inf, -100.0, 80.0), 3),
        quats=quats,
        opacities=array(floats(-10, 10, np.inf, -np.inf, 1e30), *()),
        sh0=array(floats(-3, 3, 1e5, -1e5), 3),
        shN=array(floats(-1, 1, 50.0, -50.0), 3, k),
        model=draw(st.sampled_from(["default", "antialiased", "2dgs"])),
    )


def through(name: str, splats: Splats, options: SpzOptions | None = None) -> Splats:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(splats, path, options=options)
        return read(path, name)


def alphas(splats: Splats) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-splats.opacities.astype(np.float64)))


def assert_same_turns(a: Splats, b: Splats) -> None:
    """Up to sign, within half a step of 10 bits a component (see test_write_compressed_ply).
    A zero quaternion is read as no rotation."""

    def unit(splats: Splats) -> np.ndarray:
        q = splats.quats.astype(np.float64)
        q[~q.any(axis=1)] = (1, 0, 0, 0)
        return q / np.linalg.norm(q, axis=1, keepdims=True)

    p, q = unit(a), unit(b)
    chord = np.minimum(np.linalg.norm(p - q, axis=1), np.linalg.norm(p + q, axis=1))
    assert chord.max() <= np.sqrt(12) * np.sqrt(2) / 2044


EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@given(scenes(max_degree=4))
@EXAMPLES
def test_ply_keeps_every_bit(splats: Splats) -> None:
    back = through("scene.ply", splats)
    flat = splats.model == "2dgs"
    assert back.model == splats.model
    for name in ("means", "quats", "opacities", "sh0", "shN"):
        np.testing.assert_array_equal(getattr(back, name), getattr(splats, name), name)
    np.testing.assert_array_equal(back.scales[:, : 3 - flat], splats.scales[:, : 3 - flat])


@given(scenes())
@EXAMPLES
def test_compressed_ply_is_within_half_a_step(splats: Splats) -> None:
    back = through("scene.compressed.ply", splats)
    splats = splats.take(curve_order(splats.means))
    assert (len(back), back.degree, back.model) == (len(splats), splats.degree, splats.model)
    scales = np.clip(splats.scales, -20, 20)
    for start in range(0, len(splats), 256):
        rows = slice(start, start + 256)
        for a, b, codes in (
            (splats.means, back.means, np.array([2047, 1023, 2047])),
            (scales, back.scales, np.array([2047, 1023, 2047])),
            (splats.sh0, back.sh0, np.array([255, 255, 255])),
        ):
            x, y = a[rows].astype(np.float64), b[rows].astype(np.float64)
            # Half a step of the chunk's range, and the float32 of its bounds and of the result;
            # colours pass through 0.5 + c, whose float32 adds an absolute share.
            slack = 4 * EPS * (np.abs(x).max(axis=0) + (0.5 / SH_C0 if codes[1] == 255 else 0))
            assert (np.abs(x - y) <= np.ptp(x, axis=0) / codes / 2 + slack).all()
    assert np.abs(alphas(splats) - alphas(back)).max() <= 0.5 / 255 + 1e-6
    assert_same_turns(splats, back)
    shn = np.clip(splats.shN, -4, 4)
    # A step of 1/32; beyond the middle of the outermost ones the nearest code is +-4 itself.
    assert np.abs(shn - back.shN).max(initial=0) <= 0.75 / 32 + 1e-6


@given(scenes(), st.sampled_from([3, 4]), st.sampled_from(["5/4", "8"]))
@EXAMPLES
def test_spz_is_within_half_a_step_or_refuses(splats: Splats, version: int, bits: str) -> None:
    options = SpzOptions(version=version, sh_bits=bits)
    reach = float(np.abs(splats.means).max())
    if reach >= 2**23 - 0.5:
        with pytest.raises(InvalidInput, match="units from the origin"):
            through("scene.spz", splats, options)
        return
    back = through("scene.spz", splats, options)
    assert (len(back), back.degree) == (len(splats), splats.degree)
    assert back.model == ("antialiased" if splats.model == "antialiased" else "default")
    # 12 fractional bits unless 24 bits do not reach: then as many as do.
    step = max(2.0**-12, 2.0 ** np.ceil(np.log2(max(reach, 1) / (2**23 - 1.5))))
    assert np.abs(splats.means.astype(np.float64) - back.means).max() <= step / 2 + EPS * reach
    assert np.abs(np.clip(splats.scales, -10, 5.9375) - back.scales).max() <= 1 / 32 + 1e-6
    colours = np.clip(splats.sh0, -0.5 / 0.15, 0.5 / 0.15)
    assert np.abs(colours - back.sh0).max() <= 0.5 / 255 / 0.15 + 1e-6
    assert np.abs(alphas(splats) - alphas(back)).max() <= 0.5 / 255 + 2e-6  # readers clamp at 1e-6
    assert_same_turns(splats, back)
    shn = np.clip(splats.shN, -1, 127 / 128)
    half = {"8": (0.5, 0.5), "5/4": (4, 8)}[bits]
    assert np.abs(shn - back.shN)[..., :3].max(initial=0) <= half[0] / 128 + 1e-6
    assert np.abs(shn - back.shN)[..., 3:].max(initial=0) <= half[1] / 128 + 1e-6


@given(scenes(), st.integers(1, 300), st.floats(0.1, 1e6), st.integers(1, 100))
@EXAMPLES
def test_trees_hold_every_splat_once(splats: Splats, most: int, extent: float, fewest: int) -> None:
    options = StreamedOptions(chunk_splats=most, leaf_extent=extent, leaf_splats=fewest)
    second = splats.take(np.arange(0, len(splats), 3))
    levels = [splats, second]
    tree = build_tree(levels, options.chunk_splats, options.leaf_extent, options.leaf_splats)
    found: list[list[np.ndarray]] = [[], []]
    for leaf in leaves(tree):
        assert 1 <= sum(map(len, leaf.rows)) <= most
        for level, rows in enumerate(leaf.rows):
            assert (np.diff(rows) > 0).all()
            found[level].append(rows)
            if len(rows):
                low, high = bounds_of(levels[level], rows)
                assert np.isfinite([low, high]).all()
                means = levels[level].means[rows]
                assert (means >= low).all() and (means <= high).all()
    for level, parts in zip(levels, found, strict=True):
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(level)))


@given(scenes())
@settings(EXAMPLES, max_examples=6)  # an encoder a splat count: it is the slow part
def test_sog_writes_every_scene(splats: Splats) -> None:
    back = through("scene.sog", splats)
    assert (len(back), back.degree, back.model) == (len(splats), splats.degree, splats.model)
    for name in ("means", "scales", "quats", "sh0", "shN"):
        assert np.isfinite(getattr(back, name)).all(), name
