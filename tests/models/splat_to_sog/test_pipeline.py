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
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.pipeline import load
from models.splat_to_sog.readers import read


def run(folder: Path, *paths: Path, options: SogOptions | None = None, **context: object):
    folder.mkdir(exist_ok=True)
    inputs = [InputFile(path, path.name) for path in paths]
    return load("cpu")(LocalContext(folder, **context), inputs, options or SogOptions())


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
    assert (report["sh_degree"], report["palette_entries"]) == (2, 8192)
    assert report["bytes_in"] == source.stat().st_size
    assert report["bytes_out"] == artifact.path.stat().st_size < report["bytes_in"]
    with zipfile.ZipFile(artifact.path) as archive:
        assert {i.filename: i.file_size for i in archive.infolist()} == report["bytes"]
    names = ["read", "clean", "order", "quantise", "palette", "textures", "bundle"]
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
    result = run(tmp_path, write_ply(splats), options=SogOptions(sh_degree=0, palette_size=9))
    assert (result.report["splats_in"], result.report["splats_out"]) == (50, 49)
    assert result.report["warnings"] == [
        "1 of 50 splats dropped (position not finite: 1).",
        "1 splats: rotation zero, read as none.",
        "Degree 4 cut to 3: SOG has no more bands.",
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


def test_loose_files_as_one_upload(encoded_scene: dict[str, bytes], tmp_path: Path) -> None:
    paths = []
    for name, data in encoded_scene.items():
        (tmp_path / name).write_bytes(data)
        paths.append(tmp_path / name)
    result = run(tmp_path / "out", *paths)
    assert result.report["splats_out"] == 100
    assert result.report["bytes_in"] == sum(map(len, encoded_scene.values()))
    assert read(result.artifacts[0].path, "x").degree == 1


def test_several_files_that_do_not_belong_together(samples: Path, tmp_path: Path) -> None:
    source = samples / "playbot.compressed.ply"
    with pytest.raises(InvalidInput, match="2 files were given .*allowed are one splat file"):
        run(tmp_path, source, source)
    with pytest.raises(InvalidInput, match="No input file"):
        run(tmp_path)


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
        "import sys, models.splat_to_sog.options; "
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
