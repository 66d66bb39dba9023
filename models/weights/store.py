"""Where weights lie and whether they are whole: our folder, /opt/ml/model, the hub's own cache.

Knows neither the network nor what the files mean. Weights in the folder are trusted by name and
size, which costs a few `stat` calls and may be asked at every request; `verify` reads the bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from models.context import Unavailable
from models.weights.catalogue import CATALOGUE, WeightEntry, find_entries
from models.weights.licences import accepted
from models.weights.safetensors import NotSafetensors, whole_size

MODELS_DIR = "MESHPRESS_MODELS_DIR"
SAGEMAKER_DIR = Path("/opt/ml/model")
LOCK_NAME = "weights.lock.json"
LOCK_FORMAT = 1


@dataclass(frozen=True)
class LockedFile:
    """What arrived: size in bytes, SHA-256 of the content."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Lock:
    """The record of one download, written last: whoever finds it finds every file it names."""

    repo: str
    revision: str
    licence: str
    files: Mapping[str, LockedFile]

    def to_json(self) -> str:
        return json.dumps({"format": LOCK_FORMAT, **asdict(self)}, indent=2) + "\n"


@dataclass(frozen=True)
class Missing:
    """Weights that are not here. reason: no full stop at its end; command: what fetches them."""

    reason: str
    command: str

    def __str__(self) -> str:
        return f"{self.reason}. Run `{self.command}`"


# -- places --------------------------------------------------------------------------------------


def models_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where `pull` writes: MESHPRESS_MODELS_DIR, else meshpress/models in the user's cache."""
    environment = os.environ if environment is None else environment
    if chosen := environment.get(MODELS_DIR):
        return Path(chosen).expanduser()
    return _cache(environment) / "meshpress" / "models"


def hub_cache(environment: Mapping[str, str] | None = None) -> Path:
    """The cache of the Hugging Face libraries: HF_HUB_CACHE, else hub in HF_HOME."""
    environment = os.environ if environment is None else environment
    if chosen := environment.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    return hub_home(environment) / "hub"


def hub_home(environment: Mapping[str, str]) -> Path:
    """HF_HOME, else huggingface in the user's cache."""
    if chosen := environment.get("HF_HOME"):
        return Path(chosen).expanduser()
    return _cache(environment) / "huggingface"


