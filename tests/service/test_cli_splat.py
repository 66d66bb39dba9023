"""`meshpress sog`: every format by its ending, merging, several files as one result, refusals."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from models.context import Artifact, PipelineResult
from models.splat_to_sog.readers import read
from models.splat_to_sog.splats import Splats
from service.cli.files import place_members
from service.cli.root import run
from service.cli.targets import ENDINGS, MEMBERS
from service.pipelines import PIPELINES, PipelineEntry, find_pipeline

Run = Callable[..., int]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splat_ply: Callable[..., bytes]) -> Path:
    """A folder to run in, with a.ply (300 splats, degree 1) and b.ply (100, degree 0)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ply").write_bytes(splat_ply(300, degree=1))
    (tmp_path / "b.ply").write_bytes(splat_ply(100, seed=1))
    return tmp_path


@pytest.fixture
def sog(here: Path) -> Run:
    """`meshpress sog -q …` in this process; returns the exit code."""
    return lambda *words: run(["sog", "-q", *words])


def scene(path: Path) -> Splats:
    return read(path, path.name)


def names(folder: Path) -> set[str]:
    """Everything in the folder, hidden files included, but what Python itself caches."""
    return {path.name for path in folder.iterdir()} - {"__pycache__"}


# -- formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("o.sog", b"PK"),
        ("o.ply", b"ply\nformat binary_little_endian 1.0\nelement vertex"),
        ("o.compressed.ply", b"ply\nformat binary_little_endian 1.0\nelement chunk"),
        ("o.spz", b"\x1f\x8b"),
        ("o.loose.zip", b"PK"),
        ("o.lod.zip", b"PK"),
        ("meta.json", b'{"version":2'),
        ("lod-meta.json", b'{"version":1'),
    ],
)
def test_the_ending_says_the_format_and_the_result_is_read_again(
    sog, here, capsys, name: str, begins: bytes
) -> None:
    (here / "out").mkdir()
    assert sog("a.ply", f"out/{name}") == 0
    assert capsys.readouterr().out == f"out/{name}\n"
    assert (here / "out" / name).read_bytes().startswith(begins)
    assert sog(f"out/{name}", "again.ply") == 0
    assert len(scene(here / "again.ply")) == 300
    assert not [found for found in (here / "out").rglob("*") if found.name.startswith(".")]


def test_every_format_of_the_pipeline_has_an_ending() -> None:
    formats = {name.split(".")[1] for name in find_pipeline("splat").artifacts}
    assert set(MEMBERS) < set(ENDINGS)
    assert formats == {"sog", "loose", "lod", "ply", "compressed", "spz"}


@pytest.mark.parametrize("name", ["x.json", "META.JSON", "x.zip", "x", "x.splat", "lod-meta.txt"])
def test_an_unknown_ending_is_refused_with_those_there_are(sog, here, capsys, name: str) -> None:
    assert sog("a.ply", name) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {name}: the format follows the ending, one of .sog, meta.json")
    assert names(here) == {"a.ply", "b.ply"}


def test_a_folder_is_read_as_the_sog_in_it(sog, here) -> None:
    (here / "loose").mkdir()
    (here / "lod").mkdir()
    assert sog("a.ply", "loose/meta.json") == 0
    assert sog("a.ply", "lod/lod-meta.json", "--lod-levels", "2") == 0
    assert sog("loose") == 0
    assert sog("lod", "coarse.ply", "--level", "1") == 0
    assert (len(scene(here / "loose.sog")), len(scene(here / "coarse.ply"))) == (300, 150)
    (here / "empty").mkdir()
    assert sog("empty", "x.ply") == 1


# -- merging ---------------------------------------------------------------------------------


