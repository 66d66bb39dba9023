"""The pipeline: artifact, report, progress, cancellation, and what a user is told of bad input."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from models.context import Cancelled, InputFile, InvalidInput, LocalContext
from models.splat_to_sog.pipeline import load
from models.splat_to_sog.pipeline_options import SplatOptions
from models.splat_to_sog.readers import read


def run(folder: Path, *paths: Path, options: SplatOptions | None = None, **context: object):
    folder.mkdir(exist_ok=True)
    inputs = [InputFile(path, path.name) for path in paths]
    return load("cpu")(
        LocalContext(folder, **context), inputs, options or SplatOptions(report=False)
    )


def test_sample_to_sog_with_its_report(samples: Path, tmp_path: Path) -> None:
    stages: list[tuple[str, float]] = []
    source = samples / "playbot.compressed.ply"
    result = run(
        tmp_path, source, on_progress=lambda stage, fraction, _: stages.append((stage, fraction))
    )
    (artifact,) = result.artifacts
    assert (artifact.name, artifact.media_type) == ("scene.sog", "application/zip")
    assert artifact.path.parent == tmp_path
    report = dict(result.report)
    assert json.loads(json.dumps(report)) == report
    assert (report["splats_in"], report["splats_out"], report["dropped"]) == (13000, 13000, {})
    assert report["sh_degree"] == 2
    assert 256 < report["palette_entries"] < 13000  # as many as the price of a bit pays for
    assert report["bytes_in"] == source.stat().st_size
    assert report["bytes_out"] == artifact.path.stat().st_size < report["bytes_in"]
    with zipfile.ZipFile(artifact.path) as archive:
        assert {i.filename: i.file_size for i in archive.infolist()} == report["bytes"]
    names = ["read", "clean", "edit", "order", "quantise", "palette", "textures"]
    assert list(report["seconds"]) == names
    assert list(dict(stages)) == names
    fractions = [fraction for _, fraction in stages]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert report["warnings"] == []


def test_same_file_same_bytes(samples: Path, tmp_path: Path) -> None:
    source = samples / "playbot.compressed.ply"
    first, second = (run(tmp_path / name, source).artifacts[0].path for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_warns_of_what_it_dropped(make_splats, write_ply, tmp_path: Path) -> None:
    splats = make_splats(50, 4)
    splats.means[3], splats.quats[7] = np.nan, 0
    result = run(
        tmp_path, write_ply(splats), options=SplatOptions(report=False, sh_degree=0, palette_size=9)
    )
    assert (result.report["splats_in"], result.report["splats_out"]) == (50, 49)
    assert result.report["warnings"] == [
        "Splats that cannot be drawn were dropped (position not finite: 1).",
        "1 splats: rotation zero, read as none.",
        "palette_size has no effect: the scene has no spherical harmonics.",
    ]


def test_a_file_of_nothing_but_nan(make_splats, write_ply, tmp_path: Path) -> None:
    splats = make_splats(50)
    splats.means[:] = np.nan
    with pytest.raises(InvalidInput, match="none of its 50 splats can be drawn") as error:
        run(tmp_path, write_ply(splats, name="diverged.ply"))
    assert error.value.message.startswith("diverged.ply: ")
    assert "position not finite: 50" in error.value.message
    assert error.value.code == "splat_empty"


def test_a_level_of_what_has_none_is_told(make_splats, write_ply, tmp_path: Path) -> None:
    plain = write_ply(make_splats(300), name="plain.ply")
    options = SplatOptions(report=False, formats=("lod",), lod_levels=2)
    streamed = run(tmp_path / "lod", plain, options=options).artifacts[0].path
    wanted = SplatOptions(report=False, level=1)
    result = run(tmp_path / "out", plain, options=wanted)
    assert result.report["warnings"] == [
        "level has no effect: it is 1, and no input is a streamed SOG; only that has levels of "
        "detail."
    ]
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(streamed) as archive:
        archive.extractall(folder)
    for given in (streamed, folder, folder / "lod-meta.json"):
        coarse = run(tmp_path / "coarse", given, options=wanted)
        assert (coarse.report["splats_in"], coarse.report["warnings"]) == (150, [])
    assert run(tmp_path / "both", plain, streamed, options=wanted).report["warnings"] == []


def test_loose_files_as_one_upload(encoded_scene: dict[str, bytes], tmp_path: Path) -> None:
    paths = []
    for name, data in encoded_scene.items():
        (tmp_path / name).write_bytes(data)
        paths.append(tmp_path / name)
    result = run(tmp_path / "out", *paths)
    assert result.report["splats_out"] == 100
    assert result.report["bytes_in"] == sum(map(len, encoded_scene.values()))
    assert read(result.artifacts[0].path, "x").degree == 1


def test_among_the_files_of_one_sog_nothing_else_belongs(
    encoded_scene: dict[str, bytes], make_splats, write_ply, tmp_path: Path
) -> None:
    """A scene beside them would be dropped without a word."""
    for name, data in encoded_scene.items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in encoded_scene]
    with pytest.raises(InvalidInput, match=r"other.ply: it came with the textures of a SOG"):
        run(tmp_path / "out", *paths, write_ply(make_splats(9), name="other.ply"))
    with pytest.raises(InvalidInput, match=r"meta.json: two files of one SOG have this name"):
        run(tmp_path / "out", *paths, tmp_path / "meta.json")


def test_bytes_in_are_those_of_every_file_read(
    encoded_scene: dict[str, bytes], tmp_path: Path
) -> None:
    for name, data in encoded_scene.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "photo.webp").write_bytes(bytes(999))
    options = SplatOptions(report=False, formats=("lod", "ply"), lod_levels=2)
    for given in (tmp_path / "meta.json", tmp_path):
        result = run(tmp_path / "out", given, options=options)
        assert result.report["bytes_in"] == sum(map(len, encoded_scene.values()))
    chunks = tmp_path / "unpacked"
    with zipfile.ZipFile(tmp_path / "out" / "scene.lod.zip") as archive:
        archive.extractall(chunks)
    streamed = run(tmp_path / "again", chunks / "lod-meta.json", options=options)
    sizes = [path.stat().st_size for path in chunks.rglob("*") if path.is_file()]
    assert streamed.report["bytes_in"] == sum(sizes)


def test_says_which_degree_its_main_result_has(make_splats, write_ply, tmp_path: Path) -> None:
    source = write_ply(make_splats(20, 4))
    for formats, degree in ((("ply", "sog"), 4), (("sog", "ply"), 3)):
        options = SplatOptions(report=False, formats=formats)
        result = run(tmp_path / "out", source, options=options)
        path = result.artifacts[0].path
        assert result.report["sh_degree"] == read(path, path.name).degree == degree


def test_options_that_no_format_knows_are_told(make_splats, write_ply, tmp_path: Path) -> None:
    source = write_ply(make_splats(20))
    changed = {"target_psnr": 40.0, "lod_levels": 2, "spz_version": 4}
    options = SplatOptions(report=False, formats=("ply",), **changed)
    assert list(options.without_effect()) == list(changed)
    warnings = run(tmp_path / "out", source, options=options).report["warnings"]
    assert [warning.split()[0] for warning in warnings] == list(changed)
    for formats in (("sog", "lod", "spz"), ("lod", "spz")):
        assert not SplatOptions(formats=formats, **changed).without_effect()


def test_a_streamed_sog_has_no_size_to_fit() -> None:
    with pytest.raises(ValueError, match="target_bytes is 9000 and formats has lod"):
        SplatOptions(formats=("lod",), target_bytes=9000)
    SplatOptions(formats=("sog", "ply"), target_bytes=9000)


def test_degree_4_is_cut_with_a_warning(make_splats, write_ply, tmp_path: Path) -> None:
    result = run(tmp_path, write_ply(make_splats(20, 4)))
    assert result.report["sh_degree_in"] == 4 and result.report["sh_degree"] == 3
    assert result.report["warnings"] == [
        "scene.sog cannot hold harmonics above degree 3: 20 splats."
    ]


def test_several_files_become_one_scene(make_splats, write_ply, tmp_path: Path) -> None:
    first, second = write_ply(make_splats(30, 1), name="a.ply"), write_ply(make_splats(12))
    result = run(tmp_path / "out", first, second)
    assert result.report["splats_in"] == result.report["splats_out"] == 42
    assert result.report["bytes_in"] == first.stat().st_size + second.stat().st_size
    assert read(result.artifacts[0].path, "x").degree == 1
    with pytest.raises(InvalidInput, match="No input file"):
        run(tmp_path)


def test_every_format_at_once(make_splats, write_ply, tmp_path: Path) -> None:
    formats = ("sog", "loose", "lod", "ply", "compressed", "spz")
    options = SplatOptions(report=False, formats=formats, lod_levels=2)
    result = run(tmp_path, write_ply(make_splats(300, 2)), options=options)
    assert [artifact.name.split(".")[1] for artifact in result.artifacts] == list(formats)
    assert {path.name for path in tmp_path.iterdir()} == {
        "scene.ply",
        *(artifact.name for artifact in result.artifacts),
    }  # nothing half-made or unpacked is left
    counts = {a.name: len(read(a.path, a.name)) for a in result.artifacts}
    assert set(counts.values()) == {300}, counts  # a streamed scene is read at its finest level


def test_the_scene_is_edited_before_it_is_coded(make_splats, write_ply, tmp_path: Path) -> None:
    splats = make_splats(400, 1)
    options = SplatOptions(report=False, translate=[100, 0, 0], min_opacity=0.5, keep=50)
    result = run(tmp_path, write_ply(splats), options=options)
    opaque = int((splats.opacities >= 0).sum())
    assert result.report["dropped"]["min_opacity"] == 400 - opaque
    assert result.report["splats_out"] == min(50, opaque)
    middle = read(result.artifacts[0].path, "x").means.mean(axis=0)
    assert abs(middle[0] - 100 - splats.means[splats.opacities >= 0, 0].mean()) < 1


def test_the_report_says_what_coding_cost(samples: Path, tmp_path: Path) -> None:
    result = run(tmp_path, samples / "playbot.compressed.ply", options=SplatOptions())
    quality = result.report["quality"]
    assert json.loads(json.dumps(quality)) == quality
    assert 40 < quality["psnr_db"] < 80 and quality["ssim"] > 0.99
    assert quality["attributes"]["position"]["rms_of_radius"] < 1e-3
    assert [a.name for a in result.artifacts] == ["scene.sog", "preview.webp"]
    assert result.artifacts[1].path.read_bytes()[8:12] == b"WEBP"


@pytest.mark.parametrize("stage", ["read", "order", "palette", "textures"])
def test_cancels_in_every_stage(samples: Path, tmp_path: Path, stage: str) -> None:
    seen: list[str] = []
    with pytest.raises(Cancelled):
        run(
            tmp_path,
            samples / "playbot.compressed.ply",
            on_progress=lambda name, *_: seen.append(name),
            is_cancelled=lambda: stage in seen,
        )
    assert seen[-1] == stage
    assert not (tmp_path / "scene.sog").exists()


def test_options_import_no_arrays() -> None:
    code = (
        "import sys, models.splat_to_sog.pipeline_options; "
        "sys.exit(any(m in sys.modules for m in ('numpy', 'PIL', 'numba')))"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_the_pipeline_compiles_nothing() -> None:
    """A cold process must not wait for a compiler: numba is not loaded at all."""
    code = (
        "import sys, models.splat_to_sog.pipeline; "
        "sys.exit(any(m in sys.modules for m in ('numba', 'scipy', 'torch')))"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
