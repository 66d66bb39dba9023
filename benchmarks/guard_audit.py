"""The static audit against NVIDIA's own reader, and against the clock.

    python benchmarks/guard_audit.py agree ENV_OR_FILE... --cuobjdump PATH
    python benchmarks/guard_audit.py speed ENV...
    python benchmarks/guard_audit.py wheels WHEEL... --target sm_120

ENV: a virtual environment, e.g. one made from third_party/stacks/sm_120.lock. cuobjdump is the
package nvidia-cuda-cuobjdump. `agree` compares every entry of every library in its order: kind,
architecture with suffix, version of PTX, compressed or not; and the containers with the addresses
the library registers when it is loaded. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from service.guard.audit import audit_environment, is_shared_library
from service.guard.coverage import check_coverage
from service.guard.elf import mapped, sections
from service.guard.fatbin import DeviceCode, read_file
from service.guard.installed import environment_at
from service.guard.report import to_text
from service.guard.targets import Target
from service.guard.wheel import audit_wheel

WRAPPER_BYTES = 24  # .nvFatBinSegment: magic, version, address of the container, name
RELATIVE = 8  # R_X86_64_RELATIVE
ENTRY = re.compile(
    r"Fatbin (elf|ptx) code:\n=+\narch = sm_(\w+)\ncode version = \[(\d+),(\d+)\]((?:\n.+)*)"
)


# -- agreement with cuobjdump ----------------------------------------------------------------


def agree(paths: list[Path], tool: str) -> int:
    """One row a library; 1 where any differs."""
    differ = entries = containers = ended = 0
    libraries = with_code(paths)
    print("| library | MB | containers | registered | entries | cuobjdump | s, ours | s, theirs |")
    print("|---|---|---|---|---|---|---|---|")
    for path, name in libraries:
        begin = time.perf_counter()
        code = read_file(path)
        ours_s = time.perf_counter() - begin
        begin = time.perf_counter()
        told, whole_file = cuobjdump(tool, path)
        theirs_s = time.perf_counter() - begin
        ours = listed(code)
        registered = registered_at(path)
        stray = registered - {item.offset for item in (*code.containers, *code.link_input)}
        verdict = "same"
        if not whole_file:
            verdict, ended = f"same for {len(told)}, then it ends with an error", ended + 1
        if told != (ours if whole_file else ours[: len(told)]):
            verdict, differ = "differs", differ + 1
        if stray or code.faults:
            verdict, differ = f"{verdict}; {len(stray)} unknown, {code.faults}", differ + 1
        entries += len(ours)
        containers += len(code.containers)
        print(
            f"| {name} | {path.stat().st_size / 1e6:.1f} | {len(code.containers)} "
            f"| {len(registered)} | {len(ours)} | {verdict} | {ours_s:.3f} | {theirs_s:.1f} |",
            flush=True,
        )
    print(
        f"\n{len(libraries)} libraries, {containers} containers, {entries} entries: {differ} "
        f"differ; cuobjdump ended early on {ended}"
    )
    return 1 if differ else 0


def with_code(paths: list[Path]) -> list[tuple[Path, str]]:
    """Each different library with device code below `paths`, and a name to print."""
    found, seen = [], set()
    for root in paths:
        files = [root] if root.is_file() else sorted(root.rglob("*.so*"))
        for file in files:
            stat = file.lstat()
            key = (file.name, stat.st_size)
            if not is_shared_library(file.name) or file.is_symlink() or key in seen:
                continue
            code = read_file(file)
            if code.containers or code.link_input:
                seen.add(key)
                shown = file.relative_to(root) if root.is_dir() else Path(file.name)
                parts = (
                    shown.parts[shown.parts.index("site-packages") + 1 :]
                    if ("site-packages" in shown.parts)
                    else shown.parts
                )
                found.append((file, f"{root.name}: {'/'.join(parts)}"))
    return found


def listed(code: DeviceCode) -> list[tuple[str, str, bool]]:
    """(name, version of PTX, compressed) of each entry, as cuobjdump's plain listing has them.

    It lists what is registered, or, where nothing is, the input of the device linker.
    """
    return [
        (
            entry.code.name,
            "{}.{}".format(*entry.code.ptx_isa) if entry.code.ptx_isa else "",
            entry.compressed,
        )
        for container in code.containers or code.link_input
        for entry in container.entries
        if entry.code.kind in ("sm", "compute")
    ]


def cuobjdump(tool: str, path: Path) -> tuple[list[tuple[str, str, bool]], bool]:
    """The same list from NVIDIA's tool, and whether it read the file to the end."""
    done = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
    found = [
        (
            f"{'sm' if kind == 'elf' else 'compute'}_{arch}",
            f"{major}.{minor}" if kind == "ptx" else "",
            "compressed" in rest,
        )
        for kind, arch, major, minor, rest in ENTRY.findall(done.stdout)
    ]
    return found, not done.returncode or "does not contain device code" in done.stderr


