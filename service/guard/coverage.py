"""Whether everything installed can run on a GPU, as findings A1 to A4, each with its remedy.

Knows what was read from the files, not the files; asks no driver. An extension must load in every
container, for each holds kernels of its own; NVIDIA's libraries must load in any, for they choose.

    A1  nothing in a package loads on the GPU
    A2  it loads by the driver's compiler only
    A3  some kernels of it load, others do not
    A4  device code is expected and not there, or the file is damaged
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from service.guard import knowledge
from service.guard.audit import Audit, Coverage, Library
from service.guard.findings import Finding, fatal, info, ok, warning
from service.guard.installed import Distribution
from service.guard.targets import Target, driver_for

# Packages whose reason is their device code; installed without it they fail when first used.
EXTENSIONS = re.compile(
    r"torch|torchvision|xformers|flash-attn(-3)?|nvdiffrast|spconv(-cu\d+)?|cupy(-cuda\d+x?)?"
    r"|torch-(scatter|sparse|cluster|spline-conv)|torchsparse|pytorch3d|kaolin|mmcv|detectron2"
    r"|minkowskiengine|apex|bitsandbytes|causal-conv1d|mamba-ssm|diff-gaussian-rasterization"
    r"|simple-knn"
)
ON_PYPI = re.compile(
    r"torch|torchvision|xformers|spconv-cu\d+|cumm-cu\d+|cupy-cuda\d+x?|bitsandbytes"
)
# Packages that bring one library for each version of CUDA and load the one that fits torch's.
ALTERNATIVES = re.compile(r"bitsandbytes")
NAMED_FOR_CUDA = re.compile(r"(?!nvidia-).+-(cu\d{2,3}|cuda\d+x?)")
MOST_NAMED = 3  # libraries in one message


def check_coverage(
    audit: Audit, target: Target, expected: Collection[str] = ()
) -> Iterator[Finding]:
    """A1 to A4 for a GPU of `target`.

    expected: packages the lock says carry device code, beside those known to
    """
    yield from check_expected(audit, target, expected)
    packages: dict[str, list[Library]] = defaultdict(list)
    vendor = []
    for library in audit.libraries:
        if library.vendor:
            vendor.append(library)
        else:
            packages[library.owner or library.file].append(library)
    for name, libraries in sorted(packages.items()):
        yield from _package(audit.distributions.get(name), name, libraries, target)
    torch = audit.distributions.get("torch")
    yield from _vendor(vendor, target, torch.version if torch else "")


# -- A1, A2, A3: extensions ------------------------------------------------------------------


def _package(
    package: Distribution | None, name: str, libraries: Sequence[Library], target: Target
) -> Iterator[Finding]:
    """The findings of one package; `package` is None for a file that nobody owns."""
    covered = [(library, library.coverage(target)) for library in libraries]
    covered = [(library, coverage) for library, coverage in covered if coverage.total]
    if not covered:
        return  # damaged, told by A4
    if ALTERNATIVES.fullmatch(name):
        covered = [pair for pair in covered if pair[1].nothing < pair[1].total] or covered
    label = f"{package.name} {package.version}" if package else name
    loading = sum(coverage.native + coverage.by_jit for _, coverage in covered)
    if not loading:
        total = sum(coverage.total for _, coverage in covered)
        yield fatal(
            "A1",
            label,
            f"{_files(covered)} {_carry(covered)} {_codes(covered)}; nothing of it loads on "
            f"{target} (0 of {total} kernel groups)",
            _other_release(package, target),
            **_details(target, covered),
        )
        return
    # Kernels for one exact chip beside others: a package chooses them where that chip is.
    special = [pair for pair in covered if _for_another_chip(*pair)]
    general = [pair for pair in covered if pair not in special]
    for library, coverage in special:
        yield info(
            "A1",
            label,
            f"{library.file} is for {_list(library.groups.names)} alone: its {coverage.total} "
            f"kernel groups are not for {target}, and the package has others",
            **_details(target, [(library, coverage)]),
        )
    total = sum(coverage.total for _, coverage in general)
    lacking = [(library, coverage) for library, coverage in general if coverage.nothing]
    for library, coverage in lacking:
        told = warning if 2 * sum(item.nothing for _, item in lacking) <= total else fatal
        yield told(
            "A3",
            label,
            f"{library.file}: {coverage.nothing} of {coverage.total} kernel groups cannot load on "
            f"{target}, although {loading} others of the package can{_use(library)}",
            _other_release(package, target),
            **_details(target, [(library, coverage)]),
        )
    jit = [(library, coverage) for library, coverage in general if coverage.by_jit]
    if jit:
        yield _by_jit(label, jit, target)
    if not lacking and not jit:
        yield ok(
            "A1",
            label,
            f"{total} of {total} kernel groups have machine code for {target}",
            **_details(target, covered),
        )


def _by_jit(label: str, jit: Sequence[tuple[Library, Coverage]], target: Target) -> Finding:
    """A2: the driver has to compile PTX, so it must be new enough and keep what it compiled."""
    compiled = sorted({ptx for _, coverage in jit for ptx in coverage.jit}, key=str)
    driver = max((driver_for(target, ptx) for ptx in compiled), key=int)
    texts = [
        f"{ptx.name} (PTX ISA {ptx.ptx_isa[0]}.{ptx.ptx_isa[1]})" if ptx.ptx_isa else ptx.name
        for ptx in compiled
    ]
    count = sum(coverage.by_jit for _, coverage in jit)
    total = sum(coverage.total for _, coverage in jit)
    return warning(
        "A2",
        label,
        f"{_files(jit)} {'runs' if len(jit) == 1 else 'run'} on {target} only by driver JIT of "
        f"{_list(texts)}: {count} of {total} kernel groups",
        f"Needs driver >= {driver}; the first start is slow. Set CUDA_CACHE_PATH to a writable "
        "volume, CUDA_CACHE_MAXSIZE=4294967296, and unset CUDA_DISABLE_PTX_JIT.",
        driver=driver,
        **_details(target, jit),
    )


def _for_another_chip(library: Library, coverage: Coverage) -> bool:
    """Whether all it carries is architecture-specific ("sm_90a") and none of it for this GPU."""
    return coverage.nothing == coverage.total and all(
        code.suffix == "a" for code in library.groups.codes
    )


def _use(library: Library) -> str:
    """What fails without this library, where its name says so."""
    return "; torch.linalg may fail" if "linalg" in library.path.name else ""


# -- A1: NVIDIA's libraries ------------------------------------------------------------------


def _vendor(libraries: Sequence[Library], target: Target, torch_version: str) -> Iterator[Finding]:
    fine = 0
    for library in libraries:
        coverage = library.coverage(target)
        if coverage.native or coverage.by_jit or not coverage.total:
            fine += bool(coverage.total)
        elif len(library.groups.codes) == 1 and coverage.total == 1:
            fine += 1  # a stub: libcufft keeps its kernels elsewhere
        else:
            yield warning(
                "A1",
                library.owner or library.file,
                f"{library.file} {_carry([(library, coverage)])} "
                f"{_list(library.groups.names)}; nothing of it loads on {target}",
                "Install the release of it that a torch with code for "
                f"{target} asks for: {_pip(_torch_with(target, torch_version))}",
                **_details(target, [(library, coverage)]),
            )
    if fine:
        yield ok("A1", "NVIDIA's libraries", f"{fine} with code for {target}", target=str(target))


# -- A4: what should be there ----------------------------------------------------------------


def check_expected(
    audit: Audit, target: Target, expected: Collection[str] = ()
) -> Iterator[Finding]:
    """A4: extensions without device code, shared libraries that are damaged or lacking."""
    with_code = {library.owner for library in audit.libraries if library.groups.counts}
    wrong = False
    for name, package in sorted(audit.distributions.items()):
        serious = name in expected or name in with_code or EXTENSIONS.fullmatch(name) is not None
        for fault in _incomplete(audit, package):
            wrong = True
            yield (fatal if serious or name.startswith("nvidia-") else warning)(
                "A4", f"{name} {package.version}", fault, f"{_reinstall(package)}."
            )
        if name in with_code:
            continue
        finding = None
        if serious:
            finding = _without_code(audit, package, target)
        elif NAMED_FOR_CUDA.fullmatch(name) and not audit.shared.get(name) and not _leans(package):
            finding = warning(
                "A4",
                f"{name} {package.version}",
                "is named for CUDA and holds no shared library",
                f"{_reinstall(package)}.",
            )
        if finding is not None:
            wrong = True
            yield finding
    for library in audit.libraries:
        if not library.owner and library.groups.faults:
            wrong = True
            yield warning(
                "A4",
                library.file,
                f"is {_list(library.groups.faults)}; no package owns it",
                "Remove it, or put back the file it was.",
            )
    if not wrong:
        yield ok(
            "A4", "extensions", f"{len(with_code - {''})} packages with device code, all whole"
        )


def _incomplete(audit: Audit, package: Distribution) -> Iterator[str]:
    missing = audit.missing.get(package.name, ())
    if missing:
        yield f"{_list(missing)} {'is' if len(missing) == 1 else 'are'} in its RECORD and not there"
    for library in audit.libraries:
        if library.owner == package.name and library.groups.faults:
            yield f"{library.file}: {'; '.join(library.groups.faults)}"


def _without_code(audit: Audit, package: Distribution, target: Target) -> Finding:
    """A4 for an extension that carries none: a CPU build, or a wheel that lacks its extension."""
    name, label = package.name, f"{package.name} {package.version}"
    if name == "torch" and (audit.cuda_of_torch == "" or audit.shared.get(name)):
        return fatal(
            "A4",
            label,
            "is a CPU build: torch/version.py names no CUDA"
            if audit.cuda_of_torch == ""
            else "carries no device code",
            f"{_pip(_torch_with(target, package.version), force=True)}, with no CPU wheel index "
            "and no find-links in the settings of pip.",
            target=str(target),
        )
    what = (
        "shared libraries, none with device code" if audit.shared.get(name) else "no shared library"
    )
    return fatal(
        "A4",
        label,
        f"was installed without CUDA code: it holds {what}",
        f"{_reinstall(package)}."
        if ON_PYPI.fullmatch(name)
        else f"Rebuild it where nvcc is: CUDA_HOME=/usr/local/cuda {_rebuild(name, target)} "
        f"pip wheel --no-build-isolation --no-deps {name}=={_public(package.version)}",
        target=str(target),
    )


def _leans(package: Distribution) -> bool:
    """Whether the package requires another of its CUDA: pure Python over somebody else's code."""
    suffix = package.name.rpartition("-")[2]
    return any(re.match(rf"[A-Za-z0-9._-]+-{suffix}\b", text) for text in package.requires)