def test_merge_makes_one_scene_of_files_of_any_type(sog, here, capsys) -> None:
    (here / "loose").mkdir()
    (here / "other").mkdir()
    assert sog("b.ply", "loose/meta.json") == 0
    assert sog("b.ply", "other/meta.json") == 0
    capsys.readouterr()
    words = ["--merge", "loose/meta.json", "--merge", "other/meta.json", "--merge", "b.ply"]
    assert sog("a.ply", "all.ply", *words, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["report"]["splats_in"] == len(scene(here / "all.ply")) == 600
    assert scene(here / "all.ply").degree == 1
    loose = [path for folder in ("loose", "other") for path in (here / folder).iterdir()]
    sent = [here / "a.ply", here / "b.ply", *loose]
    assert facts["report"]["bytes_in"] == sum(path.stat().st_size for path in sent)


def test_a_scene_of_several_files_goes_to_a_service_as_one(sog, here, live_service) -> None:
    (here / "loose").mkdir()
    (here / "lod").mkdir()
    assert sog("a.ply", "loose/meta.json") == 0
    assert sog("b.ply", "lod/lod-meta.json") == 0
    server = ("--server", live_service.url)
    assert sog("loose/meta.json", "there.ply", "--merge", "lod", *server) == 0
    assert sog("loose/meta.json", "here.ply", "--merge", "lod") == 0
    assert (here / "there.ply").read_bytes() == (here / "here.ply").read_bytes()
    assert len(scene(here / "there.ply")) == 400


# -- results of several files ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "there"), [("meta.json", "sh0.webp"), ("lod-meta.json", "0_0/meta.json")]
)
def test_unpacking_refuses_to_overwrite_any_of_its_files(
    sog, here, capsys, name: str, there: str
) -> None:
    precious = here / "out" / there
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    (here / "out" / "photo.webp").write_text("of no concern")
    assert sog("a.ply", f"out/{name}") == 2
    assert f"out/{there.split('/')[0]} exists; add -w" in capsys.readouterr().err
    assert precious.read_text() == "precious"
    assert sog("a.ply", f"out/{name}", "-w") == 0
    assert precious.read_bytes() != b"precious"
    assert (here / "out" / "photo.webp").read_text() == "of no concern"


def test_textures_of_another_scene_are_no_reason_to_refuse(sog, here) -> None:
    (here / "out").mkdir()
    (here / "out" / "photo.webp").write_text("of no concern")
    assert sog("a.ply", "out/meta.json") == 0
    written = names(here / "out") - {"meta.json", "photo.webp"}
    known = {path.name for pattern in MEMBERS["loose"] for path in (here / "out").glob(pattern)}
    assert written == known  # else `-w` would not be asked for


@pytest.mark.parametrize("evil", ["../evil.webp", "/tmp/evil.webp", "0_0/../../evil.webp"])
def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path, evil: str) -> None:
    """It may come from a service; nothing at all is written."""
    archive = tmp_path / "scene.loose.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("meta.json", "{}")
        file.writestr(evil, "evil")
    (tmp_path / "out").mkdir()
    with pytest.raises(Exception, match="lies outside its folder"):
        place_members(archive, tmp_path / "out" / "meta.json")
    assert names(tmp_path) == {"scene.loose.zip", "out"}
    assert names(tmp_path / "out") == set()


def load_liar(device: str) -> Callable[..., PipelineResult]:
    """A pipeline whose archive lacks the file it should describe itself with."""

    def lie(context, inputs, options) -> PipelineResult:
        path = context.workdir / "scene.loose.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("sh0.webp", "")
        return PipelineResult([Artifact(path.name, path, "application/zip")])

    return lie


def test_a_wrong_archive_is_one_line(here, capsys, monkeypatch) -> None:
    entry: PipelineEntry = next(entry for entry in PIPELINES if entry.task == "splat")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    liar = PipelineEntry(**vars(entry) | {"loader": "test_cli_splat:load_liar"})
    assert run(["sog", "-q", "a.ply", "meta.json"], pipelines=(liar,)) == 1
    assert capsys.readouterr().err == "Error: The result holds no meta.json, only sh0.webp.\n"
    assert names(here) == {"a.ply", "b.ply"}


# -- options ---------------------------------------------------------------------------------


