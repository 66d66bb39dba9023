"""Where weights are looked for, what counts as whole, and what is said when they are not there."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_entry import COMMIT, ENTRY, FILES, with_file

from models.context import Unavailable
from models.weights import store
from models.weights.catalogue import CATALOGUE, Licence, find_entries
from models.weights.hub import ENDPOINT, Hub, token_of
from models.weights.store import find, hub_cache, missing, models_folder, require

ROOT = Path(__file__).resolve().parents[3]
TABLE = (ENTRY,)


def copy_to(place: Path) -> Path:
    for file in ENTRY.files:
        path = place / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[file.name])
    return place


# -- places -------------------------------------------------------------------------------------


def test_the_folders_follow_the_environment() -> None:
    home = Path.home()
    assert models_folder({}) == home / ".cache/meshpress/models"
    assert models_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/meshpress/models")
    assert models_folder({"XDG_CACHE_HOME": "/c", "MESHPRESS_MODELS_DIR": "/m"}) == Path("/m")
    assert models_folder({"MESHPRESS_MODELS_DIR": ""}) == home / ".cache/meshpress/models"
    assert hub_cache({}) == home / ".cache/huggingface/hub"
    assert hub_cache({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")
    assert hub_cache({"HF_HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/h/hub")
    assert hub_cache({"HF_HOME": "/h", "HF_HUB_CACHE": "/k"}) == Path("/k")


def test_the_first_place_that_is_whole_is_taken(tmp_path, folder, monkeypatch) -> None:
    monkeypatch.setattr(store, "SAGEMAKER_DIR", tmp_path / "opt")
    assert find(ENTRY, folder) is None
    cached = copy_to(hub_cache() / "models--someone--small" / "snapshots" / COMMIT)
    assert find(ENTRY, folder) == cached
    mounted = copy_to(tmp_path / "opt" / "small")
    assert find(ENTRY, folder) == mounted
    ours = copy_to(folder / "small")
    assert find(ENTRY, folder) == ours
    (ours / "config.json").unlink()
    assert find(ENTRY, folder) == mounted


def test_a_snapshot_of_another_commit_in_the_hubs_cache_is_not_taken(folder) -> None:
    copy_to(hub_cache() / "models--someone--small" / "snapshots" / ("f" * 40))
    assert find(ENTRY, folder) is None


# -- whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ckpts/small.safetensors", FILES["ckpts/small.safetensors"][:-1]),
        ("ckpts/small.safetensors", FILES["ckpts/small.safetensors"] + b"\0"),
        ("ckpts/small.safetensors", b"\x80\x02}q\x00."),
        ("ckpts/small.safetensors", b""),
        ("config.json", b""),
    ],
)
def test_a_copy_by_hand_must_be_whole(name, content, folder) -> None:
    """No lock, no size in the catalogue: the file's own header tells how long it should be."""
    place = copy_to(folder / "small")
    assert find(ENTRY, folder) == place
    (place / name).write_bytes(content)
    assert find(ENTRY, folder) is None


def test_the_catalogues_size_counts_where_there_is_no_lock(folder) -> None:
    copy_to(folder / "small")
    assert find(with_file(ENTRY, "config.json", size_bytes=13), folder) is not None
    assert find(with_file(ENTRY, "config.json", size_bytes=14), folder) is None


def test_a_lock_that_is_not_ours_is_no_record(folder) -> None:
    place = copy_to(folder / "small")
    for text in ("", "[]", "{}", '{"repo": 1}', '{"repo": "a", "files": {"x": 3}}'):
        (place / store.LOCK_NAME).write_text(text)
        assert store.read_lock(place) is None
        assert find(ENTRY, folder) == place


# -- words --------------------------------------------------------------------------------------


def test_what_is_missing_comes_with_the_command(folder) -> None:
    lack = missing(["small"], folder, table=TABLE)
    assert lack is not None
    assert str(lack) == f"Weights are not in {folder}: small. Run `meshpress models pull small`"
    copy_to(folder / "small")
    assert missing(["small"], folder, table=TABLE) is None
    assert missing([], folder, table=TABLE) is None


