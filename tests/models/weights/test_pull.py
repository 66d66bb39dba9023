"""`pull` against a hub on a real socket: what arrives, what is refused, what a bad day leaves."""

from __future__ import annotations

import hashlib
import io
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import tensors
from small_entry import COMMIT, CONFIG, ENTRY, FILES, LARGE, REPO, SMALL, with_file

from models.context import Unavailable
from models.weights.catalogue import Licence
from models.weights.hub import Hub
from models.weights.pull import SPARE_BYTES, pull
from models.weights.store import LOCK_NAME, find, read_lock
from models.weights.verify import verify

ROOT = Path(__file__).resolve().parents[3]
NAMES = {file.name for file in ENTRY.files}


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def is_whole(place: Path) -> bool:
    return all((place / name).read_bytes() == FILES[name] for name in NAMES)


# -- what arrives ------------------------------------------------------------------------------


def test_the_files_arrive_with_a_record_and_nothing_else(serve_hub, fetch, folder) -> None:
    hub = serve_hub()
    done = fetch(hub)
    assert done.place == folder / "small"
    assert done.fetched_bytes == len(LARGE) + len(SMALL) + len(CONFIG)
    assert files_below(done.place) == NAMES | {LOCK_NAME}
    assert is_whole(done.place)
    lock = read_lock(done.place)
    assert lock is not None
    assert (lock.repo, lock.revision, lock.licence) == (REPO, COMMIT, "MIT")
    for name in NAMES:
        assert lock.files[name].size_bytes == len(FILES[name])
        assert lock.files[name].sha256 == hashlib.sha256(FILES[name]).hexdigest()
    assert find(ENTRY, folder) == done.place
    assert files_below(folder) == {f"small/{name}" for name in NAMES | {LOCK_NAME}} | {
        ".pull/small.lock"
    }


def test_a_second_pull_asks_nobody(serve_hub, fetch) -> None:
    hub = serve_hub()
    fetch(hub)
    asked = len(hub.requests)
    assert fetch(hub).fetched_bytes == 0
    assert len(hub.requests) == asked


def test_every_request_names_the_commit(serve_hub, fetch) -> None:
    hub = serve_hub()
    fetch(hub)
    assert all(COMMIT in path or "/storage/" in path for _, path, _ in hub.requests)


def test_several_files_come_at_once(serve_hub, fetch) -> None:
    """Each file's transfer waits until another one has begun as well."""
    hub = serve_hub()
    both = threading.Barrier(2)

    def meet(content: bytes) -> bytes:
        both.wait(10)
        return content

    hub.storage = meet
    fetch(hub)
    assert not both.broken


def test_progress_grows_to_the_whole(serve_hub, fetch) -> None:
    told: list[tuple[str, float, str]] = []
    fetch(serve_hub(), on_progress=lambda *step: told.append(step))
    fractions = [fraction for _, fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert {f"{name} is here" in stage for stage, _, _ in told for name in NAMES} == {True, False}


def test_the_token_goes_to_the_hub_and_not_to_the_storage(serve_hub, fetch) -> None:
    hub = serve_hub(token="hf_secret")
    fetch(hub, token="hf_secret")
    assert hub.asked("GET", "/storage/")
    assert all("authorization" not in headers for headers in hub.asked("GET", "/storage/"))
    assert all("authorization" in headers for headers in hub.asked("HEAD"))


# -- interruptions ------------------------------------------------------------------------------


def test_a_transfer_that_breaks_goes_on_where_it_stopped(serve_hub, fetch) -> None:
    hub = serve_hub(cut_after=100_000)
    assert is_whole(fetch(hub).place)
    asked = hub.asked("GET", "/storage/someone/small/ckpts/large")
    ranges = [headers.get("range") for headers in asked]
    assert ranges == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]
    assert hub.sent["ckpts/large.safetensors"] == len(LARGE)