# -- remedies --------------------------------------------------------------------------------


def _other_release(package: Distribution | None, target: Target) -> str:
    """The release to install instead, where one is known, and how to rebuild."""
    name = package.name if package else ""
    build = f"ebuild it with {_rebuild(name, target)}{_nvcc(target)}."
    if package is None:
        return f"R{build}"
    first = knowledge.first_release(name, str(target))
    last = knowledge.last_release(name, str(target))
    have = knowledge.release_key(package.version)
    if first and have < knowledge.release_key(first):
        which = f"{name}=={first} (first PyPI release with {target})"
    elif last and have > knowledge.release_key(last):
        which = f"{name}<={last} (last PyPI release with all of {target})"
    elif last:
        which = f"{name}=={_public(package.version)} as PyPI has it, this being another build"
    else:
        return f"R{build}"
    others = (
        f", and with it what was built for torch {package.version};" if name == "torch" else ","
    )
    return f"Install {which}{others} or r{build}"


def _rebuild(name: str, target: Target) -> str:
    """The variable that tells a package's build which GPUs to compile for."""
    if name == "flash-attn":  # its builds know whole generations only
        return f"FLASH_ATTN_CUDA_ARCHS={80 if target.major == 8 else target.arch}"
    if name.startswith(("spconv", "cumm")):
        return f"CUMM_CUDA_ARCH_LIST={target.capability}"
    if name.startswith("cupy"):
        return f"CUPY_NVCC_GENERATE_CODE=arch=compute_{target.arch},code=sm_{target.arch}"
    return f"TORCH_CUDA_ARCH_LIST={target.capability}"


