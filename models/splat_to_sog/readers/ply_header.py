"""The header of a PLY file: parsed, bounded and checked against the file's true size.

Does not know what the properties mean (`ply` and `compressed_ply` do), only where the records of
an element lie. All three encodings are read: binary of both byte orders, and text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.readers.blocks import each_block
from models.splat_to_sog.readers.ply_text import each_text_block

MAX_HEADER_BYTES = 64 * 1024
MAX_WORD = 64  # characters of a name, type or count
MAX_ELEMENTS = 16

TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}

FORMATS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
"""Encoding -> numpy's mark of its byte order; text becomes numbers of the machine's own."""

NEEDED = ("vertex", "chunk", "sh")
"""Elements that hold splats."""

EXPORT_STEP = "Export the scene again as a binary 3DGS .ply, .compressed.ply, .spz or .sog."


@dataclass
class Element:
    """One `element` of the header: `count` packed records of `dtype`, from byte `offset` on."""

    name: str
    count: int
    properties: dict[str, str] = field(default_factory=dict)  # name -> numpy type, in file order
    list_property: str = ""  # the first of those whose length a record itself says
    offset: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(list(self.properties.items()))

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class PlyHeader:
    path: Path
    format: str  # of FORMATS
    elements: dict[str, Element]
    comments: tuple[str, ...]
    data_offset: int  # the byte after the header

    def each_block(
        self, element_name: str, work: Callable[[slice, NDArray[Any]], None], name: str
    ) -> None:
        """work(rows, records of the element's dtype) for each block of its records."""
        element = self.elements[element_name]
        if self.format != "ascii":
            each_block(self.path, element.offset, element.count, element.dtype, work, name)
            return
        before = 0
        for other in self.elements.values():
            if other is element:
                break
            before += other.count * len(other.properties)
        each_text_block(
            self.path, self.data_offset, before, element.count, element.dtype, work, name
        )


def read_header(path: Path, name: str) -> PlyHeader:
    """Parse and check the header; the elements together must fill the file exactly."""
    with path.open("rb") as file:
        head = file.read(MAX_HEADER_BYTES)
    lines, offset = _split_lines(head, name)
    encoding = _format(lines, name)
    elements: dict[str, Element] = {}
    comments: list[str] = []
    current: Element | None = None
    for number, line in enumerate(lines[1:], start=2):
        words = line.split()
        match words:
            case [] | ["format", *_]:
                continue
            case ["comment" | "obj_info", *_]:
                comments.append(line.split(None, 1)[1] if len(words) > 1 else "")
            case _ if max(map(len, words)) > MAX_WORD or len(elements) > MAX_ELEMENTS:
                problem = f"line {number} is '{line[:80]}': allowed are words of {MAX_WORD} "
                raise _refuse(name, f"{problem}characters and {MAX_ELEMENTS} elements")
            case ["element", element_name, count]:
                if element_name in elements:
                    raise _refuse(name, f"line {number}: element '{element_name}' occurs twice")
                current = Element(element_name, _count(count, element_name, name))
                elements[element_name] = current
            case ["property", "list", _, _, property_name] if current is not None:
                current.list_property = current.list_property or property_name
            case ["property", kind, property_name]:
                _add_property(current, kind, property_name, FORMATS[encoding], number, name)
            case _:
                raise _refuse(name, f"line {number} is not understood: '{line[:80]}'")
    header = PlyHeader(path, encoding, elements, tuple(comments), offset)
    _place(header, path.stat().st_size, name)
    return header


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


def _format(lines: list[str], name: str) -> str:
    for line in lines:
        match line.split():
            case ["format", kind, *_]:
                if kind in FORMATS:
                    return kind
                raise _refuse(name, f"format is '{kind[:40]}'; allowed: {', '.join(FORMATS)}")
    raise _refuse(name, "the 'format' line is missing, for example 'format ascii 1.0'")


def _count(text: str, element: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise _refuse(name, f"element '{element}' has the count '{text}'; a whole number is needed")
    return int(text)


def _add_property(
    current: Element | None, kind: str, property_name: str, order: str, number: int, name: str
) -> None:
    if current is None:
        raise _refuse(name, f"line {number}: property '{property_name}' before any element")
    if kind not in TYPES:
        raise _refuse(
            name,
            f"property '{property_name}' has the type '{kind}'; allowed: {', '.join(TYPES)}",
        )
    if property_name in current.properties:
        raise _refuse(name, f"line {number}: property '{property_name}' occurs twice")
    current.properties[property_name] = order + TYPES[kind]


def _place(header: PlyHeader, size: int, name: str) -> None:
    """Give each element its byte offset; refuse unless they end where the file ends.

    The length of lists is known only by reading them: they are passed over where nothing that is
    needed follows them.
    """
    end = header.data_offset
    elements = list(header.elements.values())
    open_end = False
    for index, element in enumerate(elements):
        if element.list_property and element.count:
            if any(later.name in NEEDED for later in elements[index:]):
                raise _refuse(
                    name,
                    f"element '{element.name}' has the list property '{element.list_property}'; "
                    "lists are passed over only behind the splats",
                )
            open_end = True
        element.offset = end
        # As text a value takes a digit and a space, but for the very last.
        end += (
            2 * element.count * len(element.properties)
            if header.format == "ascii"
            else element.nbytes
        )
    if header.format == "ascii":
        open_end, end = True, max(header.data_offset, end - 1)
    if size < end or (size > end and not open_end):
        raise _wrong_size(header, end, size, name)


def _wrong_size(header: PlyHeader, end: int, size: int, name: str) -> InvalidInput:
    detail = " + ".join(
        f"{e.count} '{e.name}' records of {len(e.properties)} numbers"
        if header.format == "ascii"
        else f"{e.count} '{e.name}' records of {e.dtype.itemsize} bytes"
        for e in header.elements.values()
    )
    state = "truncated" if size < end else "followed by bytes the header does not declare"
    return InvalidInput(
        f"{name}: the header declares {detail or 'no elements'}, "
        f"{'at least ' * (header.format == 'ascii')}{end - header.data_offset} bytes in all, "
        f"but {size - header.data_offset} bytes follow it: the file is {state}.",
        code="splat_truncated" if size < end else "splat_header",
        next_step="Upload the complete file, or export it again.",
    )


def _refuse(name: str, problem: str, next_step: str = EXPORT_STEP) -> InvalidInput:
    return InvalidInput(f"{name}: PLY header: {problem}.", code="splat_header", next_step=next_step)