def _cache(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def places(
    entry: WeightEntry,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Path, ...]:
    """The folders that may hold the entry, in the order they are tried.

    folder: in place of the one MESHPRESS_MODELS_DIR names
    """
    ours = (folder or models_folder(environment)) / entry.name
    if not entry.revision:  # the hub's cache keeps a folder a commit
        return ours, SAGEMAKER_DIR / entry.name
    cached = f"models--{entry.repo.replace('/', '--')}/snapshots/{entry.revision}"
    return ours, SAGEMAKER_DIR / entry.name, hub_cache(environment) / cached


# -- what is there ------------------------------------------------------------------------------


def find(
    entry: WeightEntry,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Path | None:
    """The first place that holds the entry whole."""
    for place in places(entry, folder, environment):
        if place.is_dir() and not absent(entry, place):
            return place
    return None


def absent(entry: WeightEntry, place: Path) -> list[str]:
    """Files that this place lacks, or has in another size than they should have.

    A lock of another commit makes all of them absent: they belong to another release.
    """
    lock = read_lock(place)
    if lock is not None and (lock.repo, lock.revision) != (
        entry.repo,
        entry.revision or lock.revision,
    ):
        return [file.name for file in entry.files]
    locked = lock.files if lock is not None else {}
    return [
        file.name
        for file in entry.files
        if not is_whole(place / file.name, locked.get(file.name), file.size_bytes)
    ]


def is_whole(path: Path, locked: LockedFile | None, known_bytes: int | None) -> bool:
    """Has the file the size that its lock, the catalogue or its own header asks for?"""
    try:
        facts = path.stat()
    except OSError:
        return False
    expected = locked.size_bytes if locked is not None else known_bytes
    if expected is None and path.suffix == ".safetensors":
        expected = _header_size(path, facts.st_size, facts.st_mtime_ns)
    return facts.st_size > 0 and expected in (None, facts.st_size)


@lru_cache(maxsize=256)
def _header_size(path: Path, size_bytes: int, modified_ns: int) -> int:
    """The size a safetensors header asks for, -1 when there is none; read once per file and age."""
    try:
        return whole_size(path)
    except (NotSafetensors, OSError):
        return -1


def missing(
    names: Iterable[str],
    folder: Path | None = None,
    *,
    table: Sequence[WeightEntry] = CATALOGUE,
    environment: Mapping[str, str] | None = None,
) -> Missing | None:
    """What of these entries is not here, or under a licence that nobody has accepted, in words with
    the command that mends it; None: nothing.

    names:  of entries, or of a pipeline for all that it needs; what is optional to a pipeline is
            missed only where it is named itself
    folder: in place of the one MESHPRESS_MODELS_DIR names
    """
    named = list(names)
    wanted = [
        entry for entry in find_entries(named, table) if not entry.optional or entry.name in named
    ]
    place = folder or models_folder(environment)
    absent_here = [entry for entry in wanted if find(entry, folder, environment) is None]
    bound = _not_accepted(wanted, place, environment)
    return _missing(absent_here, bound, place) if absent_here or bound else None


def require(
    name: str,
    folder: Path | None = None,
    *,
    table: Sequence[WeightEntry] = CATALOGUE,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """The folder that holds this one entry whole, its licence accepted. Raises Unavailable with the
    command to run."""
    (entry,) = find_entries([name], [entry for entry in table if entry.name == name])
    bound = _not_accepted([entry], folder or models_folder(environment), environment)
    place = find(entry, folder, environment)
    if place is None:
        lack = _missing([entry], bound, folder or models_folder(environment))
        next_step = f"Run `{lack.command}`."
        raise Unavailable(f"{lack.reason}.", code="weights_missing", next_step=next_step)
    if bound:
        lack = _missing([], bound, place)
        next_step = f"Read it, then run `{lack.command}`."
        raise Unavailable(f"{lack.reason}.", code="weights_licence", next_step=next_step)
    return place


def _not_accepted(
    wanted: Sequence[WeightEntry], folder: Path, environment: Mapping[str, str] | None
) -> list[WeightEntry]:
    """Those whose licence restricts the use, and nobody has said that they accept it."""
    said = accepted(folder, environment)
    return [
        entry for entry in wanted if not entry.licence.permissive and entry.licence.key not in said
    ]


def _missing(
    absent_here: Sequence[WeightEntry], bound: Sequence[WeightEntry], folder: Path
) -> Missing:
    reasons = []
    if absent_here:
        listed = ", ".join(entry.name for entry in absent_here)
        reasons.append(f"Weights are not in {folder}: {listed}")
    for licence in dict.fromkeys(entry.licence for entry in bound):
        reasons.append(f"The {licence.name} ({licence.link}) is not accepted")
    words = [entry.name for entry in dict.fromkeys((*absent_here, *bound))]
    for key in dict.fromkeys(entry.licence.key for entry in bound):
        words += ["--accept-licence", key]
    return Missing(". ".join(reasons), f"meshpress models pull {' '.join(words)}")


# -- the lock -----------------------------------------------------------------------------------


def read_lock(place: Path) -> Lock | None:
    """The record beside the weights; None when there is none or it is not one of ours."""
    try:
        fields = json.loads((place / LOCK_NAME).read_bytes())
        return Lock(
            fields["repo"],
            fields["revision"],
            fields["licence"],
            {
                name: LockedFile(int(file["size_bytes"]), str(file["sha256"]))
                for name, file in fields["files"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
