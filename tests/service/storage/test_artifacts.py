"""The artifact store on a local folder and on a real S3-speaking server: same bytes, same rules."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage.artifacts import ArtifactStore


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A moto server on a free port with one bucket."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                bucket = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
                urllib.request.urlopen(bucket, timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None, "the S3 server did not start"
                assert time.monotonic() < deadline, "the S3 server does not answer"
                time.sleep(0.1)
        yield endpoint
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path, monkeypatch) -> ArtifactStore:
    if request.param == "local":
        return ArtifactStore(f"file://{tmp_path}/with space", tmp_path / "data")
    endpoint = request.getfixturevalue("s3_endpoint")
    for name, value in {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return ArtifactStore(f"s3://bucket/{os.urandom(4).hex()}", tmp_path / "data")


def add(store: ArtifactStore, content: bytes) -> str:
    with store.incoming() as payload:
        payload.write(content)
        return store.add(payload)


def test_bytes_come_back_whole_in_ranges_and_as_a_file(store, tmp_path, rng):
    content = rng.bytes(10_000_000)  # more than one chunk of either back end
    digest = add(store, content)
    assert digest == hashlib.sha256(content).hexdigest()
    assert b"".join(store.read(digest, 0, len(content))) == content
    start, end = sorted(int(x) for x in rng.integers(0, len(content), 2))
    assert b"".join(store.read(digest, start, end)) == content[start:end]
    store.fetch(digest, tmp_path / "fetched", len(content))
    assert (tmp_path / "fetched").read_bytes() == content


def test_a_file_is_added_and_deleted(store, tmp_path):
    (tmp_path / "source").write_bytes(b"content")
    digest, size_bytes = store.add_file(tmp_path / "source")
    assert size_bytes == 7 and store.exists(digest)
    store.delete(digest)
    store.delete(digest)
    assert not store.exists(digest)
    with pytest.raises(FileNotFoundError):
        list(store.read(digest, 0, 7))
    with pytest.raises(FileNotFoundError):
        store.fetch(digest, tmp_path / "gone", 7)


def test_collect_removes_what_is_old_and_unreferenced_only(store):
    kept, dropped = add(store, b"kept"), add(store, b"dropped")
    assert store.collect({kept}, min_age_seconds=60) == 0
    assert store.collect({kept}, min_age_seconds=-60) == 1
    assert store.exists(kept) and not store.exists(dropped)


def test_an_abandoned_payload_leaves_nothing(store, tmp_path):
    with pytest.raises(ConnectionError), store.incoming() as payload:
        payload.write(b"half")
        raise ConnectionError("the client went away")
    assert not any((tmp_path / "data" / "incoming").iterdir())


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path):
    store = ArtifactStore(f"file://{tmp_path}/store", tmp_path / "data")
    stale, fresh = (tmp_path / "data" / "incoming" / name for name in ("stale", "fresh"))
    stale.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(stale, (0, 0))
    store.collect(set(), 60)
    assert not stale.exists() and fresh.exists()


def test_a_full_or_missing_folder_is_noticed(tmp_path):
    store = ArtifactStore(f"file://{tmp_path}/store", tmp_path / "data")
    store.check_writable()
    assert store.free_bytes() > 0
    (tmp_path / "data" / "incoming").rmdir()
    with pytest.raises(OSError):
        store.check_writable()


def test_nothing_is_readable_under_its_name_before_it_is_whole(tmp_path: Path):
    store = ArtifactStore(f"file://{tmp_path}/store", tmp_path / "data")
    digest = hashlib.sha256(b"ab").hexdigest()
    with store.incoming() as payload:
        payload.write(b"a")
        assert not store.exists(digest)
        payload.write(b"b")
        assert not store.exists(digest)
        store.add(payload)
        assert store.exists(digest)