def test_the_next_pull_goes_on_where_the_last_one_gave_up(serve_hub, fetch, folder) -> None:
    with pytest.raises(Unavailable) as caught:
        fetch(serve_hub(cut_after=40_000), retries=0)
    assert caught.value.code == "hub_unreachable"
    assert "goes on where it stopped" in caught.value.next_step
    assert find(ENTRY, folder) is None
    second = serve_hub()
    done = fetch(second)
    assert is_whole(done.place)
    arrived = second.sent["ckpts/large.safetensors"] + second.sent["ckpts/small.safetensors"]
    assert arrived < len(LARGE) + len(SMALL)
    config = len(CONFIG) if second.asked("GET", "config.json") else 0
    assert done.fetched_bytes == arrived + config


def test_a_storage_without_ranges_sends_all_again(serve_hub, fetch) -> None:
    hub = serve_hub(cut_after=100_000, cuts=2, ranges=False)
    assert is_whole(fetch(hub).place)


def test_busy_answers_are_asked_again(serve_hub, fetch) -> None:
    assert is_whole(fetch(serve_hub(busy=2)).place)


def start_pull(endpoint: str, folder: Path) -> subprocess.Popen[bytes]:
    """A pull of the small entry in a process of its own."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from models.weights.hub import Hub\nfrom models.weights.pull import pull\n"
        "sys.path.insert(0, sys.argv[1])\nfrom small_entry import ENTRY\n"
        "done = pull(ENTRY, Path(sys.argv[3]), Hub(sys.argv[2]))\n"
        "sys.stdout.write(str(done.fetched_bytes))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent), endpoint, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )


def test_a_killed_pull_leaves_no_half_entry_and_is_gone_on_from(serve_hub, fetch, folder) -> None:
    held = serve_hub(hold=threading.Event())
    victim = start_pull(held.endpoint, folder)
    assert held.started.wait(20)
    wait_for(lambda: len([p for p in parts_of(folder) if p.stat().st_size > 4096]) == 2)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=10)
    assert find(ENTRY, folder) is None
    assert not (folder / "small").exists()
    arrived = sum(part.stat().st_size for part in parts_of(folder) if "config" not in part.name)
    second = serve_hub()
    assert is_whole(fetch(second).place)
    assert sum(second.sent.values()) == len(LARGE) + len(SMALL) - arrived


def parts_of(folder: Path) -> list[Path]:
    return [part for part in (folder / ".pull").rglob("*.part") if part.exists()]


def wait_for(true: object, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def test_of_two_pulls_at_once_one_fetches_and_the_other_waits(serve_hub, folder) -> None:
    hub = serve_hub(hold=threading.Event())
    both = [start_pull(hub.endpoint, folder) for _ in range(2)]
    assert hub.started.wait(20)
    hub.hold.set()
    fetched = sorted(int(process.communicate(timeout=20)[0]) for process in both)
    assert fetched == [0, len(LARGE) + len(SMALL) + len(CONFIG)]
    assert hub.sent["ckpts/large.safetensors"] == len(LARGE)
    assert is_whole(folder / "small")


# -- damage -------------------------------------------------------------------------------------


def flipped(content: bytes) -> bytes:
    """The same number of bytes, the last one another."""
    return content[:-1] + bytes([content[-1] ^ 1])


def test_damaged_bytes_never_reach_the_place(serve_hub, fetch, folder) -> None:
    hub = serve_hub(storage=flipped)
    with pytest.raises(Unavailable, match="arrived damaged: its hash is") as caught:
        fetch(hub)
    assert caught.value.code == "weights_damaged"
    assert not (folder / "small").exists()
    assert is_whole(fetch(serve_hub()).place)


def test_a_part_that_was_damaged_on_the_disk_is_fetched_anew(serve_hub, fetch, folder) -> None:
    with pytest.raises(Unavailable):
        fetch(serve_hub(cut_after=40_000), retries=0)
    for part in parts_of(folder):
        part.write_bytes(flipped(part.read_bytes()))
    assert parts_of(folder)
    assert is_whole(fetch(serve_hub()).place)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("longer", [b"", b"more"], ids=["shorter", "longer"])
def test_a_wrong_size_is_refused(longer, ranges, serve_hub, fetch, folder) -> None:
    def storage(content: bytes) -> bytes:
        return content + longer if longer else content[:-4]

    hub = serve_hub(storage=storage, ranges=ranges)
    # A storage that ends early and knows no ranges cannot be told from one that breaks off.
    guessed = not longer and not ranges
    reason = "the answer ended early" if guessed else "by the hub's own account"
    with pytest.raises(Unavailable, match=reason) as caught:
        fetch(hub)
    assert caught.value.code == ("hub_unreachable" if guessed else "weights_damaged")
    assert not (folder / "small").exists()


def test_a_hub_that_announces_another_file_than_the_catalogue_is_refused(serve_hub, fetch) -> None:
    name = "ckpts/large.safetensors"
    for facts, what in (
        ({"sha256": "0" * 64}, "the SHA-256 is"),
        ({"size_bytes": 5}, "the size is"),
    ):
        hub = serve_hub()
        with pytest.raises(Unavailable, match=what) as caught:
            fetch(hub, with_file(ENTRY, name, **facts))
        assert caught.value.code == "weights_changed"
        assert not hub.asked("GET", "/storage/")


def test_the_catalogues_hash_of_a_small_file_is_checked_too(serve_hub, fetch) -> None:
    with pytest.raises(Unavailable, match="its SHA-256 is .*, not 0000"):
        fetch(serve_hub(), with_file(ENTRY, "config.json", sha256="0" * 64))


def test_again_fetches_only_what_differs(serve_hub, fetch) -> None:
    place = fetch(serve_hub()).place
    damaged = place / "ckpts/small.safetensors"
    damaged.write_bytes(flipped(SMALL))
    assert fetch(serve_hub()).fetched_bytes == 0  # name and size are right
    hub = serve_hub()
    assert fetch(hub, again=True).fetched_bytes == len(SMALL)
    assert dict(hub.sent) == {"ckpts/small.safetensors": len(SMALL)}
    assert is_whole(place)


def test_another_commit_replaces_the_old_one_whole(serve_hub, fetch, folder) -> None:
    fetch(serve_hub())
    newer = "f" * 40
    files = {**FILES, "ckpts/small.safetensors": tensors(60_000, seed=3)}
    hub = serve_hub(files={REPO: files}, commit=newer)
    entry = replace(ENTRY, revision=newer)
    assert find(entry, folder) is None  # the old one is not taken for the new one
    place = fetch(hub, entry).place
    assert (place / "ckpts/small.safetensors").read_bytes() == files["ckpts/small.safetensors"]
    assert "ckpts/large.safetensors" not in hub.sent  # the same bytes are not fetched twice
    assert find(ENTRY, folder) is None and find(entry, folder) == place
    assert not list((folder / ".pull").glob("*.before"))


def test_an_entry_without_a_commit_takes_the_newest_and_records_it(
    serve_hub, fetch, folder
) -> None:
    entry = replace(ENTRY, revision="")
    place = fetch(serve_hub(), entry).place
    lock = read_lock(place)
    assert lock is not None and lock.revision == COMMIT
    assert find(entry, folder) == place == find(ENTRY, folder)
    newer = "f" * 40
    files = {**FILES, "ckpts/small.safetensors": tensors(60_000, seed=3)}
    hub = serve_hub(files={REPO: files}, commit=newer)
    assert fetch(hub, entry).fetched_bytes == 0  # what is here is enough
    fetch(hub, entry, again=True)
    lock = read_lock(place)
    assert lock is not None and lock.revision == newer
    assert (place / "ckpts/small.safetensors").read_bytes() == files["ckpts/small.safetensors"]


def test_a_newest_commit_that_is_none_is_refused(serve_hub, fetch) -> None:
    fault = refused(serve_hub, fetch, replace(ENTRY, revision=""), commit="../../etc")
    assert "cannot be read" in fault.message


def test_leftovers_of_an_earlier_pull_are_not_published(serve_hub, fetch, folder) -> None:
    work = folder / ".pull" / "small" / "ckpts"
    work.mkdir(parents=True)
    (work / "small.safetensors.0123456789abcdef.part").write_bytes(b"of another version")
    (work / "dropped.safetensors").write_bytes(b"of another version")
    assert files_below(fetch(serve_hub()).place) == NAMES | {LOCK_NAME}


# -- what is refused ----------------------------------------------------------------------------


def refused(serve_hub, fetch, entry=ENTRY, token="", **faults) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        fetch(serve_hub(**faults), entry, token=token)
    return caught.value


def test_gated_weights_say_where_to_ask_and_what_to_set(serve_hub, fetch) -> None:
    for status in (401, 403):
        error = refused(serve_hub, fetch, refuse={"": (status, "GatedRepo")})
        assert error.code == "weights_gated"
        assert f"/{REPO} and accept the terms" in error.next_step
        assert "set HF_TOKEN" in error.next_step
    error = refused(serve_hub, fetch, token="hf_x", refuse={"": (403, "GatedRepo")})
    assert "HF_TOKEN" not in error.next_step
    error = refused(serve_hub, fetch, refuse={"": (401, "RepoNotFound")})
    assert "does not exist" in error.message and "HF_TOKEN" in error.next_step
    error = refused(serve_hub, fetch, token="hf_bad", refuse={"": (401, "")})
    assert "does not accept the token" in error.message
    assert "hf_bad" not in error.message + error.next_step


def test_what_is_gone_is_named(serve_hub, fetch) -> None:
    error = refused(serve_hub, fetch, commit="a" * 40)
    assert error.code == "weights_not_found" and "has not got the commit" in error.message
    error = refused(serve_hub, fetch, files={REPO: {"config.json": CONFIG}})
    assert "has no ckpts/large.safetensors, ckpts/small.safetensors" in error.message
    error = refused(serve_hub, fetch, files={})
    assert error.code == "weights_not_found"


def test_no_network_is_said_in_words(serve_hub, fetch, folder) -> None:
    hub = serve_hub()
    hub.close()
    with pytest.raises(Unavailable, match="is out of reach") as caught:
        fetch(hub)
    assert caught.value.code == "hub_unreachable"
    assert "docs/models.md" in caught.value.next_step


@pytest.mark.parametrize("answers", ["words", "nowhere", "elsewhere"])
def test_an_endpoint_that_is_no_hub_is_recognised(answers, serve_hub, fetch) -> None:
    hub = serve_hub(answers=answers, token="hf_secret")
    with pytest.raises(Unavailable, match="does not answer like a hub") as caught:
        fetch(hub, token="hf_secret")
    assert "HF_ENDPOINT" in caught.value.next_step
    assert not hub.asked("HEAD", "/storage/")  # the token would have gone with it


def test_a_pickle_becomes_safetensors_before_it_is_published(serve_hub, fetch, folder) -> None:
    """Converted once; the record has the hash of what was made, and `verify` agrees."""
    torch = pytest.importorskip("torch")
    pickled = io.BytesIO()
    torch.save({"vae": {"w": torch.arange(6.0)}}, pickled)
    entry = with_file(ENTRY, "ckpts/small.safetensors", pickled_as="v1/model.ckpt")
    hub = serve_hub(files={REPO: {**FILES, "v1/model.ckpt": pickled.getvalue()}})
    place = fetch(hub, entry).place
    path = place / "ckpts/small.safetensors"
    locked = read_lock(place).files
    assert locked["ckpts/small.safetensors"].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert b"vae.w" in path.read_bytes()[:200]
    assert not list(place.rglob("*.ckpt")) and len(locked) == 3
    assert all(verdict.good for verdict in verify(entry, place))
    count = len(hub.requests)
    assert fetch(hub, entry).fetched_bytes == 0 and len(hub.requests) == count


def test_room_is_needed_for_a_pickle_and_what_is_made_of_it(serve_hub, fetch) -> None:
    entry = with_file(ENTRY, "ckpts/small.safetensors", pickled_as="model.ckpt")
    hub = serve_hub(files={REPO: {**FILES, "model.ckpt": bytes(1000)}})
    need = len(LARGE) + len(CONFIG) + 2 * 1000 + SPARE_BYTES
    with pytest.raises(Unavailable) as caught:
        fetch(hub, entry, free_bytes=lambda folder: need - 1)
    assert caught.value.code == "weights_disk_full"


def test_without_torch_a_pickle_is_not_asked_for(serve_hub, fetch, monkeypatch) -> None:
    monkeypatch.setattr("models.weights.pickles.PACKAGES", ("torch", "no_such_package"))
    entry = with_file(ENTRY, "ckpts/small.safetensors", pickled_as="model.ckpt")
    hub = serve_hub()
    with pytest.raises(Unavailable, match="which needs no_such_package") as caught:
        fetch(hub, entry)
    assert caught.value.code == "weights_pickled" and not hub.requests


def test_a_pickle_under_a_false_name_is_refused(serve_hub, fetch, folder) -> None:
    """The hub's hash is right; what it is the hash of is not tensors."""
    for content in (b"\x80\x02}q\x00." * 100, b"PK\x03\x04" + bytes(3000)):
        files = {**FILES, "ckpts/small.safetensors": content}
        error = refused(serve_hub, fetch, files={REPO: files})
        assert "it is a pickle" in error.message
        assert not (folder / "small").exists()