def _nvcc(target: Target) -> str:
    row = knowledge.architecture(str(target))
    if row is None:
        return ""
    return f" and nvcc >= {row.added}" + (f", < {row.dropped}" if row.dropped else "")


def _torch_with(target: Target, version: str = "") -> str:
    """ "torch==2.10.0": `version` if it runs on `target` as far as we know, else the nearest older.

    Of a release nobody audited, the audited ones before and after it tell.
    """
    have = knowledge.release_key(_public(version))
    rows = knowledge.releases("torch")
    older = [row for row in rows if knowledge.release_key(row.version) <= have]
    newer = [row for row in rows if knowledge.release_key(row.version) >= have]
    around = [*older[-1:], *newer[:1]]
    if around and all(row.has(str(target)) for row in around) and older:
        return f"torch=={_public(version)}"
    fitting = [row.version for row in older if row.has(str(target))][-1:]
    fitting += [row.version for row in newer if row.has(str(target))][:1]
    return f"torch=={fitting[0]}" if fitting else "torch"


def _reinstall(package: Distribution) -> str:
    return _pip(f"{package.name}=={package.version}", force=True) + " --no-deps"


def _pip(what: str, force: bool = False) -> str:
    return f"pip install {'--force-reinstall ' if force else ''}{what}"


def _public(version: str) -> str:
    """ "2.13.0+cpu" to "2.13.0"."""
    return version.partition("+")[0]


# -- words -----------------------------------------------------------------------------------


def _files(covered: Sequence[tuple[Library, Coverage]]) -> str:
    return _list([library.file for library, _ in covered])


def _carry(covered: Sequence[tuple[Library, Coverage]]) -> str:
    return "carries" if len(covered) == 1 else "carry"


def _codes(covered: Sequence[tuple[Library, Coverage]]) -> str:
    return _list(list(dict.fromkeys(n for library, _ in covered for n in library.groups.names)), 12)


def _list(items: Sequence[str], most: int = MOST_NAMED) -> str:
    shown = ", ".join(items[:most])
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown


def _details(target: Target, covered: Sequence[tuple[Library, Coverage]]) -> dict[str, Any]:
    return {
        "target": str(target),
        "libraries": [
            {
                "file": library.file,
                "codes": library.groups.names,
                "native": coverage.native,
                "jit": coverage.by_jit,
                "nothing": coverage.nothing,
            }
            for library, coverage in covered
        ],
    }
