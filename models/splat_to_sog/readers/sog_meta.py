"""meta.json of a SOG, each field checked as it is asked for.

Does not know the textures; the message of every refusal names the field and what is allowed.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog import layout
from models.splat_to_sog.filenames import META
from models.splat_to_sog.readers.container import NAME, refuse
from models.splat_to_sog.splats import Model


class Description:
    """A JSON object of a SOG: its fields by dotted names ("shN.count")."""

    def __init__(self, data: bytes, name: str, file: str = META) -> None:
        self.name, self.file = name, file
        try:
            self.tree: Any = json.loads(data)
        # ValueError: not JSON, not UTF-8, or a number of thousands of digits
        except (ValueError, RecursionError) as error:
            raise refuse(name, f"{file} is not valid JSON ({error})", code="splat_meta") from error
        if not isinstance(self.tree, dict):
            raise self.bad("the whole file", "not a JSON object")

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, dotted: str) -> Any:
        value: Any = self.tree
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def version(self) -> int:
        """1 (which has no such field) or 2."""
        version = self.tree.get("version", 1)
        if isinstance(version, bool) or version not in (1, 2):
            raise refuse(
                self.name,
                f"{self.file}: 'version' is {short(version)}; allowed are 2, and 1 or none for the "
                "older form",
                code="splat_unsupported",
            )
        return int(version)

    def model(self) -> Model:
        model = self.tree.get("model")
        if model is None and self.tree.get("antialias") is True:  # as the public page has it
            return "antialiased"
        return model if model in ("antialiased", "2dgs") else "default"

    def integer(self, dotted: str, low: int, high: int) -> int:
        value = self.get(dotted)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.bad(dotted, f"{short(value)}; allowed is a whole number of {low} to {high}")
        return value

    def number(self, dotted: str) -> float:
        """One finite number; a list of just one counts."""
        value = self.get(dotted)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not is_number(value):
            raise self.bad(dotted, f"{short(value)}; a finite number is needed")
        return float(value)

    def floats(self, section: str, key: str, length: int) -> NDArray[np.float64]:
        value = self.get(f"{section}.{key}")
        ok = isinstance(value, list) and len(value) == length and all(map(is_number, value))
        if not ok:
            raise self.bad(
                f"{section}.{key}", f"{short(value)}; {length} finite numbers are needed"
            )
        return np.array(value, np.float64)

    def codebook(self, section: str) -> NDArray[np.float32]:
        """256 values. Old writers left null (a NaN) in entry 0: continued from its neighbours."""
        value = self.get(f"{section}.codebook")
        if isinstance(value, list) and len(value) == layout.BOOK and value[0] is None:
            rest = value[1:]
            if all(map(is_number, rest)):
                value = [rest[0] + (rest[0] - rest[-1]) / (layout.BOOK - 1), *rest]
        ok = isinstance(value, list) and len(value) == layout.BOOK and all(map(is_number, value))
        if not ok:
            raise self.bad(f"{section}.codebook", f"not a list of {layout.BOOK} finite numbers")
        return np.array(value, np.float64).astype(np.float32)

    def files(self, section: str, length: int) -> list[str]:
        value = self.get(f"{section}.files")
        ok = isinstance(value, list) and len(value) == length
        if not ok or not all(isinstance(file, str) and NAME.fullmatch(file) for file in value):
            raise self.bad(
                f"{section}.files",
                f"{short(value)}; {length} plain name(s) like 'means_l.webp' are needed, "
                "without folders",
            )
        return list(value)

    def bad(self, field: str, problem: str) -> InvalidInput:
        return refuse(self.name, f"{self.file}: '{field}' is {problem}", code="splat_meta")


def is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= float(np.finfo(np.float32).max)


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