def test_a_licence_that_restricts_must_be_accepted(serve_hub, fetch) -> None:
    entry = replace(ENTRY, licence=Licence("Theirs", "https://example.com/theirs", False))
    hub = serve_hub(licence="other")
    with pytest.raises(Unavailable, match="https://example.com/theirs") as caught:
        fetch(hub, entry)
    assert caught.value.code == "weights_licence" and not hub.requests
    assert "--accept-licence theirs" in caught.value.next_step
    with pytest.raises(Unavailable):
        fetch(hub, entry, accepted_licences=("another",))
    assert is_whole(fetch(hub, entry, accepted_licences=("theirs",)).place)


def test_a_licence_that_differs_from_the_catalogues_must_be_accepted(serve_hub, fetch) -> None:
    hub = serve_hub(licence="cc-by-nc-4.0")
    with pytest.raises(Unavailable, match="'cc-by-nc-4.0', not MIT"):
        fetch(hub)
    assert not hub.asked("GET", "/storage/")
    assert is_whole(fetch(hub, accepted_licences=("cc-by-nc-4.0",)).place)


# -- the disk -----------------------------------------------------------------------------------


def test_too_little_room_is_said_before_a_byte_is_fetched(serve_hub, fetch, folder) -> None:
    hub = serve_hub()
    need = len(LARGE) + len(SMALL) + len(CONFIG) + SPARE_BYTES
    with pytest.raises(Unavailable, match="small needs 67.5 MB in .*; 67.5 MB are free") as caught:
        fetch(hub, free_bytes=lambda folder: need - 1)
    assert caught.value.code == "weights_disk_full" and not hub.asked("GET", "/storage/")
    assert is_whole(fetch(hub, free_bytes=lambda folder: need).place)


def test_what_has_arrived_is_not_asked_room_for_again(serve_hub, fetch, folder) -> None:
    with pytest.raises(Unavailable):
        fetch(serve_hub(cut_after=40_000), retries=0)
    arrived = sum(part.stat().st_size for part in parts_of(folder))
    left = len(LARGE) + len(SMALL) + SPARE_BYTES - arrived
    whole = [path for path in (folder / ".pull/small").rglob("*.json") if path.is_file()]
    left += 0 if whole else len(CONFIG)
    assert is_whole(fetch(serve_hub(), free_bytes=lambda folder: left).place)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 256 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_on_the_way(serve_hub, small_disk) -> None:
    hub = Hub(serve_hub().endpoint, retries=0)
    with pytest.raises(Unavailable, match="is full") as caught:
        pull(ENTRY, small_disk, hub, free_bytes=lambda folder: 10**12)
    hub.close()
    assert caught.value.code == "weights_disk_full"
    assert "goes on where it stopped" in caught.value.next_step
    assert not (small_disk / "small").exists()
    assert sum(part.stat().st_size for part in parts_of(small_disk)) > 0
