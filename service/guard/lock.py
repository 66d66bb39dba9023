"""What is installed is what the lock says, file by file where asked: check L1.

Reads requirements files with hashes as pip and uv write them; resolves nothing. A wheel's own hash
is not kept by installers: versions are compared with the lock, files with what their package's
RECORD says it installed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from service.guard.errors import GuardError
from service.guard.findings import Finding, fatal, ok
from service.guard.installed import Distribution, Environment, normalised
from service.guard.requirement import InvalidRequirement, machine_of, parse, same_version
from service.guard.versions import InvalidVersion

# What everything else is built for comes first in the report: a wrong torch explains the rest.
FIRST = ("torch", "triton", "torchvision", "xformers", "flash-attn", "numpy")
THREADS = 2  # hashing lets go of the interpreter's lock; a disk does not get faster by more
_LOCKED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Locked:
    """One package of a lock. hashes: of the wheels and sdists it may come from."""

    name: str
    version: str
    hashes: tuple[str, ...]
    applies: bool  # its marker holds on this machine


def read_lock(path: Path, python: tuple[int, int] | None = None) -> list[Locked]:
    """The packages of a lock. Raises GuardError for what cannot be read or pins nothing."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise GuardError(f"{path} cannot be read: {reason}", "Give a requirements lock.") from None
    locked = []
    for line in text.replace("\\\n", " ").splitlines():
        match = _LOCKED.match(line.strip())
        if match is None:
            continue
        marker = line.partition(";")[2].partition("--hash")[0].partition(" #")[0].strip()
        requirement = parse(f"x ; {marker}" if marker else "x")
        locked.append(
            Locked(
                normalised(match["name"]),
                match["version"],
                tuple(_HASH.findall(line)),
                requirement.applies(machine_of(python)),
            )
        )
    if not locked:
        raise GuardError(
            f"{path} pins no package",
            "Give a file with lines such as `torch==2.8.0 --hash=sha256:...`.",
        )
    return locked


def check_lock(environment: Environment, path: Path, *, files: bool = False) -> Iterator[Finding]:
    """L1: the installed versions are the lock's; with `files`, each file is its package's own.

    Hashing reads everything that is installed: for image builds, not for each start.
    Raises GuardError for a lock that cannot be read.
    """
    locked = {item.name: item for item in read_lock(path, environment.python) if item.applies}
    order = sorted(locked, key=lambda name: (_rank(name), name))
    strays = [
        item for name, item in sorted(environment.distributions.items()) if name not in locked
    ]
    sound = []
    for name in order:
        wanted, found = locked[name], environment.distributions.get(name)
        if found is None:
            yield fatal(
                "L1",
                name,
                f"{name} is missing; the lock says {wanted.version}.",
                f"pip install --no-deps --require-hashes -r {path}",
            )
        elif not same_version(found.version, wanted.version):
            yield _replaced(found, wanted, strays, environment, path)
        else:
            sound.append(found)
    if files:
        yield from _check_files(sound, environment, path)
    if len(sound) == len(order):
        what = f"{len(sound)} packages as {path.name} says"
        yield ok("L1", path.name, what + (", every file their own" if files else ""))


def _replaced(
    found: Distribution,
    wanted: Locked,
    strays: Sequence[Distribution],
    environment: Environment,
    path: Path,
) -> Finding:
    """One package of another version, and who is likely to have brought it."""
    culprits = list(_asked_for_it(found, wanted, environment))
    blame = "Something installed after the lock"
    if culprits:
        blame = f"{' and '.join(culprits)}, installed after the lock,"
    elif strays:
        names = ", ".join(f"{item.name} {item.version}" for item in strays[:3])
        blame = f"Something installed after the lock (not in it: {names})"
    return fatal(
        "L1",
        found.name,
        f"{found.name} is {found.version}, the lock says {wanted.version}.",
        f"{blame} replaced it: install with --no-deps or --require-hashes as the last step. "
        f"Repair: pip install --no-deps --require-hashes --force-reinstall -r {path}",
        installed=found.version,
        locked=wanted.version,
        asked_for_by=culprits,
    )


def _asked_for_it(found: Distribution, wanted: Locked, environment: Environment) -> Iterator[str]:
    """Packages whose requirements the locked version does not meet and the installed one does."""
    machine = machine_of(environment.python)
    for other in environment.distributions.values():
        for text in other.requires:
            try:
                requirement = parse(text)
                if requirement.name != found.name or not requirement.applies(machine):
                    continue
                if requirement.accepts(found.version) and not requirement.accepts(wanted.version):
                    yield f"{other.name} {other.version} (requires {requirement})"
            except (InvalidRequirement, InvalidVersion):
                continue  # L3 reports what cannot be read


def _check_files(
    packages: Sequence[Distribution], environment: Environment, path: Path
) -> Iterator[Finding]:
    """Each file has the hash its package recorded; where not, who else claims what is there."""
    wanted = [
        (package, file, recorded)
        for package in packages
        for file, recorded in package.files.items()
        if recorded.startswith("sha256=")
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        hashes = pool.map(lambda item: file_hash(item[0].path_of(item[1])), wanted)
        wrong: dict[str, list[tuple[str, str]]] = {}
        for (package, file, recorded), found in zip(wanted, hashes, strict=True):
            if found != recorded.removeprefix("sha256="):
                wrong.setdefault(package.name, []).append((file, found))
    for name, files in wrong.items():
        package = environment.distributions[name]
        file, found = files[0]
        owner = _owner_of(package.path_of(file), found, environment.distributions, name)
        state = "is gone" if not found else f"was overwritten by {owner or 'something else'}"
        more = f" ({len(files)} of its files differ)" if len(files) > 1 else ""
        yield fatal(
            "L1",
            name,
            f"{file} of {name} {package.version} {state}{more}.",
            (f"Uninstall {owner}, then: " if owner else "")
            + f"pip install --no-deps --require-hashes --force-reinstall -r {path}",
            files=[file for file, _ in files[:20]],
        )


def _owner_of(
    file: Path, found: str, distributions: Mapping[str, Distribution], besides: str
) -> str:
    """The other package that recorded exactly this content for this file; "" if none did."""
    for name, other in distributions.items():
        if name == besides or not found:
            continue
        for path, recorded in other.files.items():
            if recorded == f"sha256={found}" and other.path_of(path) == file:
                return f"{name} {other.version}"
    return ""


def file_hash(path: Path) -> str:
    """SHA-256 as RECORD writes it: urlsafe base64 without padding; "" for what cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return ""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _rank(name: str) -> int:
    if name in FIRST:
        return FIRST.index(name)
    return len(FIRST) + (not name.startswith(("nvidia-", "cupy", "spconv", "cumm")))
