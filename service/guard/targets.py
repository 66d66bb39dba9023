"""A GPU as the loader sees it, and which device code it takes.

Knows neither files nor packages. Rules: NVIDIA's compatibility guides ("Blackwell Compatibility
Guide", 1.2) and the CUDA C++ Programming Guide on architecture- and family-specific features. Tegra
boards have rules of their own, which are not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from service.guard import knowledge
from service.guard.errors import GuardError
from service.guard.fatbin import Code, Kind

_TARGET = re.compile(r"(?:sm_?|compute_)?(\d+?)\.?(\d)([af]?)", re.IGNORECASE)
OLDEST, NEWEST = 30, 199  # 10 * major + minor; outside it is a slip of the pen


class Loads(IntEnum):
    """What becomes of a container on a GPU; the larger the better."""

    NOT = 0  # nothing in it is for this GPU: "no kernel image is available"
    JIT = 1  # the driver compiles its PTX: slow at first, and the driver must know its PTX version
    NATIVE = 2  # machine code for this GPU


@dataclass(frozen=True, order=True)
class Target:
    """A compute capability: `Target(12, 0)` is "sm_120"."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Target:
        """ "sm_120", "12.0", "120" and "sm_90a" (the GPU such code is for: 9.0).

        Raises GuardError for anything else.
        """
        match = _TARGET.fullmatch(text.strip())
        target = cls(int(match[1]), int(match[2])) if match else None
        if target is None or not OLDEST <= target.arch <= NEWEST:
            raise GuardError(
                f"{text!r} is no compute capability",
                "Write it as sm_75 or 7.5. `nvidia-smi --query-gpu=compute_cap --format=csv` "
                "prints that of a GPU.",
            )
        return target

    @property
    def arch(self) -> int:
        return 10 * self.major + self.minor

    @property
    def capability(self) -> str:
        """ "12.0", as TORCH_CUDA_ARCH_LIST has it."""
        return f"{self.major}.{self.minor}"

    def __str__(self) -> str:
        return f"sm_{self.arch}"

    def takes(self, code: Code) -> bool:
        """Whether a GPU of this capability runs `code`, natively or compiled by its driver."""
        if code.kind not in (Kind.SASS, Kind.PTX):
            return False
        if code.suffix == "a":
            return code.arch == self.arch
        if code.kind is Kind.SASS or code.suffix == "f":
            return code.arch // 10 == self.major and code.arch <= self.arch
        return code.arch <= self.arch

    def loads(self, codes: Iterable[Code]) -> Loads:
        """What becomes of a container that holds `codes`."""
        kinds = {code.kind for code in codes if self.takes(code)}
        return Loads.NATIVE if Kind.SASS in kinds else Loads.JIT if kinds else Loads.NOT

    def compiles(self, codes: Iterable[Code]) -> Code | None:
        """The PTX the driver compiles of a container that has no machine code: the newest."""
        taken = [code for code in codes if code.kind is Kind.PTX and self.takes(code)]
        return max(taken, key=lambda code: (code.arch, code.ptx_isa or (0, 0)), default=None)


def driver_for(target: Target, ptx: Code) -> str:
    """The driver branch ("570") that knows GPUs of `target` and the version of `ptx`.

    Minor-version compatibility leaves PTX out: it takes the driver of the toolkit that wrote it.
    """
    isa = ptx.ptx_isa or (0, 0)
    rows = knowledge.toolkits()
    writer = next((row for row in rows if knowledge.number(row.ptx_isa) >= isa), rows[-1])
    branches = [knowledge.native_driver(knowledge.number(writer.toolkit))]
    architecture = knowledge.architecture(str(target))
    if architecture is not None:
        branches.append(knowledge.native_driver(knowledge.number(architecture.added)))
    return max(branches, key=int)