def test_a_list_option_takes_its_values_at_once(sog, here) -> None:
    assert sog("a.ply", "moved.ply", "--translate", "-1", "2.5", "1e1") == 0
    moved = scene(here / "moved.ply").means - scene(here / "a.ply").means
    # float32 sums of values below 32: one rounding, at most 2e-6
    assert abs(moved - [-1, 2.5, 10]).max() < 4e-6


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--translate 1 2", "requires 3 arguments"),
        ("--translate 1 2 nan", "translate.2='nan': input should be a finite number"),
        ("--scale 0", "0.0 is not in the range 0<x<=1000000.0"),
        ("--max-size inf", "max_size='inf': input should be a finite number"),
        ("--box 1 0 0 0 1 1", "box: x runs from 1.0 down to 0.0; allowed: 6 values, each a number"),
        (
            "--keep 9 --keep-fraction 0.5",
            "keep=9, keep_fraction=0.5: keep is 9 and keep_fraction is 0.5: give one of them; "
            "allowed: a whole number of at least 1 and a number above 0, at most 1.",
        ),
        ("--target-psnr 50 --target-bytes 9000", "target_psnr=50.0, target_bytes=9000: "),
        ("--formats ply", "No such option '--formats'"),
    ],
)
def test_a_wrong_option_is_named_with_its_value(sog, here, capsys, words, reason) -> None:
    assert sog("a.ply", "o.sog", *words.split()) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert "report" not in error  # no option that the command line hides
    assert names(here) == {"a.ply", "b.ply"}


def test_help_gives_ranges_only_where_there_are_any(sog, capsys) -> None:
    assert sog("--help") == 0
    text = capsys.readouterr().out
    assert "None]" not in text
    assert "[x>0]" in text


def test_options_of_other_formats_are_warned_of(sog, here, capsys) -> None:
    assert sog("a.ply", "o.ply", "--preset", "tiny", "--spz-version", "4") == 0
    warned = capsys.readouterr().err.splitlines()
    assert warned == [
        "Warning: preset has no effect: it is for sog, loose, lod; formats is ply.",
        "Warning: spz_version has no effect: it is for spz; formats is ply.",
    ]


# -- report and preview ----------------------------------------------------------------------


def test_the_report_is_told_and_the_preview_written(sog, here, capsys) -> None:
    assert sog("b.ply", "b.sog", "--preview", "b.webp") == 0
    output = capsys.readouterr()
    assert output.out == "b.sog\n"
    assert output.err.startswith("PSNR ")
    told = dict(line.split(": ", 1) for line in output.err.splitlines() if ": " in line)
    figure = r"[\d.e+-]+"
    assert re.fullmatch(f"rms {figure} of 255, max {figure} of 255", told["opacity"])
    assert re.fullmatch(f"mean {figure} deg, p99 {figure} deg", told["rotation"])
    assert told["position"].startswith("rms ") and told["position"].count(" scene units") == 3
    assert told["position"].endswith(" of the scene's radius")
    units = ("of 255", "deg", "dB", "scene's radius", "log)", "of its norm")
    for name in ("colour", "log_scale", "covariance"):
        assert all(part.endswith(units) for part in told[name].split(", ")), told[name]
    assert (here / "b.webp").read_bytes()[8:12] == b"WEBP"
    assert (here / "b.sog").read_bytes()[:2] == b"PK"
    assert sog("b.ply", "c.sog", "--preview", "c.webp", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in facts["outputs"]] == ["c.sog", "c.webp"]
    assert (here / "c.sog").read_bytes() == (here / "b.sog").read_bytes()


def test_a_preview_does_not_overwrite(sog, here, capsys) -> None:
    (here / "p.webp").write_text("precious")
    assert sog("b.ply", "b.sog", "--preview", "p.webp") == 2
    assert capsys.readouterr().err == "Error: p.webp exists; add -w to overwrite it.\n"
    assert (here / "p.webp").read_text() == "precious"
    assert sog("b.ply", "b.sog", "--preview", "./b.sog", "-w") == 2
    assert "the same file" in capsys.readouterr().err
    assert names(here) == {"a.ply", "b.ply", "p.webp"}