def test_the_command_accepts_a_licence_only_where_one_must_be(folder) -> None:
    bound = replace(ENTRY, name="bound", licence=Licence("Theirs", "https://x", False))
    lack = missing(["small", "bound"], folder, table=(ENTRY, bound))
    assert lack is not None
    assert lack.command == "meshpress models pull small bound --accept-licence theirs"


def test_what_is_optional_is_not_missed_but_can_be_required(folder) -> None:
    entry = replace(ENTRY, optional=True)
    assert missing(["rehearsal"], folder, table=(entry,)) is None
    with pytest.raises(Unavailable) as caught:
        require("small", folder, table=(entry,))
    assert caught.value.code == "weights_missing"
    assert caught.value.next_step == "Run `meshpress models pull small`."
    assert require("small", copy_to(folder / "small").parent, table=(entry,)) == folder / "small"


# -- the catalogue ------------------------------------------------------------------------------


def test_each_entry_names_a_commit_and_files_that_may_be_loaded() -> None:
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)
    for entry in CATALOGUE:
        assert len(entry.revision) in (0, 40) and set(entry.revision) <= set("0123456789abcdef")
        assert entry.licence.link.startswith("https://") and entry.pipelines
        for file in entry.files:
            assert file.name.endswith((".safetensors", ".json"))
            assert len(file.sha256) in (0, 64)
            assert ".." not in file.name and not file.name.startswith("/")


@pytest.mark.parametrize(
    "stem",
    [
        "ss_flow_img_dit_L_16l8",
        "ss_dec_conv3d_16l8",
        "slat_flow_img_dit_L_64l8p2",
        "slat_dec_mesh_swin8_B_64l8m256c",
        "slat_dec_gs_swin8_B_64l8gs32",
    ],
)
def test_the_sizes_of_trellis_are_those_of_its_tensors(stem, shared) -> None:
    """The official classes' tensors, and a header that takes about 100 bytes for each."""
    dump = json.loads(shared(f"data/state_dicts/trellis_{stem}.json").read_text())
    (entry,) = (entry for entry in CATALOGUE if entry.name == "trellis-image-large")
    sizes = {file.name: file.size_bytes for file in entry.files}
    size = sizes[f"ckpts/{stem}_fp16.safetensors"]
    assert size is not None
    assert 70 < (size - dump["bytes"]) / dump["num_tensors"] < 130


# -- the environment ----------------------------------------------------------------------------


def test_the_hub_follows_the_environment(tmp_path) -> None:
    hub = Hub.from_environment({"HF_ENDPOINT": "http://mirror/", "HF_TOKEN": " hf_1 "})
    assert (hub.endpoint, hub.token) == ("http://mirror", "hf_1")
    hub.close()
    (tmp_path / "token").write_text("hf_2\n")
    assert token_of({"HF_HOME": str(tmp_path)}) == "hf_2"
    assert token_of({"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_1"}) == "hf_1"
    assert token_of({"HF_HOME": str(tmp_path / "none")}) == ""
    hub = Hub.from_environment({"HF_HOME": str(tmp_path)})
    assert (hub.endpoint, hub.token) == (ENDPOINT, "hf_2")
    hub.close()
    with pytest.raises(Unavailable, match="'mirror', which is no address"):
        Hub.from_environment({"HF_ENDPOINT": "mirror"})
    for yes in ("1", "true", "YES", "on"):
        with pytest.raises(Unavailable) as caught:
            Hub.from_environment({"HF_HUB_OFFLINE": yes})
        assert caught.value.code == "hub_offline"


def test_asking_for_weights_loads_neither_torch_nor_http() -> None:
    code = (
        "import sys\nfrom models.weights.store import missing\nmissing(['trellis'])\n"
        "sys.exit(str({'torch', 'numpy', 'httpx', 'pydantic'} & set(sys.modules) or 0))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "0", done.stderr


def test_an_unknown_name_says_what_was_meant() -> None:
    with pytest.raises(Unavailable, match="no weights named 'trelis'") as caught:
        find_entries(["trelis"])
    assert "Did you mean trellis?" in caught.value.next_step
