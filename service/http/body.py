"""A request's body as bytes: refused by its headers, or counted and timed while it arrives.

Knows limits, not contents; `uploads.py` makes files of it.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import Request

from service.errors import (
    InsufficientStorage,
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
    UploadStalled,
)
from service.http.filetypes import FileKind
from service.http.problems import shown
from service.storage.artifacts import ArtifactStore

FREE_SPACE_STEP_BYTES = 64 << 20  # look at the disk this often while a body arrives
SLOWEST_WINDOW_BYTES = 64 << 10  # what must arrive in each window of `window_seconds`
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# curl's --data-binary claims the second; then the bytes decide.
ANY_FILE = frozenset({"", "application/x-www-form-urlencoded", "application/octet-stream"})


@dataclass(frozen=True)
class UploadRules:
    """What may come in.

    kinds:          file types, told by their first bytes; `accepts` names them for messages
    media_types:    Content-Types beyond ANY_FILE and multipart/form-data
    max_files:      files in one form
    max_body_bytes: the whole body, whatever Content-Length claims
    min_free_bytes: disk that must stay free
    window_seconds: SLOWEST_WINDOW_BYTES, or the rest, must arrive in each window of this length
    """

    kinds: tuple[FileKind, ...]
    accepts: str
    media_types: frozenset[str]
    max_files: int
    max_body_bytes: int
    min_free_bytes: int
    window_seconds: float = 60.0


def is_form(request: Request) -> bool:
    return media_type_of(request) == "multipart/form-data"


def media_type_of(request: Request) -> str:
    """The Content-Type without its parameters, in lower case; empty when absent."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def check_headers(request: Request, store: ArtifactStore, rules: UploadRules) -> None:
    """Refuse, before a byte of the body is read, what its headers already rule out.

    Raises UnsupportedMediaType, InvalidRequest, PayloadTooLarge, InsufficientStorage.
    """
    media_type = media_type_of(request)
    if media_type not in rules.media_types | ANY_FILE and not is_form(request):
        raise UnsupportedMediaType(
            f"Content-Type {shown(media_type)} is not accepted here.",
            next_step=f"Send the bytes of the file itself ({rules.accepts}) as the body, or "
            "multipart/form-data with the file in a part.",
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise UnsupportedMediaType(
            f"Content-Encoding {shown(encoding)} is not accepted.",
            next_step="Send the file as it is, without Content-Encoding.",
        )
    length = _content_length(request)
    if length == 0:
        raise empty_body(rules)
    if length is not None and length > rules.max_body_bytes:
        raise _too_large(f"Content-Length is {length}", rules)
    _check_free(store, rules, length or 0)


async def read_body(
    request: Request, store: ArtifactStore, rules: UploadRules
) -> AsyncIterator[bytes]:
    """The body in chunks, counted against the limits while it arrives."""
    received = 0
    next_look = FREE_SPACE_STEP_BYTES
    window_ends, window_bytes = time.monotonic() + rules.window_seconds, 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(window_ends - time.monotonic()):
                chunk = await anext(stream, b"")
        except TimeoutError:
            raise UploadStalled(
                f"The body stopped arriving after {received} bytes: less than "
                f"{SLOWEST_WINDOW_BYTES} bytes in {rules.window_seconds:g} seconds.",
                next_step="Send it again over a faster connection.",
            ) from None
        if not chunk:
            return
        received += len(chunk)
        window_bytes += len(chunk)
        if received > rules.max_body_bytes:
            raise _too_large(f"More than {rules.max_body_bytes} bytes have arrived", rules)
        if received >= next_look:
            next_look += FREE_SPACE_STEP_BYTES
            _check_free(store, rules, 0)
        if window_bytes >= SLOWEST_WINDOW_BYTES:
            window_ends, window_bytes = time.monotonic() + rules.window_seconds, 0
        yield chunk


def _content_length(request: Request) -> int | None:
    """None for a chunked body. A request with neither header has no body: 0."""
    if "transfer-encoding" in request.headers:
        return None
    text = request.headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise InvalidRequest(f"Content-Length has the value {shown(text)}; it is a byte count.")
    return int(text)


def _check_free(store: ArtifactStore, rules: UploadRules, coming_bytes: int) -> None:
    free = store.free_bytes()
    if free - coming_bytes < rules.min_free_bytes:
        raise InsufficientStorage(
            f"{free} bytes of disk are free; this upload needs {coming_bytes} and "
            f"{rules.min_free_bytes} must stay free.",
            next_step="Retry later, or free space where MESHPRESS_DATA_DIR lies.",
        )


@contextmanager
def full_disk_is_507() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise InsufficientStorage(
            "The disk filled up while the upload arrived; nothing of it was kept.",
            next_step="Retry later, or free space where MESHPRESS_DATA_DIR lies.",
        ) from error


def empty_body(rules: UploadRules) -> InvalidRequest:
    return InvalidRequest(
        f"The body is empty; it should be a file: {rules.accepts}.",
        code="empty_body",
        next_step="curl --data-binary @file URL sends the bytes of a file.",
    )


def _too_large(what: str, rules: UploadRules) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"{what}; the limit is {rules.max_body_bytes} bytes.",
        next_step="Send a smaller file, or raise MESHPRESS_MAX_UPLOAD_BYTES.",
        details={"max_bytes": rules.max_body_bytes},
    )
