"""`verify` reads every byte; the format's check reads the header."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
from pathlib import Path

import pytest
from fake_hub import git_blob, tensors
from small_entry import ENTRY, FILES, with_file

from models.weights.safetensors import NotSafetensors, check, whole_size
from models.weights.store import LOCK_NAME, hub_cache
from models.weights.verify import FileState, etag_of, verify


def states(entry, place: Path) -> dict[str, FileState]:
    return {verdict.name: verdict.state for verdict in verify(entry, place)}


@pytest.fixture
def place(serve_hub, fetch) -> Path:
    return fetch(serve_hub()).place


def test_what_was_pulled_is_ok_and_every_byte_is_read(place) -> None:
    read: list[int] = []
    verdicts = list(verify(ENTRY, place, read.append))
    assert {verdict.state for verdict in verdicts} == {FileState.OK}
    assert sum(read) == sum(len(FILES[file.name]) for file in ENTRY.files)


@pytest.mark.parametrize("file", ENTRY.files, ids=lambda file: file.name)
def test_one_flipped_bit_is_found(file, place) -> None:
    path = place / file.name
    content = bytearray(path.read_bytes())
    content[-2] ^= 4
    path.write_bytes(content)
    found = states(ENTRY, place)
    assert found.pop(file.name) is FileState.CHANGED
    assert set(found.values()) == {FileState.OK}


def test_what_is_gone_is_missing(place) -> None:
    (place / "config.json").unlink()
    assert states(ENTRY, place)["config.json"] is FileState.MISSING


def test_without_a_record_the_catalogue_decides_and_else_nobody(place) -> None:
    (place / LOCK_NAME).unlink()
    assert set(states(ENTRY, place).values()) == {FileState.UNRECORDED}
    right = hashlib.sha256(FILES["config.json"]).hexdigest()
    assert states(with_file(ENTRY, "config.json", sha256=right), place)["config.json"] == "ok"
    wrong = with_file(ENTRY, "config.json", sha256="0" * 64)
    assert states(wrong, place)["config.json"] is FileState.CHANGED


def test_the_hubs_cache_names_its_files_by_their_hash(tmp_path) -> None:
    cache = hub_cache() / "models--someone--small"
    snapshot = cache / "snapshots" / ENTRY.revision
    (snapshot / "ckpts").mkdir(parents=True)
    (cache / "blobs").mkdir()
    for name in ("ckpts/large.safetensors", "ckpts/small.safetensors"):
        blob = cache / "blobs" / hashlib.sha256(FILES[name]).hexdigest()
        blob.write_bytes(FILES[name])
        (snapshot / name).symlink_to(blob)
    assert states(ENTRY, snapshot)["ckpts/large.safetensors"] is FileState.OK
    blob.write_bytes(tensors(50_000, seed=9))
    assert states(ENTRY, snapshot)["ckpts/small.safetensors"] is FileState.CHANGED


def test_a_small_files_hash_is_gits(tmp_path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(FILES["config.json"])
    assert etag_of(path, 40) == git_blob(FILES["config.json"])
    git = subprocess.run(
        ["git", "hash-object", "--no-filters", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert etag_of(path, 40) == git.stdout.strip()


# -- the format ---------------------------------------------------------------------------------


def test_a_file_of_the_formats_own_library_is_whole(tmp_path) -> None:
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "real.safetensors"
    for count in (0, 1, 7):
        state = {f"layer.{index}": torch.ones(3, index + 1) for index in range(count)}
        save_file(state, path, metadata={"format": "pt"})
        assert whole_size(path) == path.stat().st_size
        check(path)


def header(text: str, tail: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text.encode() + tail


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not begin with a header"),
        (b"\x80\x04\x95\x0a" + bytes(40), "it is a pickle"),
        (b"PK\x03\x04" + bytes(40), "it is a pickle"),
        (b"<html>not found</html>", "does not begin with a header"),
        (struct.pack("<Q", 10**9) + b"{" + bytes(50), "claims 1,000,000,000 bytes"),
        (struct.pack("<Q", 500) + b'{"a": 1', "its header is cut off"),
        (header("{nonsense}"), "not one of tensors"),
        (header('{"a": 1}'), "not one of tensors"),
        (header('{"a": {"data_offsets": [8, 4]}}'), "not one of tensors"),
        (header('{"a": {"data_offsets": ["0", "4"]}}'), "not one of tensors"),
        (header('{"a": {"data_offsets": [0, 4]}}', b"\0\0\0"), "has 42 bytes, its header says 43"),
        (header("{" * 100_000), "not one of tensors"),
    ],
)
def test_what_is_not_the_format_says_why(content, reason, tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(NotSafetensors, match=reason):
        check(path)


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path) -> None:
    """0x80 and "PK" are lengths like any other."""
    path = tmp_path / "a.safetensors"
    for length in (0x80, 0x4B50):
        text = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})
        path.write_bytes(header(text.ljust(length), b"\1"))
        assert path.read_bytes()[:2] in (b"\x80\0", b"PK")
        check(path)