def registered_at(path: Path) -> set[int]:
    """File offsets of the containers that the library hands to the CUDA runtime when loaded.

    Read another way than the audit does: from the wrappers in .nvFatBinSegment, whose pointers
    stand in the relocations.
    """
    with mapped(path) as view:
        table = {section.name: section for section in sections(view) or []}
        segment = table.get(".nvFatBinSegment")
        if segment is None:
            return set()
        data = view.read(0, 64)
        program_at, size, count = (
            *struct.unpack_from("<Q", data, 32),
            *struct.unpack_from("<HH", data, 54),
        )
        loads = []
        for index in range(count):
            kind, _, offset, address, _, length = struct.unpack(
                "<IIQQQQ", view.read(program_at + index * size, 40)
            )
            if kind == 1:
                loads.append((address, offset, length))

        def to_offset(address: int) -> int:
            for start, offset, length in loads:
                if start <= address < start + length:
                    return offset + address - start
            return -1

        def to_address(offset: int) -> int:
            for start, begins, length in loads:
                if begins <= offset < begins + length:
                    return start + offset - begins
            return -1

        pointers = {}
        relocations = table.get(".rela.dyn")
        if relocations is not None:
            text = view.read(relocations.offset, relocations.size // 24 * 24)
            for place, what, addend in struct.iter_unpack("<QQq", text):
                if what == RELATIVE:
                    pointers[place] = addend
        found = set()
        first = to_address(segment.offset)
        for at in range(0, segment.size // WRAPPER_BYTES * WRAPPER_BYTES, WRAPPER_BYTES):
            _, version, stored = struct.unpack("<IIQ", view.read(segment.offset + at, 16))
            address = pointers.get(first + at + 8, stored)
            if version in (1, 2) and address:
                found.add(to_offset(address))
        return found


# -- speed -----------------------------------------------------------------------------------


def speed(environments: list[Path]) -> int:
    """The largest library and the whole environment, from disk, from memory and from the cache."""
    print("| what | GB | files | s, disk | s, memory | s, cache | CPU s, memory |")
    print("|---|---|---|---|---|---|---|")
    for root in environments:
        environment = environment_at(root)
        files = [
            file
            for folder in environment.site_packages
            for file in folder.rglob("*")
            if file.is_file() and not file.is_symlink()
        ]
        libraries = [file for file in files if is_shared_library(file.name)]
        largest = max(libraries, key=lambda file: file.stat().st_size)
        forget([largest])
        cold, _ = timed(partial(read_file, largest))
        warm, used = timed(partial(read_file, largest))
        row(f"{root.name}: {largest.name}", [largest], cold, warm, None, used)
        forget(files)
        cold, _ = timed(partial(whole, root))
        warm, used = timed(partial(whole, root))
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder, "audit.json")
            audit_environment(environment, cache)
            kept, _ = timed(partial(audit_environment, environment, cache))
        row(f"{root.name}: everything ({len(libraries)} libraries)", files, cold, warm, kept, used)
    return 0


def whole(root: Path) -> None:
    """What a start without a cache costs: the packages, and every library."""
    audit_environment(environment_at(root))


def forget(files: list[Path]) -> None:
    """Drops what the system keeps in memory of the contents of these files."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)  # what is not on disk yet cannot be dropped
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(seconds, CPU seconds) of one call."""
    begin, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - used


def row(
    name: str, files: list[Path], cold: float, warm: float, kept: float | None, used: float
) -> None:
    size = sum(file.stat().st_size for file in files) / 1e9
    last = f"{kept:.2f}" if kept is not None else ""
    print(
        f"| {name} | {size:.2f} | {len(files)} | {cold:.2f} | {warm:.2f} | {last} | {used:.2f} |",
        flush=True,
    )


# -- wheels ----------------------------------------------------------------------------------


def wheels(paths: list[Path], target: Target) -> int:
    for path in paths:
        begin = time.perf_counter()
        wheel = audit_wheel(path)
        seconds = time.perf_counter() - begin
        print(f"## {path.name}: {path.stat().st_size / 1e6:.0f} MB in {seconds:.1f} s\n")
        print(to_text(list(check_coverage(wheel.audit, target))) + "\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"peak {peak:.0f} MB, pages of mapped files included")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("agree", "speed", "wheels"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--cuobjdump", default="cuobjdump", help="NVIDIA's tool")
    parser.add_argument("--target", default="sm_120", type=Target.parse)
    options = parser.parse_args()
    if options.what == "agree":
        return agree(options.paths, options.cuobjdump)
    if options.what == "speed":
        return speed(options.paths)
    return wheels(options.paths, options.target)


if __name__ == "__main__":
    sys.exit(main())
