"""Read the architecture rows of service/guard/knowledge.json anew from wheels.

    python benchmarks/guard_knowledge.py WHEEL...            compare; exit 1 where a row differs
    python benchmarks/guard_knowledge.py WHEEL... --write    rewrite and add rows
    python benchmarks/guard_knowledge.py --fetch cupy-cuda12x==13.6.0 --write
                                                             download first, with pip
    python benchmarks/guard_knowledge.py --nvrtc LIBRARY...  newest target of each NVRTC

Knows wheels and the table's form. A row says what every container of a package loads on: an
architecture that some containers lack is a hole, named with the library that has it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from service.guard import knowledge  # noqa: E402
from service.guard.audit import Library  # noqa: E402
from service.guard.nvrtc import Compiler, newest_target  # noqa: E402
from service.guard.requirement import InvalidRequirement, parse  # noqa: E402
from service.guard.targets import Target  # noqa: E402
from service.guard.wheel import Wheel, audit_wheel  # noqa: E402

LEAST_SHARE = 0.5  # an architecture in fewer containers of every library is a special case
PINNED = ("torch", "triton", "numpy", "cumm-cu124", "cumm-cu126")


def main() -> int:
    arguments = parse_arguments()
    if arguments.nvrtc:
        for path in arguments.nvrtc:
            arch, _ = newest_target(Compiler(path, path.name, "", (0, 0)), ask=True)
            print(f"{path}: sm_{arch}")
        return 0
    tables = json.loads(knowledge.FILE.read_text(encoding="utf-8"))
    changed = False
    with tempfile.TemporaryDirectory() as folder:
        for path in [*arguments.wheels, *fetch(arguments.fetch, Path(folder))]:
            wheel = audit_wheel(path)
            for table, row in [*release_rows(wheel), *pin_rows(wheel)]:
                changed |= update(tables[table], row)
    if changed and arguments.write:
        knowledge.FILE.write_text(to_text(tables), encoding="utf-8")
    return int(changed and not arguments.write)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", nargs="*", type=Path)
    parser.add_argument("--fetch", nargs="*", default=[], metavar="NAME==VERSION")
    parser.add_argument("--nvrtc", nargs="*", default=[], type=Path, metavar="LIBRARY")
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def fetch(names: list[str], folder: Path) -> list[Path]:
    """The wheels for Python 3.12 on x86-64 Linux."""
    tags = [f"--platform=manylinux{tag}_x86_64" for tag in ("2014", "_2_17", "_2_27", "_2_28")]
    for name in names:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version=3.12", *tags, f"--dest={folder}", name]
        subprocess.run(command, check=True)
    return sorted(folder.glob("*.whl"))


def release_rows(wheel: Wheel) -> list[tuple[str, dict[str, Any]]]:
    """What its own libraries carry, each in most containers, and which of them lack one of it."""
    libraries = [
        item
        for item in wheel.audit.libraries
        # Those for one chip alone, as FlashAttention-3 is, stand beside others that serve the rest.
        if not item.vendor and any(code.suffix != "a" for code in item.groups.codes)
    ]
    codes = {code for library in libraries for code in library.groups.codes}
    kept = [
        code
        for code in codes
        if any(share(library, code.name) >= LEAST_SHARE for library in libraries)
    ]
    names = sorted({code.name for code in kept}, key=architecture)
    if not names:
        return []  # no device code: nothing to say of GPUs
    sass = [name for name in names if name.startswith("sm_")]
    row = {
        "package": wheel.distribution.name,
        "version": wheel.distribution.version,
        "cuda": wheel.audit.cuda_of_torch or "",
        "sass": sass,
        "ptx": [name for name in names if name.startswith("compute_")],
        "python": "",
        "holes": holes(libraries, sass),
        **stamp("wheel audited"),
    }
    return [("releases", row)]


def share(library: Library, name: str) -> float:
    """In what share of its containers `name` stands."""
    found = sum(
        count
        for codes, count in library.groups.counts.items()
        if any(code.name == name for code in codes)
    )
    return found / library.groups.total


def holes(libraries: list[Library], sass: list[str]) -> dict[str, str]:
    """Target -> the first library of which not every container loads there."""
    found = {}
    for name in sass:
        if name[-1] in "af":
            continue
        for library in libraries:
            coverage = library.coverage(Target.parse(name))
            if coverage.nothing:
                found.setdefault(name, library.file)
    return found


def pin_rows(wheel: Wheel) -> list[tuple[str, dict[str, Any]]]:
    """Its requirements on the packages whose versions decide about GPUs."""
    rows = []
    for text in wheel.distribution.requires:
        try:
            requirement = parse(text)
        except InvalidRequirement:
            continue
        if requirement.name in PINNED and requirement.clauses and "extra" not in requirement.marker:
            row = {
                "package": wheel.distribution.name,
                "version": wheel.distribution.version,
                "requires": str(requirement),
                **stamp("Requires-Dist of the wheel"),
            }
            rows.append(("pins", row))
    return rows


def stamp(source: str) -> dict[str, str]:
    return {"source": source, "date": datetime.date.today().strftime("%Y-%m")}


def update(rows: list[dict[str, Any]], row: dict[str, Any]) -> bool:
    """Put `row` in its place; whether that changes what the table says."""
    same = [index for index, other in enumerate(rows) if subject(other) == subject(row)]
    told = f"{row['package']} {row['version']}"
    if not same:
        rows.append(row)
        order = list(dict.fromkeys(item["package"] for item in rows))  # as the table names them
        rows.sort(
            key=lambda item: (
                order.index(item["package"]),
                knowledge.release_key(item["version"]),
            )
        )
        print(f"{told}: new row {json.dumps(row)}")
        return True
    old = rows[same[0]]
    new = {**old, **{key: value for key, value in row.items() if value or key == "holes"}}
    differing = {key for key in new if key != "date" and new[key] != old[key]}
    if "requires" in differing and clauses(old["requires"]) == clauses(new["requires"]):
        differing.remove("requires")  # the same clauses in another order
    for key in sorted(differing):
        print(f"{told}: {key} is {json.dumps(new[key])}, the table says {json.dumps(old[key])}")
    rows[same[0]] = {**(new if differing else old), "date": new["date"]}
    if not differing:
        print(f"{told}: as the table says")
    return bool(differing)


def subject(row: dict[str, Any]) -> tuple[str, ...]:
    """What a row is about: a release, or a release and the package it asks for."""
    wanted = parse(row["requires"]).name if "requires" in row else ""
    return row["package"], row["version"], wanted


def clauses(text: str) -> set[str]:
    return set(parse(text).clauses.split(","))


def architecture(name: str) -> tuple[int, str]:
    return Target.parse(name).arch, name


def to_text(tables: dict[str, Any]) -> str:
    """JSON with one row a line, so that a change of a row is a change of a line."""
    parts = []
    for key, value in tables.items():
        if isinstance(value, list):
            rows = ",\n".join("    " + json.dumps(row) for row in value)
            parts.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
        else:
            parts.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
