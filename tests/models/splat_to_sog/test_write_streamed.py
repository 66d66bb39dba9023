"""A streamed SOG: every splat in one leaf run, runs whole, bounds around them, limits kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.context import InvalidInput
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.readers import read
from models.splat_to_sog.readers.streamed import Level
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.writers.formats import StreamedOptions
from models.splat_to_sog.writers.lod_tree import bounds_of, build_tree, leaves
from models.splat_to_sog.writers.streamed import pack_leaves, write_streamed
from models.splat_to_sog.writers.write import write

MakeSplats = Callable[..., Splats]
OPTIONS = StreamedOptions(chunk_splats=400, leaf_extent=4, leaf_splats=50)


@pytest.fixture(scope="module")
def levels() -> list[Splats]:
    """1000, 300 and 80 splats of degree 1 in the same place."""
    rng = np.random.default_rng(11)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return [
        Splats(
            means=3 * normal(n, 3),
            scales=normal(n, 3) - 4,
            quats=normal(n, 4),
            opacities=normal(n),
            sh0=normal(n, 3),
            shN=normal(n, 3, 3),
        )
        for n in (1000, 300, 80)
    ]


@pytest.fixture(scope="module")
def scene(levels: list[Splats], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lod-meta.json of those levels, with a sky and errors; not to be changed."""
    path = tmp_path_factory.mktemp("streamed") / "lod-meta.json"

    def fewer_than_ten_look_better(leaf: Sequence[Splats]) -> list[float]:
        return [0.0, *(0.5 if len(level) > 10 else 0.123456789 for level in leaf[1:])]

    options = OPTIONS.model_copy(update={"errors": True})
    write_streamed(
        levels, path, options, environment=levels[2], leaf_errors=fewer_than_ten_look_better
    )
    return path


def meta_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def leaves_of(node: dict[str, Any]) -> list[dict[str, Any]]:
    if "lods" in node:
        assert set(node) <= {"bound", "lods", "errors"}
        return [node]
    assert set(node) == {"bound", "children"} and len(node["children"]) == 2
    return [leaf for child in node["children"] for leaf in leaves_of(child)]


def rows_near(level: Splats, chunk: Splats) -> np.ndarray:
    """For each splat of the chunk the row of the level it is: the nearest centre."""
    from scipy.spatial import cKDTree

    distance, rows = cKDTree(level.means).query(chunk.means)
    assert distance.max() < 0.02  # half of what parts the two nearest splats
    return np.asarray(rows)


def test_the_description_counts_every_level(levels: list[Splats], scene: Path) -> None:
    meta = meta_of(scene)
    assert (meta["version"], meta["lodLevels"], meta["lodErrors"]) == (1, 3, True)
    assert meta["counts"] == [1000, 300, 80] and meta["count"] == 1380
    assert meta["environment"] == "env/meta.json"
    assert meta["asset"] == {
        "generator": "meshpress",
        "chunkGaussians": 400,
        "chunkExtent": 4,
        "chunkMinGaussians": 50,
    }
    folders = {str(file.relative_to(scene.parent)) for file in scene.parent.glob("*/meta.json")}
    assert folders == {*meta["filenames"], "env/meta.json"}
    levels_of_files = [int(name.split("_")[0]) for name in meta["filenames"]]
    assert {f"{level}_0/meta.json" for level in range(3)} <= set(meta["filenames"])
    assert sorted(set(levels_of_files)) == [0, 1, 2]


def test_runs_fill_their_chunks_without_gaps(scene: Path) -> None:
    meta = meta_of(scene)
    runs: dict[int, list[tuple[int, int]]] = {}
    for leaf in leaves_of(meta["tree"]):
        assert sum(place["count"] for place in leaf["lods"].values()) <= OPTIONS.chunk_splats
        for level, place in leaf["lods"].items():
            assert meta["filenames"][place["file"]].startswith(f"{level}_")
            runs.setdefault(place["file"], []).append((place["offset"], place["count"]))
    assert sorted(runs) == list(range(len(meta["filenames"])))
    for file, name in enumerate(meta["filenames"]):
        end = 0
        for offset, count in sorted(runs[file]):
            assert offset == end and count > 0
            end += count
        assert end == meta_of(scene.parent / name)["count"] <= OPTIONS.chunk_splats


def test_each_run_holds_its_leafs_splats_and_each_splat_lies_in_one(
    levels: list[Splats], scene: Path
) -> None:
    meta = meta_of(scene)
    chunks = [read(scene.parent / name, name) for name in meta["filenames"]]
    found: list[list[np.ndarray]] = [[], [], []]
    for leaf in leaves_of(meta["tree"]):
        low, high = (np.array(leaf["bound"][end]) for end in ("min", "max"))
        for level, place in leaf["lods"].items():
            run = np.arange(place["offset"], place["offset"] + place["count"])
            splats = chunks[place["file"]].take(run)
            rows = rows_near(levels[int(level)], splats)
            # Centres as given, not as coded, lie inside; 1e-6 relative: seven digits.
            means = levels[int(level)].means[rows]
            assert ((means >= low - 1e-5) & (means <= high + 1e-5)).all()
            found[int(level)].append(rows)
    for level, rows in zip(levels, found, strict=True):
        np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(len(level)))


