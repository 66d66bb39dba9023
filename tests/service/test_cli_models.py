"""`meshpress models list | pull | verify`, on the real catalogue and a hub on this machine."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from models.context import Unavailable
from models.weights.catalogue import CATALOGUE, WeightEntry, find_entries
from models.weights.store import LOCK_NAME, missing, require
from service.cli.root import run

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "weights"))

from fake_hub import FakeHub, tensors

(FREE,) = (replace(entry) for entry in CATALOGUE if entry.name == "reconviagen-v0-2")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("MESHPRESS_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


def content_of(entry: WeightEntry) -> dict[str, bytes]:
    return {
        file.name: b"{}" if file.name.endswith(".json") else tensors(2000 + index, index)
        for index, file in enumerate(entry.files)
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Serves ReconViaGen's repository: the one entry whose sizes and hashes are all unknown."""
    served = FakeHub({FREE.repo: content_of(FREE)}, FREE.revision, licence="other")
    monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
    yield served
    served.close()


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """told("list") -> exit code, stdout, stderr of `meshpress models list`."""

    def call(*words: str) -> tuple[int, str, str]:
        code = run(["models", *words])
        return code, *capsys.readouterr()

    return call


def test_the_list_names_licence_size_and_state(told, folder) -> None:
    code, out, err = told("list")
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == [entry.name for entry in CATALOGUE]
    assert rows[0][1:] == ["MIT", "2.8 GB", "trellis", "not here"]
    assert rows[-1][-1] == "not here"
    assert str(folder) in err
    facts = json.loads(told("list", "--json")[1])
    assert facts["folder"] == str(folder)
    assert all(row["path"] is None for row in facts["models"])


def test_a_pull_shows_the_licence_first_and_prints_the_place(told, hub, folder) -> None:
    code, out, err = told("pull", FREE.name, "--accept-licence", "vggt")
    assert code == 0, err
    assert out == f"{folder / FREE.name}\n"
    assert err.splitlines()[0] == (
        f"{FREE.name}: {FREE.repo}, licence VGGT licence, which restricts the use "
        f"({FREE.licence.link})"
    )
    assert (folder / FREE.name / LOCK_NAME).is_file()
    assert str(folder / FREE.name) in told("list")[1]
    code, out, _ = told("verify")
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == ["ok"] * len(FREE.files)


def test_a_licence_that_is_not_accepted_ends_with_code_2(told, hub) -> None:
    code, out, err = told("pull", FREE.name)
    assert (code, out) == (2, "")
    assert FREE.licence.link in err and "--accept-licence vggt" in err
    assert not hub.requests


def test_a_licence_is_accepted_once_and_for_all_that_is_under_it(told, hub, folder) -> None:
    assert missing([FREE.name]).command == (
        f"meshpress models pull {FREE.name} --accept-licence vggt"
    )
    told("pull", FREE.name, "--accept-licence", "VGGT")
    assert missing([FREE.name]) is None
    record = json.loads((folder / "accepted-licences.json").read_text())
    assert record["vggt"]["link"] == FREE.licence.link and record["vggt"]["accepted_at"]
    assert told("pull", FREE.name)[0] == 0


def test_weights_that_were_copied_here_wait_for_their_licence(
    told, hub, folder, monkeypatch
) -> None:
    for name, content in content_of(FREE).items():
        path = folder / FREE.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert str(missing([FREE.name])).startswith("The VGGT licence (https://")
    with pytest.raises(Unavailable) as caught:
        require(FREE.name)
    assert caught.value.code == "weights_licence"
    monkeypatch.setenv("MESHPRESS_ACCEPTED_LICENCES", "vggt")
    assert missing([FREE.name]) is None
    monkeypatch.delenv("MESHPRESS_ACCEPTED_LICENCES")
    assert told("pull", FREE.name, "--accept-licence", "vggt")[0] == 0
    assert not hub.requests and require(FREE.name) == folder / FREE.name


def test_a_terminal_is_asked(folder, hub, tmp_path) -> None:
    code, text = on_a_terminal(["models", "pull", FREE.name], b"n\n")
    assert code == 2 and "Do you accept the VGGT licence" in text
    assert not (folder / "accepted-licences.json").exists()
    code, text = on_a_terminal(["models", "pull", FREE.name], b"y\n")
    assert code == 0, text
    assert (folder / "accepted-licences.json").exists()


