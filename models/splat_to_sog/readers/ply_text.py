"""Reads the numbers of a text ("ascii") PLY, block by block, as records of an element's type.

Does not know the header. A value that is not a number, or that its type cannot hold, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput

BLOCK_BYTES = 1 << 20
MAX_WORD_BYTES = 400  # a double written out in full has up to 326 digits


def each_text_block(
    path: Path,
    offset: int,  # of the byte after the header
    skip: int,  # numbers of other elements before this one's
    count: int,
    dtype: np.dtype[Any],
    work: Callable[[slice, NDArray[Any]], None],
    name: str,
) -> None:
    """Call work(rows, records [len(rows)] of dtype) for each block of `count` records, in order."""
    columns = len(dtype.names or ())
    numbers = _words(path, offset, name)
    skipped = sum(1 for _ in islice(numbers, skip))
    rows = max(1, BLOCK_BYTES // dtype.itemsize)
    for start in range(0, count if columns else 0, rows):
        n = min(rows, count - start)
        words = list(islice(numbers, n * columns))
        if skipped < skip or len(words) < n * columns:
            found = skipped + start * columns + len(words)
            raise InvalidInput(
                f"{name}: PLY: the text ends after {found} numbers; {count} records of {columns} "
                f"numbers after {skip} others need {skip + count * columns}.",
                code="splat_truncated",
                next_step="Upload the complete file, or export it again.",
            )
        work(slice(start, start + n), _records(words, dtype, name))


def _words(path: Path, offset: int, name: str) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while block := file.read(BLOCK_BYTES):
            words = (rest + block).split()
            # The last word may go on in the next block.
            rest = b"" if block[-1:].isspace() or not words else words.pop()
            if len(rest) > MAX_WORD_BYTES:
                raise _bad(rest, "longer than any number", name)
            yield from words
        if rest:
            yield rest


def _records(words: list[bytes], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    names = dtype.names or ()
    try:
        table = np.array(list(map(float, words)), np.float64).reshape(-1, len(names))
    except (ValueError, OverflowError):
        wrong = next(word for word in words if not _is_number(word))
        raise _bad(wrong, "not a number", name) from None
    records = np.empty(len(table), dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for index, column in enumerate(names):
            values = table[:, index]
            kind = dtype[column]
            if kind.kind in "iu":
                limits = np.iinfo(kind)
                fits = (values == np.floor(values)) & (values >= limits.min)
                fits &= values <= limits.max
                if not fits.all():
                    wrong = words[int(np.argmin(fits)) * len(names) + index]
                    raise _bad(wrong, f"not a whole number of {limits.min} to {limits.max}", name)
            records[column] = values
    return records


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except (ValueError, OverflowError):
        return False
    return True


def _bad(word: bytes, problem: str, name: str) -> InvalidInput:
    shown = word[:40].decode("latin-1")
    return InvalidInput(
        f"{name}: PLY: the text has {shown!r} where a value belongs: it is {problem}.",
        code="splat_header",
        next_step="Export the scene again, best as a binary .ply.",
    )