def test_errors_never_fall_and_have_seven_digits(scene: Path) -> None:
    given = set()
    for leaf in leaves_of(meta_of(scene)["tree"]):
        errors = [leaf["errors"][int(level)] for level in leaf["lods"]]
        assert len(leaf["errors"]) == 3 and errors == sorted(errors) and errors[0] == 0
        given.update(errors)
    assert 0.1234568 in given


def test_bounds_hold_the_ellipsoids(levels: list[Splats]) -> None:
    """Against sampled points of the unit sphere, stretched, turned and moved by each splat."""
    splats = levels[0].take(np.arange(50))
    splats.scales[:] += 4
    rng = np.random.default_rng(3)
    points = rng.normal(size=(4000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    from scipy.spatial.transform import Rotation

    turned = Rotation.from_quat(splats.quats[:, [1, 2, 3, 0]]).as_matrix()
    shell = np.einsum("nij,nj,pj->npi", turned, np.exp(splats.scales), points)
    shell = (shell + splats.means[:, None]).reshape(-1, 3)
    low, high = bounds_of(splats, np.arange(50))
    assert (shell.min(axis=0) >= low).all() and (shell.max(axis=0) <= high).all()
    # Not far around them either: the box around a turned box, at most sqrt(3) of the ellipsoid.
    assert ((high - low) <= np.sqrt(3) * np.ptp(shell, axis=0)).all()


def test_inner_bounds_are_the_union_of_their_children(scene: Path) -> None:
    def check(node: dict[str, Any]) -> None:
        for end, pick in (("min", min), ("max", max)):
            inside = [child["bound"][end] for child in node.get("children", [])]
            if inside:
                assert node["bound"][end] == [pick(values) for values in zip(*inside, strict=True)]
        for child in node.get("children", []):
            check(child)

    check(meta_of(scene)["tree"])


def test_leaves_keep_the_limits(rng: np.random.Generator, make_splats: MakeSplats) -> None:
    splats = make_splats(5000)
    splats.means[:] = rng.uniform(0, (100, 1, 1), (5000, 3))
    tree = build_tree([splats, splats.take(np.arange(0, 5000, 5))], 2000, 16, 100)
    rows = [leaf.rows for leaf in leaves(tree)]
    for fine, coarse in rows:
        count = len(fine) + len(coarse)
        means = np.concatenate([splats.means[fine], splats.means[::5][coarse]])
        assert count <= 2000 and (np.ptp(means, axis=0).max() <= 16 or count <= 100)
    assert len(rows) == 8  # 100 units in halves: 12.5 each


def test_equal_centres_are_parted_by_row(make_splats: MakeSplats) -> None:
    splats = make_splats(1000)
    splats.means[:] = 1
    parts = [leaf.rows[0] for leaf in leaves(build_tree([splats], 300, 16, 10))]
    assert [part.tolist() for part in parts] == [
        list(range(start, start + 250)) for start in range(0, 1000, 250)
    ]


def test_a_run_is_never_parted(make_splats: MakeSplats) -> None:
    tree = build_tree([make_splats(1000)], 300, 1e9, 1)
    chunks, _ = pack_leaves(tree, 1, 600)
    assert [len(chunk.runs) for chunk in chunks] == [2, 2]
    assert [chunk.count for chunk in chunks] == [500, 500]


def test_same_levels_same_bytes(levels: list[Splats], tmp_path: Path) -> None:
    files = []
    for folder in ("a", "b"):
        written = write_streamed(levels[1:], tmp_path / folder / "lod-meta.json", OPTIONS)
        files.append([path.read_bytes() for path in written.files])
    assert files[0] == files[1]


def test_one_scene_is_a_streamed_sog_of_one_level(levels: list[Splats], tmp_path: Path) -> None:
    written = write(levels[1], tmp_path / "lod-meta.json", options=OPTIONS)
    meta = meta_of(written.files[0])
    assert (meta["lodLevels"], meta["lodErrors"], "environment" in meta) == (1, False, False)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(written.files)


def test_a_degree_that_is_cut_is_said(make_splats: MakeSplats, tmp_path: Path) -> None:
    path = tmp_path / "lod-meta.json"
    assert write(make_splats(30, 4), path).lost == {"harmonics above degree 3": 30}
    options = StreamedOptions(sog=SogOptions(sh_degree=0))
    assert write(make_splats(30, 4), path, options=options).lost == {}


def test_no_levels_or_empty_ones_are_refused(make_splats: MakeSplats, tmp_path: Path) -> None:
    for given, what in (([], "no level"), ([make_splats(3), make_splats(0)], "level 1 holds 0")):
        with pytest.raises(InvalidInput, match=what):
            write_streamed(given, tmp_path / "lod-meta.json", OPTIONS)
    with pytest.raises(InvalidInput, match="environment holds 0"):
        write_streamed([make_splats(3)], tmp_path / "x", OPTIONS, environment=make_splats(0))
    assert list(tmp_path.iterdir()) == []


def test_our_reader_finds_each_level_and_the_environment(levels: list[Splats], scene: Path) -> None:
    for level, splats in enumerate(levels):
        alone = read(scene, scene.name, level=Level(level, environment=False))
        assert len(alone) == len(splats)
        np.testing.assert_array_equal(np.sort(rows_near(splats, alone)), np.arange(len(splats)))
    assert len(read(scene, scene.name)) == 1000 + 80