def on_a_terminal(words: list[str], typed: bytes) -> tuple[int, str]:
    """Exit code and all that appears of `meshpress WORDS` on a terminal where this is typed."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", *words],
        cwd=Path(__file__).resolve().parents[2],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    os.write(controller, typed)
    shown = b""
    try:
        while chunk := os.read(controller, 65536):
            shown += chunk
    except OSError:  # the other end is closed: the command has ended
        pass
    os.close(controller)
    return process.wait(60), shown.decode()


def test_pickles_without_torch_end_with_code_2_and_the_page_that_helps(
    told, hub, monkeypatch
) -> None:
    monkeypatch.setattr("models.weights.pickles.PACKAGES", ("no_such_package",))
    code, _, err = told("pull", "direct3d-s2-v1-1")
    assert code == 2
    assert "published as pickles" in err and "docs/models.md" in err
    assert not hub.requests


def test_nothing_is_fetched_when_one_of_several_is_refused(told, hub, monkeypatch) -> None:
    monkeypatch.setattr("models.weights.pickles.PACKAGES", ("no_such_package",))
    assert told("pull", FREE.name, "direct3d-s2-v1-1", "--accept-licence", "vggt")[0] == 2
    assert not hub.requests


def test_a_pipelines_name_stands_for_all_it_needs() -> None:
    names = [entry.name for entry in find_entries(["trellis"])]
    assert names == ["trellis-image-large", "dinov2-large-registers", "birefnet"]


def test_a_misspelt_name_is_refused_with_what_was_meant(told) -> None:
    code, _, err = told("pull", "birefnett")
    assert code == 2 and "Did you mean birefnet?" in err


def test_a_change_on_the_disk_is_found_and_repaired(told, hub, folder) -> None:
    told("pull", FREE.name, "--accept-licence", "vggt")
    victim = folder / FREE.name / "ckpts" / "ss_vggt_cond.safetensors"
    content = victim.read_bytes()
    victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, out, err = told("verify", FREE.name)
    assert code == 1
    assert f"changed\t{victim}: the lock says " in out
    assert "--again" in err
    code, out, _ = told("verify", FREE.name, "--json")
    (judged,) = json.loads(out)["models"]
    assert judged["ok"] is False
    assert [file["name"] for file in judged["files"] if file["state"] == "changed"] == [
        "ckpts/ss_vggt_cond.safetensors"
    ]
    code, out, _ = told("pull", FREE.name, "--accept-licence", "vggt", "--again", "--json")
    assert json.loads(out)["models"][0]["fetched_bytes"] == len(content)
    assert told("verify", FREE.name)[0] == 0


def test_verify_of_what_is_not_here(told) -> None:
    assert told("verify")[0] == 0
    code, _, err = told("verify", "birefnet")
    assert code == 1 and "meshpress models pull birefnet" in err


def test_offline_nothing_is_asked_and_the_way_out_is_named(told, hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = told("pull", FREE.name, "--accept-licence", "vggt")
    assert code == 1 and "HF_HUB_OFFLINE is set" in err and "docs/models.md" in err
    assert not hub.requests


def test_offline_what_is_here_is_enough(told, hub, folder, monkeypatch) -> None:
    """Copied by hand, without a lock: any of the places will do."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, content in content_of(FREE).items():
        path = folder / FREE.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert told("pull", FREE.name, "--accept-licence", "vggt")[0] == 0
    code, out, _ = told("verify", FREE.name)
    assert code == 0 and "unrecorded\t" in out
    (folder / FREE.name / "ckpts/ss_vggt_cond.safetensors").write_bytes(content[:100])
    assert told("pull", FREE.name, "--accept-licence", "vggt")[0] == 1


def test_an_error_is_one_line_with_the_next_step(told, hub) -> None:
    hub.refuse[""] = (401, "GatedRepo")
    code, out, err = told("pull", FREE.name, "--accept-licence", "vggt", "--quiet")
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("Error: ") and "set HF_TOKEN" in line and "Traceback" not in line


def test_mesh_with_a_pipeline_that_lacks_its_weights_names_the_command(
    folder, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from rehearsal_pipeline import ENTRY

    (tmp_path / "a.png").write_bytes(b"picture")
    monkeypatch.chdir(tmp_path)
    entry = replace(ENTRY, weights=("dinov2-large-registers",))
    assert run(["mesh", "a.png", "-o", "a.glb"], pipelines=(entry,)) == 1
    assert "`meshpress models pull dinov2-large-registers`" in capsys.readouterr().err
    assert not (tmp_path / "a.glb").exists()


def test_listing_loads_no_library_that_fetching_or_networks_need(folder) -> None:
    code = (
        "import sys\nfrom service.cli.root import run\nrun(['models', 'list'])\n"
        "sys.exit(str({'torch', 'numpy', 'httpx', 'fastapi', 'dbos'} & set(sys.modules) or 0))"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "0", done.stderr
