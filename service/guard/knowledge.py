"""What is known of GPUs, CUDA toolkits, drivers, releases and hosts: knowledge.json as typed rows.

Knows no file of an environment and no driver; looks nothing up anywhere else. Each row of
knowledge.json names its source and the month it was checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("knowledge.json")


@dataclass(frozen=True)
class Architecture:
    """A compute capability: `added` and `dropped` are CUDA toolkits, "" where not yet dropped."""

    target: str  # "sm_75"
    generation: str  # "Turing"
    added: str
    dropped: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: the driver branch it came with and the newest target its compilers know."""

    toolkit: str  # "12.4"
    ptx_isa: str  # version of the PTX it writes, "8.4"
    native_driver: str  # "550"
    newest_target: str  # "sm_90"


@dataclass(frozen=True)
class Release:
    """A release on PyPI and the device code its wheel carries in every container."""

    package: str
    version: str
    cuda: str
    sass: tuple[str, ...]  # "sm_90a": that chip alone, "sm_120f": its family
    ptx: tuple[str, ...]  # "compute_90"
    python: str  # "3.9-3.13"; empty where not looked at
    holes: tuple[tuple[str, str], ...]  # (target, library that has nothing for it)

    def has(self, target: str) -> bool:
        """Whether all of it runs on `target`, natively or compiled by the driver."""
        from service.guard.fatbin import Code  # these two ask this table in turn
        from service.guard.targets import Target

        gpu = Target.parse(target)
        carried = any(gpu.takes(Code.parse(code)) for code in (*self.sass, *self.ptx))
        return carried and target not in dict(self.holes)


@dataclass(frozen=True)
class Pin:
    """A release that works with these others only."""

    package: str
    version: str
    requires: str  # "torch==2.8.0"


@dataclass(frozen=True)
class Support:
    """From version `since` on, a library runs on targets `oldest` to `newest`; "" is no bound."""

    library: str
    since: str
    oldest: str
    newest: str
    reason: str


@dataclass(frozen=True)
class Host:
    """A SageMaker instance family.

    default_driver: the one it has without InferenceAmiVersion, "" where AWS does not say
    image:          the InferenceAmiVersion to set
    """

    family: str
    gpu: str
    target: str
    default_driver: str
    default_cuda: str
    image: str


@dataclass(frozen=True)
class HostImage:
    """A value of InferenceAmiVersion."""

    version: str
    driver: str
    cuda: str
    mounts_compat: bool


# -- the tables ------------------------------------------------------------------------------


def architectures() -> tuple[Architecture, ...]:
    """Oldest first."""
    return _rows("architectures", Architecture)


def toolkits() -> tuple[Toolkit, ...]:
    """Oldest first."""
    return _rows("toolkits", Toolkit)


def releases(package: str) -> tuple[Release, ...]:
    """The releases of `package` we have audited, oldest first; not every release there is."""
    return tuple(row for row in _rows("releases", Release) if row.package == package)


def pins(package: str, version: str) -> tuple[Pin, ...]:
    """What a release is known to need, e.g. torch==2.8.0 for xformers 0.0.32.post2."""
    rows = _rows("pins", Pin)
    return tuple(row for row in rows if (row.package, row.version) == (package, version))


def pinned_by(package: str, requires: str) -> str | None:
    """The newest release of `package` that needs exactly `requires`, e.g. "torch==2.8.0"."""
    rows = [row for row in _rows("pins", Pin) if (row.package, row.requires) == (package, requires)]
    return max(rows, key=lambda row: release_key(row.version)).version if rows else None


def support(library: str, version: str) -> Support | None:
    """Which GPUs `version` of `library` agrees to run on; None where nothing is known."""
    rows = [row for row in _rows("support", Support) if row.library == library]
    older = [row for row in rows if release_key(row.since) <= release_key(version)]
    return max(older, key=lambda row: release_key(row.since), default=None)


def hosts() -> tuple[Host, ...]:
    return _rows("sagemaker_hosts", Host)


def host_images() -> tuple[HostImage, ...]:
    """Oldest driver first."""
    return _rows("sagemaker_images", HostImage)


# -- questions -------------------------------------------------------------------------------


def first_release(package: str, target: str) -> str | None:
    """The first release of `package` on PyPI with code for `target` ("sm_120").

    None where no audited release has it, and where the oldest audited one has it already: then
    we do not know which was first.
    """
    rows = releases(package)
    for older, row in zip(rows, rows[1:], strict=False):
        if row.has(target) and not older.has(target):
            return row.version
    return None


def last_release(package: str, target: str) -> str | None:
    """The newest audited release of `package` whose code runs on `target` throughout."""
    return next((row.version for row in reversed(releases(package)) if row.has(target)), None)


def native_driver(toolkit: tuple[int, int]) -> str:
    """The driver branch ("550") that compiles PTX written by `toolkit` (12, 4).

    A toolkit newer than the table needs at least the newest driver of the table, an unlisted one
    in between that of the next listed.
    """
    rows = toolkits()
    row = next((row for row in rows if number(row.toolkit) >= toolkit), rows[-1])
    return row.native_driver


def minimum_driver(cuda_major: int) -> str:
    """The driver branch ("525") from which machine code of CUDA `cuda_major`.x starts."""
    for row in _tables()["drivers"]:
        if row["cuda_major"] == cuda_major:
            return str(row["minimum"])
    return native_driver((cuda_major, 0))


def first_driver(target: str) -> str:
    """The driver branch that knows GPUs of `target`: the one of the toolkit that added it."""
    row = architecture(target)
    return native_driver(number(row.added)) if row else ""


def architecture(target: str) -> Architecture | None:
    return next((row for row in architectures() if row.target == target), None)


def newest_target(toolkit: tuple[int, int]) -> str:
    """The newest target NVRTC and nvcc of `toolkit` compile for, e.g. "sm_90" for (12, 4)."""
    rows = [row for row in toolkits() if number(row.toolkit) <= toolkit]
    return rows[-1].newest_target if rows else "sm_75"


def host_image(target: str) -> str:
    """The InferenceAmiVersion for SageMaker's instances of `target`; "" where there are none."""
    return next((row.image for row in hosts() if row.target == target), "")


def number(version: str) -> tuple[int, int]:
    """ "12.4" to (12, 4)."""
    major, _, minor = version.partition(".")
    return int(major), int(minor or 0)


def release_key(version: str) -> tuple[int, ...]:
    """Orders the versions of these tables: every number in them, in turn."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])))


# -- reading ---------------------------------------------------------------------------------


@cache
def _tables() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


@cache
def _rows(table: str, row_type: Callable[..., Any]) -> tuple[Any, ...]:
    names = row_type.__dataclass_fields__  # type: ignore[attr-defined]
    return tuple(
        row_type(**{name: _frozen(row[name]) for name in names}) for row in _tables()[table]
    )


def _frozen(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(value)
    return tuple(value.items()) if isinstance(value, dict) else value
