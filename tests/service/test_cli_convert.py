"""`meshpress mesh` and `sog`: what is written, printed, refused and left behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from service.cli.options import PipelineCommand
from service.cli.root import cli, run
from service.pipelines import PIPELINES

HERE = Path(__file__).parent
PICTURE = b"\x89PNG not really"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a.png and b.png, to run in; the rehearsal pipeline importable by its string."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(HERE))
    (tmp_path / "a.png").write_bytes(PICTURE)
    (tmp_path / "b.png").write_bytes(b"second")
    return tmp_path


@pytest.fixture
def meshpress_mesh(here: Path) -> Callable[..., int]:
    """`meshpress mesh …` with the rehearsal pipeline, in this process; returns the exit code."""
    from rehearsal_pipeline import ENTRY

    return lambda *words: run(["mesh", *words], pipelines=(ENTRY,))


@pytest.fixture
def in_process_of_its_own(here: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """The same as a process, for pipes, signals and terminals."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str, **options: object) -> subprocess.Popen[bytes]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
        command = [sys.executable, str(HERE / "rehearsal_pipeline.py"), *words]
        environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "TERM": "xterm"}
        started.append(subprocess.Popen(command, cwd=here, env=environment, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def options_of(path: Path) -> dict[str, object]:
    return dict(json.loads(path.read_bytes().splitlines()[-1]))


def names(folder: Path) -> set[str]:
    """Everything in the folder, hidden files included, but what Python itself caches."""
    return {path.name for path in folder.iterdir()} - {"__pycache__"}


# -- results -------------------------------------------------------------------------------


def test_writes_the_result_and_prints_its_path(meshpress_mesh, here, capsys) -> None:
    assert meshpress_mesh("a.png", "b.png", "-o", "out.glb") == 0
    assert (here / "out.glb").read_bytes().startswith(PICTURE + b"second\n")
    output = capsys.readouterr()
    assert output.out == "out.glb\n"
    assert "Warning: This is a rehearsal." in output.err
    assert names(here) == {"a.png", "b.png", "out.glb"}


def test_default_output_is_named_after_the_first_image(meshpress_mesh, here) -> None:
    assert meshpress_mesh("a.png") == 0
    assert (here / "a.glb").exists()


def test_every_output_gets_its_own_format(meshpress_mesh, here) -> None:
    assert meshpress_mesh("a.png", "-o", "x.glb", "-o", "y.obj.zip") == 0
    assert options_of(here / "x.glb")["formats"] == ["glb", "obj"]
    assert (here / "y.obj.zip").read_bytes().startswith(b"PK")


def test_an_obj_names_the_files_beside_it_and_spares_the_picture(meshpress_mesh, here) -> None:
    assert meshpress_mesh("a.png", "-o", "a.obj") == 0
    assert names(here) == {"a.png", "b.png", "a.obj", "a.mtl", "a_texture.png"}
    assert (here / "a.obj").read_text() == "# one\nmtllib a.mtl\nv 0 0 0\n"
    assert (here / "a.mtl").read_text() == "newmtl mesh\nmap_Kd a_texture.png\n"
    assert (here / "a_texture.png").read_bytes() == PICTURE


def test_options_arrive_with_their_types(meshpress_mesh, here) -> None:
    words = "--azimuth 0 --azimuth -90.5 --level 2 --no-smooth --count 7".split()
    assert meshpress_mesh("a.png", "b.png", "-o", "o.glb", *words) == 0
    options = options_of(here / "o.glb")
    assert options["azimuth"] == [0.0, -90.5]
    assert (options["level"], options["smooth"], options["count"]) == (2, False, 7)


def test_json_is_one_object_on_stdout(meshpress_mesh, here, capsys) -> None:
    assert meshpress_mesh("a.png", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    size = (here / "a.glb").stat().st_size
    assert facts["outputs"] == [{"path": "a.glb", "size_bytes": size}]
    assert facts["report"] == {"seed": 0, "warnings": ["This is a rehearsal."]}
    assert facts["pipeline"] == "rehearsal"


# -- refusals ------------------------------------------------------------------------------


def test_refuses_to_overwrite_without_w(meshpress_mesh, here, capsys) -> None:
    (here / "a.glb").write_text("precious")
    assert meshpress_mesh("a.png") == 2
    assert capsys.readouterr().err == "Error: a.glb exists; add -w to overwrite it.\n"
    assert (here / "a.glb").read_text() == "precious"
    assert meshpress_mesh("a.png", "-w") == 0
    assert (here / "a.glb").read_bytes().startswith(PICTURE)


def test_an_obj_refuses_to_overwrite_its_material_too(meshpress_mesh, here, capsys) -> None:
    (here / "a.mtl").write_text("precious")
    assert meshpress_mesh("a.png", "-o", "a.obj") == 2
    assert "a.mtl exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["missing.png"], "'missing.png' does not exist"),
        (["a.png", "-o", "a.gltf"], "one of .glb, .obj"),
        (["a.png", "-o", "a.glb", "-o", "b.glb"], "the same format"),
        (["a.png", "-o", "nowhere/a.glb"], "the folder nowhere does not exist"),
        (["a.png", "b.png", "a.png"], "3 files given; pipeline rehearsal takes 1 to 2"),
        (["-", "-", "-o", "a.glb"], "may stand only once"),
        (["a.png", "-o", "-", "--json"], "exclude each other"),
        (["a.png", "--count", "101"], "101 is not in the range 1<=x<=100"),
        (["a.png", "--count", "many"], "'many' is not a valid integer"),
        (["a.png", "--seconds", "nan"], "seconds='nan'"),
        (["a.png", "--level", "3"], "'3' is not one of 1, 2"),
        (["a.png", "--azimuth", "361"], "361.0 is not in the range -360<=x<=360"),
        (["a.png", "--server", "localhost:8080"], "write it as http://127.0.0.1:8080"),
        (["a.png", "--speed", "9"], "No such option"),
        (["a.png", "--pipeline", "other"], "'other' is not one of rehearsal"),
        ([], "Missing argument 'IMAGE...'"),
    ],
)
def test_usage_errors_exit_2_and_say_what_is_allowed(
    meshpress_mesh, here, capsys, words: list[str], reason: str
) -> None:
    assert meshpress_mesh(*words) == 2
    output = capsys.readouterr()
    assert reason in output.err
    assert "Traceback" not in output.err
    assert output.out == ""
    assert names(here) == {"a.png", "b.png"}


def test_a_failed_job_is_one_line_with_the_next_step(meshpress_mesh, here, capsys) -> None:
    assert meshpress_mesh("a.png", "-q", "--fault", "input") == 1
    assert capsys.readouterr().err == "Error: a.png is not an image. Send a PNG.\n"
    assert names(here) == {"a.png", "b.png"}


def test_a_failed_job_is_json_on_request(meshpress_mesh, capsys) -> None:
    assert meshpress_mesh("a.png", "--json", "--fault", "input") == 1
    assert json.loads(capsys.readouterr().out) == {
        "error": {
            "code": "not_an_image",
            "message": "a.png is not an image",
            "next_step": "Send a PNG.",
        }
    }


def test_a_bug_is_one_line_and_a_traceback_on_request(meshpress_mesh, capsys) -> None:
    assert meshpress_mesh("a.png", "-q", "--fault", "bug") == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ZeroDivisionError: division by zero.")
    assert error.count("\n") == 1
    assert "--debug" in error
    with pytest.raises(ZeroDivisionError):
        meshpress_mesh("a.png", "-q", "--fault", "bug", "--debug")


# -- pipes, signals, terminals ---------------------------------------------------------------


def test_pipes_carry_the_bytes_of_the_file(in_process_of_its_own) -> None:
    output, log = in_process_of_its_own("mesh", "-", "-o", "-").communicate(PICTURE)
    assert output.startswith(PICTURE + b"\n{")
    assert b"mesh: 100% done" in log


def test_empty_stdin_is_refused(in_process_of_its_own) -> None:
    process = in_process_of_its_own("mesh", "-", "-o", "-")
    output, log = process.communicate(b"")
    assert (process.returncode, output) == (2, b"")
    assert b"stdin, which was empty" in log


def test_a_reader_that_went_away_is_no_traceback(in_process_of_its_own) -> None:
    process = in_process_of_its_own("mesh", "a.png", "-o", "-", "-q", "--seconds", "0.3")
    process.stdout.close()
    process.stdout = None
    _, log = process.communicate()
    assert process.returncode == 1
    assert b"Traceback" not in log
    assert b"BrokenPipe" not in log


def interrupt_when_resting(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, once the pipeline runs."""
    while b"resting" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)


def test_ctrl_c_cancels_and_leaves_nothing(in_process_of_its_own, here) -> None:
    process = in_process_of_its_own("mesh", "a.png", "--seconds", "60")
    interrupt_when_resting(process)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Cancelled: nothing was written." in log
    assert names(here) == {"a.png", "b.png"}


def test_a_second_ctrl_c_stops_a_pipeline_that_does_not_listen(in_process_of_its_own, here) -> None:
    process = in_process_of_its_own("mesh", "a.png", "--seconds", "60", "--fault", "deaf")
    interrupt_when_resting(process)
    while b"Stopping" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert names(here) == {"a.png", "b.png"}


def test_a_terminal_gets_a_bar_and_what_to_open_it_with(in_process_of_its_own) -> None:
    controller, terminal = pty.openpty()
    process = in_process_of_its_own("mesh", "a.png", "--seconds", "0.5", stderr=terminal)
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            shown += os.read(controller, 65536)
        except OSError:  # the other side has closed: the process has ended
            break
    os.close(controller)
    assert process.stdout.read() == b"a.glb\n"
    assert "━".encode() in shown
    assert b"mesh: resting" in shown
    assert b"Blender" in shown


def test_a_result_on_a_terminal_is_refused(in_process_of_its_own) -> None:
    controller, terminal = pty.openpty()
    process = in_process_of_its_own("mesh", "a.png", "-o", "-", stdout=terminal)
    _, log = process.communicate(timeout=20)
    os.close(terminal)
    os.close(controller)
    assert process.returncode == 2
    assert b"stdout is a terminal" in log


# -- the real pipelines ----------------------------------------------------------------------


@pytest.mark.parametrize("entry", PIPELINES, ids=lambda entry: entry.name)
def test_every_option_of_every_pipeline_is_on_the_command_line(entry) -> None:
    command = next(
        item
        for item in cli.commands.values()
        if isinstance(item, PipelineCommand) and item.task == entry.task
    )
    context = command.make_context(
        "it", ["--pipeline", entry.name, "--help"], resilient_parsing=True
    )
    offered = {param.name for param in command.get_params(context)}
    missing = set(entry.options.model_fields) - offered
    own = {param.name for param in command.params}
    assert missing == set(command.hidden_options) - own
    for param in command.get_params(context):
        if isinstance(param, click.Option):
            assert param.help, f"--{param.name} has no help"


def test_a_splat_becomes_a_sog(meshpress, samples, tmp_path) -> None:
    done = meshpress("sog", samples / "playbot.compressed.ply")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"playbot.sog\n"
    piped = meshpress("sog", "-", "-", stdin=(samples / "playbot.compressed.ply").read_bytes())
    assert piped.returncode == 0, piped.stderr.decode()
    assert piped.stdout[:2] == b"PK"
    # The same splat gives the same bytes, whichever way it came.
    assert piped.stdout == (tmp_path / "playbot.sog").read_bytes()


def test_an_image_becomes_a_mesh(meshpress, tmp_path) -> None:
    from PIL import Image, ImageDraw

    picture = Image.new("RGBA", (96, 96))
    ImageDraw.Draw(picture).ellipse((20, 10, 70, 85), fill=(200, 60, 30, 255))
    picture.save(tmp_path / "egg.png")
    done = meshpress("mesh", "egg.png", "-o", "egg.glb", "--resolution", "128", "--json")
    assert done.returncode == 0, done.stderr.decode()
    facts = json.loads(done.stdout)
    data = (tmp_path / "egg.glb").read_bytes()
    assert data[:4] == b"glTF"
    assert facts["outputs"] == [{"path": "egg.glb", "size_bytes": len(data)}]
    assert facts["report"]["mesh"]["watertight"] is True


def test_a_file_that_is_no_splat_is_one_line(meshpress, tmp_path) -> None:
    (tmp_path / "note.ply").write_text("ply me a song")
    done = meshpress("sog", "note.ply", "-q")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: note.ply")
    assert b"Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"note.ply"}
