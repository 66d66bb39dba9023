"""SOG version 1, its drafts, and streamed scenes: hand-made textures decode to known values."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.context import InvalidInput
from models.splat_to_sog.readers import read, read_files
from models.splat_to_sog.readers.streamed import Level
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import ATTRIBUTES

SIDE = 6
N = SIDE * SIDE


def pixels(data: bytes) -> np.ndarray:  # [H * W, 4]
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).reshape(-1, 4)


def lerp(section: dict, bytes_: np.ndarray) -> np.ndarray:
    low, high = np.array(section["mins"]), np.array(section["maxs"])
    return low + (high - low) * bytes_ / 255


@pytest.mark.parametrize("draft", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_version_1_values(tmp_path: Path, rng, formats, degree: int, draft: bool) -> None:
    files = formats.sog_v1(rng, SIDE, degree, draft)
    meta = json.loads(files["meta.json"])
    path = tmp_path / "scene.sog"
    path.write_bytes(formats.zipped(files))
    splats = read(path, "scene.sog")
    assert (len(splats), splats.degree) == (N, degree)

    steps = pixels(files["means_l.webp"])[:, :3] + 256.0 * pixels(files["means_u.webp"])[:, :3]
    low, high = np.array(meta["means"]["mins"]), np.array(meta["means"]["maxs"])
    n = low + (high - low) * steps / 65535
    np.testing.assert_allclose(splats.means, np.sign(n) * np.expm1(np.abs(n)), rtol=1e-5, atol=1e-6)
    scales = lerp(meta["scales"], pixels(files["scales.webp"])[:, :3])
    np.testing.assert_allclose(splats.scales, scales, rtol=1e-6)
    colour = pixels(files["sh0.webp"])
    if draft:
        np.testing.assert_allclose(splats.sh0, lerp(meta["sh0"], colour[:, :3]), atol=1e-6)
        opacity = lerp(meta["opacities"], pixels(files["opacities.webp"])[:, :1])[:, 0]
        wxy = lerp(meta["quats"], pixels(files["quats.webp"])[:, :3])
        np.testing.assert_allclose(splats.quats[:, :3], wxy, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(splats.quats, axis=1), 1, atol=1e-6)
        assert (splats.quats[:, 3] >= 0).all()
    else:
        values = lerp(meta["sh0"], colour)
        np.testing.assert_allclose(splats.sh0, values[:, :3], atol=1e-6)
        opacity = values[:, 3]
        np.testing.assert_allclose(np.linalg.norm(splats.quats, axis=1), 1, atol=0.4)
    np.testing.assert_allclose(splats.opacities, opacity, atol=1e-6)
    if degree:
        k = splats.shN.shape[2]
        labels = pixels(files["shN_labels_l.webp" if draft else "shN_labels.webp"])[:, 0]
        palette = pixels(files["shN_centroids.webp"])
        entry = (labels // 64).astype(int) * 64 * k + (labels % 64).astype(int) * k
        last = palette[entry + k - 1, 1]  # the last coefficient of green
        expected = meta["shN"]["mins"] + 1.25 * last / 255
        np.testing.assert_allclose(splats.shN[:, 1, k - 1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("means", "shape", [0, 3], "'means.shape' is"),
        ("means", "shape", [37, 3], "too small for 37 splats"),
        ("scales", "mins", [0], "'scales.mins' is"),
        ("sh0", "maxs", [1, 2, 3], "'sh0.maxs' is .* 4 finite numbers"),
        ("shN", "mins", [1, 2], "'shN.mins' is .* a finite number"),
        ("shN", "files", ["a.webp"], "2 plain name"),
        ("shN", "files", ["sh0.webp", "sh0.webp"], "6 pixels wide; a palette has 192, 512 or 960"),
    ],
)
def test_version_1_refusals(tmp_path: Path, rng, formats, section, key, value, says) -> None:
    files = formats.sog_v1(rng, SIDE, 1)
    meta = json.loads(files["meta.json"])
    meta[section][key] = value
    path = tmp_path / "scene.sog"
    path.write_bytes(formats.zipped(files | {"meta.json": json.dumps(meta).encode()}))
    with pytest.raises(InvalidInput, match=says):
        read(path, "scene.sog")


def test_few_bytes_cannot_hold_many_splats(tmp_path: Path, rng, formats) -> None:
    """One-coloured textures of 4 million texels take 100 bytes each."""
    files = formats.sog_v2(rng, SIDE)
    flat = formats.webp(np.zeros((2048, 2048, 3)))
    meta = json.loads(files["meta.json"]) | {"count": 2048 * 2048}
    files |= {"means_l.webp": flat, "means_u.webp": flat, "meta.json": json.dumps(meta).encode()}
    path = tmp_path / "scene.sog"
    path.write_bytes(formats.zipped(files))
    with pytest.raises(InvalidInput, match="cannot hold the positions of 4194304") as error:
        read(path, "scene.sog")
    assert error.value.code == "splat_limits"


MOST = 16380**2  # splats of one SOG: 63 GB of harmonics at degree 3


def claiming(files: dict[str, bytes], count: int) -> dict[str, bytes]:
    """The same textures under a description that says they hold this many splats."""
    meta = json.loads(files["meta.json"])
    if "count" in meta:
        meta["count"] = count
    else:
        meta["means"]["shape"][0] = count
    return files | {"meta.json": json.dumps(meta).encode()}


@pytest.mark.parametrize("degree", [0, 3])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("count", "code", "says"),
    [
        (MOST, "splat_limits", f"cannot hold the positions of {MOST} splats"),
        (N + 1, "splat_texture", f"is 6 x 6 pixels, too small for {N + 1} splats"),
    ],
)
def test_no_room_is_taken_for_splats_that_cannot_be_there(
    tmp_path: Path, rng, formats, version, degree, count, code, says
) -> None:
    write = formats.sog_v1 if version == 1 else formats.sog_v2
    path = tmp_path / "scene.sog"
    path.write_bytes(formats.zipped(claiming(write(rng, SIDE, degree), count)))
    scratch = Scratch(tmp_path, budget_bytes=0)
    with pytest.raises(InvalidInput, match=f"'means_l.webp' .*{says}") as error:
        read(path, "scene.sog", scratch)
    assert error.value.code == code
    assert scratch.spilled_bytes == 0


def test_no_room_is_taken_for_a_description_without_textures(tmp_path: Path, formats) -> None:
    path = tmp_path / "scene.sog"
    description = {"version": 2, "count": 147_483_648, "meaans": 0}
    path.write_bytes(formats.zipped({"meta.json": json.dumps(description).encode()}))
    scratch = Scratch(tmp_path, budget_bytes=0)
    with pytest.raises(InvalidInput, match=r"'means.files' is None"):
        read(path, "scene.sog", scratch)
    assert scratch.spilled_bytes == 0


# --- streamed -------------------------------------------------------------------------------


@pytest.fixture
def scene(rng, formats):
    """Two levels; level 0 has two chunks of different degrees, one of them in two runs."""
    chunks = {
        "0_0": formats.sog_v2(rng, SIDE, 2),
        "0_1": formats.sog_v1(rng, SIDE),
        "1_0": formats.sog_v2(rng, 4),
        "env": formats.sog_v2(rng, 3, 1),
    }
    bound = {"min": [0, 0, 0], "max": [1, 1, 1]}
    leaves = [
        {"bound": bound, "lods": {"0": run(2, 20, 16), "1": run(0, 0, 16)}},
        {"bound": bound, "lods": {"0": run(2, 0, 20)}},
    ]
    description = {
        "version": 1,
        "count": 2 * N - 6 + 16,
        "counts": [2 * N - 6, 16],
        "lodLevels": 2,
        "environment": "env/meta.json",
        "filenames": ["1_0/meta.json", "0_1/meta.json", "0_0/meta.json"],
        "tree": {
            "bound": bound,
            "children": [
                {"bound": bound, "children": leaves},
                {"bound": bound, "lods": {"0": run(1, 6, 30)}},
            ],
        },
    }
    return chunks, description


def run(file: int, offset: int, count: int) -> dict[str, int]:
    return {"file": file, "offset": offset, "count": count}


def write(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def alone(formats, tmp_path: Path, chunk: dict[str, bytes]):
    path = tmp_path / "alone.sog"
    path.write_bytes(formats.zipped(chunk))
    return read(path, "alone.sog")


def test_the_finest_level_and_its_environment(tmp_path: Path, formats, scene) -> None:
    chunks, description = scene
    files = formats.streamed(chunks, description)
    folder = write(files, tmp_path / "scene")
    splats = read(folder, "scene")
    parts = [alone(formats, tmp_path, chunks[name]) for name in ("0_1", "0_0", "env")]
    parts[0] = parts[0].take(np.arange(6, N))
    assert (len(splats), splats.degree) == (30 + N + 9, 2)
    start = 0
    for part in parts:
        rows = slice(start, start + len(part))
        start += len(part)
        for name in ATTRIBUTES[:-1]:
            np.testing.assert_array_equal(getattr(splats, name)[rows], getattr(part, name), name)
        k = part.shN.shape[2]
        np.testing.assert_array_equal(splats.shN[rows, :, :k], part.shN)
        assert not splats.shN[rows, :, k:].any()


def test_folder_description_file_set_and_zip_read_alike(
    tmp_path: Path, formats, scene, assert_equal
) -> None:
    files = formats.streamed(*scene)
    folder = write(files, tmp_path / "scene")
    whole = read(folder, "scene")
    assert_equal(read(folder / "lod-meta.json", "lod-meta.json"), whole)
    assert_equal(read_files({name: folder / name for name in files}, "set"), whole)
    for archive in (files, {"0_0/": b"", **files}):
        (tmp_path / "scene.zip").write_bytes(formats.zipped(archive))
        assert_equal(read(tmp_path / "scene.zip", "scene.zip"), whole)


def test_level_and_environment_are_chosen(tmp_path: Path, formats, scene) -> None:
    path = tmp_path / "scene.zip"
    path.write_bytes(formats.zipped(formats.streamed(*scene)))
    assert len(read(path, "s", level=Level(1, environment=False))) == 16
    assert len(read(path, "s", level=Level(1))) == 16 + 9
    with pytest.raises(InvalidInput, match=r"level of detail 2 is asked for; there are 0 .* to 1"):
        read(path, "s", level=Level(2))


def test_the_form_before_version_1(tmp_path: Path, formats, scene) -> None:
    chunks, description = scene
    for key in ("version", "count", "counts"):
        del description[key]
    description["environment"] = None
    folder = write(formats.streamed(chunks, description), tmp_path / "scene")
    assert len(read(folder, "scene")) == 30 + N


def test_missing_chunks_are_named_before_anything_is_decoded(
    tmp_path: Path, formats, scene
) -> None:
    folder = write(formats.streamed(*scene), tmp_path / "scene")
    shutil.rmtree(folder / "0_0")
    (folder / "0_1" / "means_l.webp").write_bytes(b"not read")
    with pytest.raises(InvalidInput, match="'0_0/meta.json' is missing") as error:
        read(folder, "scene")
    assert error.value.code == "splat_archive"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "'version' is 2; allowed are 1 or none"),
        ({"lodLevels": 0}, "'lodLevels' is 0"),
        ({"filenames": "0_0"}, "'filenames' is '0_0'; a list"),
        ({"filenames": ["a", "0_1/meta.json", "../x/meta.json"]}, r"'filenames\[2\]' is '\.\./x"),
        ({"filenames": ["a", "/x/meta.json", "0_0/meta.json"]}, r"'filenames\[1\]' is '/x"),
        ({"filenames": ["a", "0_0/meta.json", "0_0/meta.json"]}, "which is named before"),
        ({"filenames": ["a", 7, "0_0/meta.json"]}, r"'filenames\[1\]' is 7"),
        ({"environment": "env/scene.sog"}, "'environment' is 'env/scene.sog'"),
        ({"counts": [66]}, "2 numbers are needed"),
        ({"counts": [65, 16]}, "'counts' is 65 for level 0; its tree holds 66 splats"),
        ({"tree": None}, "'tree' is holding the node None"),
        ({"tree": {}}, "without children or lods"),
        ({"tree": {"children": {}}}, "holding the node"),
        ({"tree": {"lods": {"0": run(3, 0, 1)}}}, r"file \(below 3\), offset and count"),
        ({"tree": {"lods": {"0": run(0, -1, 1)}}}, "holding the reference"),
        ({"tree": {"lods": {"0": 7}}}, "holding the reference 7"),
        ({"tree": {"lods": {"0": run(2, 0, 37)}}}, "up to 37 of '0_0/meta.json', which holds 36"),
        (
            {"tree": {"children": [{"lods": {"0": run(2, 0, 9)}}, {"lods": {"0": run(2, 8, 9)}}]}},
            "naming splat 8 of a chunk twice",
        ),
    ],
)
def test_streamed_refusals(tmp_path: Path, formats, scene, change, says) -> None:
    chunks, description = scene
    if "tree" in change:
        del description["counts"]
    path = tmp_path / "scene.zip"
    path.write_bytes(formats.zipped(formats.streamed(chunks, description | change)))
    with pytest.raises(InvalidInput, match=says):
        read(path, "scene.zip")


@pytest.mark.parametrize("name", ["0_0", "0_1", "env"])
def test_no_room_is_taken_for_chunks_that_claim_too_much(
    tmp_path: Path, formats, scene, name: str
) -> None:
    chunks, description = scene
    chunks[name] = claiming(chunks[name], MOST)
    path = tmp_path / "scene.zip"
    path.write_bytes(formats.zipped(formats.streamed(chunks, description)))
    scratch = Scratch(tmp_path, budget_bytes=0)
    with pytest.raises(InvalidInput, match=f"cannot hold the positions of {MOST}"):
        read(path, "scene.zip", scratch)
    assert scratch.spilled_bytes == 0


def test_a_streamed_zip_holds_nothing_else(tmp_path: Path, formats, scene) -> None:
    files = formats.streamed(*scene)
    path = tmp_path / "scene.zip"
    for name in ("../x.webp", "0_0/readme.txt", "0_0/../meta.json", "/meta.json"):
        path.write_bytes(formats.zipped(files | {name: b"x"}))
        with pytest.raises(InvalidInput, match="only meta.json and"):
            read(path, "scene.zip")


def test_a_real_streamed_scene(shared, tmp_path: Path) -> None:
    """The playbot asset of the older form; only two of its chunks are at hand."""
    folder = shared("data/splats/playbot")
    with pytest.raises(InvalidInput, match="'1_0/meta.json' is missing"):
        read(folder, "playbot", level=Level(1))
    splats = read(folder, "playbot", level=Level(2))
    assert splats.degree == 2
    whole = read(folder / "2_0", "2_0")
    assert len(splats) == len(whole)
    np.testing.assert_array_equal(splats.means, whole.means)
