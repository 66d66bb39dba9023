"""Packages meet each other's requirements: check L3.

Knows what each package's metadata asks for and, where that is silent, the pins in knowledge.json.
"""

from __future__ import annotations

from collections.abc import Iterator

from service.guard import knowledge
from service.guard.findings import Finding, fatal, info, ok, warning
from service.guard.installed import Distribution, Environment
from service.guard.requirement import InvalidRequirement, Requirement, machine_of, parse
from service.guard.versions import InvalidVersion

# A contradiction among these ends in a crash, wrong code or no GPU; others may get away with it.
STACK = ("torch", "triton", "xformers", "flash-attn", "spconv", "cumm", "cupy", "nvidia-")


def check_pins(environment: Environment) -> Iterator[Finding]:
    """L3: every requirement of every package holds, extras apart."""
    machine = machine_of(environment.python)
    found, count = False, 0
    for package in sorted(environment.distributions.values(), key=lambda item: item.name):
        for text in requirements_of(package, environment):
            try:
                requirement = parse(text)
                if not requirement.applies(machine):
                    continue
                count += 1
                fault = _fault(package, requirement, environment)
            except (InvalidRequirement, InvalidVersion) as error:
                fault = info("L3", package.name, f"a requirement cannot be read: {error}")
            if fault is not None:
                found = True
                yield fault
    if not found:
        yield ok("L3", "requirements", f"all {count} hold")


def requirements_of(package: Distribution, environment: Environment) -> list[str]:
    """Its Requires-Dist lines, and known pins on installed packages that these do not mention."""
    named = set()
    for text in package.requires:
        try:
            named.add(parse(text).name)
        except InvalidRequirement:
            continue  # the caller reports it
    known = [pin.requires for pin in knowledge.pins(package.name, package.version)]
    silent = [
        text for text in known if parse(text).name in environment.distributions.keys() - named
    ]
    return [*package.requires, *silent]


def _fault(
    package: Distribution, requirement: Requirement, environment: Environment
) -> Finding | None:
    other = environment.distributions.get(requirement.name)
    if other is not None and requirement.accepts(other.version):
        return None
    serious = package.name.startswith(STACK) and requirement.name.startswith(STACK)
    who = f"{package.name} {package.version}"
    if other is None:
        # CUDA's libraries may come from the system instead of from packages.
        system = requirement.name.startswith("nvidia-")
        return (info if system else warning)(
            "L3",
            package.name,
            f"{who} requires {requirement}, which is not installed.",
            f"pip install '{requirement}'",
        )
    message = f"{who} requires {requirement}; installed: {other.version}."
    if package.name == "xformers" and requirement.name == "torch":
        message = f"xformers {package.version} was built for {_for_torch(requirement)}; "
        message += f"installed: {other.version}."
    return (fatal if serious else warning)(
        "L3",
        package.name,
        message,
        _remedy(package, requirement, other),
        requires=str(requirement),
        installed=other.version,
    )


def _remedy(package: Distribution, requirement: Requirement, other: Distribution) -> str:
    """Which package to change, and to what."""
    if requirement.name == "torch":
        # torch is what everything else is chosen for: the other package has to follow it.
        public = other.version.partition("+")[0]
        fitting = knowledge.pinned_by(package.name, f"torch=={public}")
        if fitting:
            return f"Install {package.name}=={fitting}: pip install --no-deps " + (
                f"{package.name}=={fitting}"
            )
        return (
            f"No release of {package.name} for torch {public} is known: uninstall it "
            f"(pip uninstall {package.name}), or pip install '{requirement}'"
        )
    return f"pip install --no-deps '{requirement}'"


def _for_torch(requirement: Requirement) -> str:
    return "torch " + requirement.clauses.removeprefix("==")
