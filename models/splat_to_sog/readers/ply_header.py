"""The header of a PLY file: parsed, bounded and checked against the file's true size.

Does not know what the properties mean: `ply` and `compressed_ply` do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.context import InvalidInput

MAX_HEADER_BYTES = 64 * 1024

TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "<i2"),
    **dict.fromkeys(("ushort", "uint16"), "<u2"),
    **dict.fromkeys(("int", "int32"), "<i4"),
    **dict.fromkeys(("uint", "uint32"), "<u4"),
    **dict.fromkeys(("float", "float32"), "<f4"),
    **dict.fromkeys(("double", "float64"), "<f8"),
}

EXPORT_STEP = "Export the scene again as a binary 3DGS .ply, .compressed.ply, .spz or .sog."


@dataclass
class Element:
    """One `element` of the header: `count` packed records of `dtype`, from byte `offset` on."""

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)  # (name, numpy type)
    offset: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.properties)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class PlyHeader:
    path: Path
    elements: dict[str, Element]
    comments: tuple[str, ...]

    def records(self, name: str) -> np.memmap[Any, Any]:
        """The element's records, mapped: [count] of its structured dtype."""
        element = self.elements[name]
        return np.memmap(
            self.path, dtype=element.dtype, mode="r", offset=element.offset, shape=(element.count,)
        )


def read_header(path: Path, name: str) -> PlyHeader:
    """Parse and check the header; the elements together must fill the file exactly."""
    with path.open("rb") as file:
        head = file.read(MAX_HEADER_BYTES)
    lines, offset = _split_lines(head, name)
    elements: dict[str, Element] = {}
    comments: list[str] = []
    current: Element | None = None
    for number, line in enumerate(lines[1:], start=2):
        words = line.split()
        match words:
            case []:
                continue
            case ["comment" | "obj_info", *_]:
                comments.append(line.split(None, 1)[1] if len(words) > 1 else "")
            case ["format", kind, *_]:
                if kind != "binary_little_endian":
                    raise _refuse(
                        name,
                        f"format is '{kind}'; only 'binary_little_endian' is read",
                        EXPORT_STEP,
                    )
            case ["element", element_name, count]:
                if element_name in elements:
                    raise _refuse(name, f"line {number}: element '{element_name}' occurs twice")
                current = Element(element_name, _count(count, element_name, name))
                elements[element_name] = current
            case ["property", "list", *rest]:
                owner = current.name if current else "?"
                hint = " (a mesh, not a splat)" if owner == "face" else ""
                raise _refuse(
                    name,
                    f"element '{owner}' has the list property '{rest[-1] if rest else ''}'{hint}; "
                    "splats have plain properties only",
                    EXPORT_STEP,
                )
            case ["property", kind, property_name]:
                _add_property(current, kind, property_name, number, name)
            case _:
                raise _refuse(name, f"line {number} is not understood: '{line[:80]}'")
    if not any(line.split()[:1] == ["format"] for line in lines):
        raise _refuse(
            name, "the 'format' line is missing; 'format binary_little_endian 1.0' is read"
        )
    _place(elements, offset, path.stat().st_size, name)
    return PlyHeader(path, elements, tuple(comments))


def _split_lines(head: bytes, name: str) -> tuple[list[str], int]:
    """Header lines (without end_header) and the byte at which the data begin."""
    lines: list[str] = []
    start = 0
    while (end := head.find(b"\n", start)) >= 0:
        line = head[start:end].decode("latin-1").rstrip()
        start = end + 1
        if line == "end_header":
            return lines, start
        lines.append(line)
    raise _refuse(
        name,
        f"no 'end_header' line in the first {min(len(head), MAX_HEADER_BYTES)} bytes "
        f"(allowed: a header of at most {MAX_HEADER_BYTES} bytes)",
    )


def _count(text: str, element: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise _refuse(name, f"element '{element}' has the count '{text}'; a whole number is needed")
    return int(text)


def _add_property(
    current: Element | None, kind: str, property_name: str, number: int, name: str
) -> None:
    if current is None:
        raise _refuse(name, f"line {number}: property '{property_name}' before any element")
    if kind not in TYPES:
        raise _refuse(
            name,
            f"property '{property_name}' has the type '{kind}'; allowed: {', '.join(TYPES)}",
        )
    if any(known == property_name for known, _ in current.properties):
        raise _refuse(name, f"line {number}: property '{property_name}' occurs twice")
    current.properties.append((property_name, TYPES[kind]))


def _place(elements: dict[str, Element], offset: int, size: int, name: str) -> None:
    """Give each element its byte offset; refuse unless they end where the file ends."""
    end = offset
    for element in elements.values():
        element.offset = end
        end += element.nbytes
    if end != size:
        detail = " + ".join(
            f"{e.count} '{e.name}' records of {e.dtype.itemsize} bytes" for e in elements.values()
        )
        state = "truncated" if size < end else "followed by bytes the header does not declare"
        raise InvalidInput(
            f"{name}: the header declares {detail or 'no elements'}, {end - offset} bytes in all, "
            f"but {size - offset} bytes follow it: the file is {state}.",
            code="splat_truncated" if size < end else "splat_header",
            next_step="Upload the complete file, or export it again.",
        )


def _refuse(name: str, problem: str, next_step: str = EXPORT_STEP) -> InvalidInput:
    return InvalidInput(f"{name}: PLY header: {problem}.", code="splat_header", next_step=next_step)
