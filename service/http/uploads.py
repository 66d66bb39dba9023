"""A request's body into the artifact store: streamed, hashed and limited on the way.

Knows no job and no option: it gives back stored files and form fields. Whatever ends the upload
early (client gone, limit, wrong bytes, full disk) leaves nothing behind: a payload's temporary
file goes with its context.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import anyio.to_thread
from fastapi import Request
from multipart import MultipartError, PushMultipartParser, parse_options_header
from multipart import MultipartSegment as Segment

from service.errors import (
    InsufficientStorage,
    InvalidRequest,
    InvalidUpload,
    PayloadTooLarge,
    UnsupportedMediaType,
    UploadStalled,
)
from service.http.filenames import clean_name, name_from_headers
from service.http.filetypes import HEAD_BYTES, FileKind, describe, find_kind
from service.http.problems import shown
from service.jobs.records import StoredFile
from service.storage.artifacts import ArtifactStore, Incoming

FREE_SPACE_STEP_BYTES = 64 << 20  # look at the disk this often while a body arrives
SLOWEST_WINDOW_BYTES = 64 << 10  # what must arrive in each window of `window_seconds`
MOST_FIELDS = 64
LONGEST_FIELD_BYTES = 16 << 10
PREAMBLE_BYTES = 64 << 10  # a boundary that has not appeared by then is the wrong one
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


@dataclass(frozen=True)
class Upload:
    """files: in the order they came. fields: (name, text) of a form, in order."""

    files: tuple[StoredFile, ...]
    fields: tuple[tuple[str, str], ...] = ()


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
        raise _empty_body(rules)
    if length is not None and length > rules.max_body_bytes:
        raise _too_large(f"Content-Length is {length}", rules)
    _check_free(store, rules, length or 0)


async def receive_upload(request: Request, store: ArtifactStore, rules: UploadRules) -> Upload:
    """Stream the body into the store; call `check_headers` first.

    Raises InvalidRequest and its kin, InsufficientStorage, and ClientDisconnect.
    """
    chunks = _body(request, store, rules)
    with _full_disk_is_507():
        if is_form(request):
            return await _receive_form(request, chunks, store, rules)
        raw_name = name_from_headers(
            request.headers.get("x-filename"), request.headers.get("content-disposition")
        )
        return await _receive_raw(raw_name, chunks, store, rules)


async def _receive_raw(
    raw_name: str | None, chunks: AsyncIterator[bytes], store: ArtifactStore, rules: UploadRules
) -> Upload:
    with store.incoming() as payload:
        file = _ArrivingFile(payload, raw_name, rules, where="The body")
        async for chunk in chunks:
            file.write(chunk)
        if not payload.size_bytes:
            raise _empty_body(rules)
        file.check()
        return Upload((await anyio.to_thread.run_sync(file.store_in, store),))


async def _receive_form(
    request: Request, chunks: AsyncIterator[bytes], store: ArtifactStore, rules: UploadRules
) -> Upload:
    with ExitStack() as payloads:
        form = _Form(payloads, store, rules)
        try:
            parser = PushMultipartParser(_boundary(request), max_header_size=8192)
            async for chunk in chunks:
                for event in parser.parse(chunk):
                    form.take(event)
                form.check_preamble(len(chunk))
            parser.close()
        except MultipartError as error:
            raise InvalidRequest(
                f"The multipart body is malformed: {str(error).rstrip('.').lower()}.",
                code="malformed_multipart",
                next_step="Let your HTTP client build the form, as curl -F image=@a.png does.",
            ) from error
        files = form.files()
        return Upload(
            await anyio.to_thread.run_sync(lambda: tuple(file.store_in(store) for file in files)),
            tuple(form.fields),
        )


class _ArrivingFile:
    """One file on its way in; its first bytes decide whether the rest is worth reading."""

    def __init__(
        self, payload: Incoming, raw_name: str | None, rules: UploadRules, where: str
    ) -> None:
        self._payload = payload
        self._raw_name = raw_name
        self._rules = rules
        self._where = where
        self._head = b""
        self._kind: FileKind | None = None

    @property
    def absent(self) -> bool:
        """A browser's file input with nothing chosen: no name, no bytes."""
        return not self._payload.size_bytes and not self._raw_name

    def write(self, chunk: bytes) -> None:
        self._payload.write(chunk)
        if self._kind is None:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                self.check()

    def check(self) -> None:
        """Raises InvalidUpload when the file is empty or not of an accepted kind."""
        if self._kind is not None:
            return
        if not self._payload.size_bytes:
            raise InvalidUpload(f"{self._where} is empty.", code="empty_file")
        self._kind = find_kind(self._head, self._rules.kinds)
        if self._kind is None:
            raise InvalidUpload(
                f"{self._where} is {describe(self._head)}; accepted: {self._rules.accepts}.",
                code="wrong_file_type",
                next_step="The first bytes decide, not the name or the Content-Type.",
            )

    def store_in(self, store: ArtifactStore) -> StoredFile:
        """Make the file durable. Blocks on the disk."""
        assert self._kind is not None
        fallback = f"upload{self._kind.extension}"
        return StoredFile(
            name=clean_name(self._raw_name, fallback),
            media_type=self._kind.media_type,
            size_bytes=self._payload.size_bytes,
            sha256=store.add(self._payload),
        )


class _Form:
    """Multipart events in, files and fields out. Part names of files are free; order counts."""

    def __init__(self, payloads: ExitStack, store: ArtifactStore, rules: UploadRules) -> None:
        self.fields: list[tuple[str, str]] = []
        self._payloads = payloads
        self._store = store
        self._rules = rules
        self._files: list[_ArrivingFile] = []
        self._file: _ArrivingFile | None = None
        self._field: tuple[str, bytearray] | None = None
        self._preamble_bytes = 0

    def take(self, event: Segment | bytes | None) -> None:
        """One event of the parser: the head of a part, some of its bytes, or its end."""
        if isinstance(event, Segment):
            self._begin(event)
        elif event is None:
            self._end()
        elif self._file is not None:
            self._file.write(event)
        elif self._field is not None:
            name, text = self._field
            text += event
            if len(text) > LONGEST_FIELD_BYTES:
                raise PayloadTooLarge(
                    f"The form field {shown(name)} is longer than {LONGEST_FIELD_BYTES} bytes.",
                    next_step="Send a file as a part with a filename, as curl -F image=@a.png does.",
                )

    def check_preamble(self, chunk_bytes: int) -> None:
        """Raises InvalidRequest when no part has begun after PREAMBLE_BYTES of body."""
        if self._preamble_bytes < PREAMBLE_BYTES and not (self._files or self.fields):
            self._preamble_bytes += chunk_bytes
            if self._preamble_bytes >= PREAMBLE_BYTES and not (self._file or self._field):
                raise InvalidRequest(
                    "The multipart body does not begin with the boundary of its Content-Type.",
                    code="malformed_multipart",
                )

    def files(self) -> list[_ArrivingFile]:
        """The files of a form that has ended. Raises InvalidUpload when there is none."""
        if not self._files:
            raise InvalidUpload(
                "The form has no file.",
                code="no_file",
                next_step="Add one as a part with a filename: curl -F image=@a.png.",
            )
        return self._files

    def _begin(self, part: Segment) -> None:
        name = part.name or ""
        if part.header("Content-Transfer-Encoding", "binary").lower() not in ("binary", "8bit"):
            raise InvalidRequest(
                f"The part {shown(name)} has a Content-Transfer-Encoding; forms carry plain bytes.",
                code="malformed_multipart",
            )
        if part.filename is None and part.content_type in (None, "text/plain"):
            if len(self.fields) == MOST_FIELDS:
                raise PayloadTooLarge(f"The form has more than {MOST_FIELDS} fields.")
            self._field = (name, bytearray())
            return
        if len(self._files) == self._rules.max_files:
            raise InvalidUpload(
                f"The form has more than {self._rules.max_files} "
                f"file{'s' if self._rules.max_files > 1 else ''}; that is the most for one job.",
                code="too_many_files",
            )
        where = f"File {len(self._files) + 1} (part {shown(name)}, {shown(part.filename or '')})"
        payload = self._payloads.enter_context(self._store.incoming())
        self._file = _ArrivingFile(payload, part.filename, self._rules, where)

    def _end(self) -> None:
        if self._file is not None:
            if not self._file.absent:
                self._file.check()
                self._files.append(self._file)
            self._file = None
        elif self._field is not None:
            name, text = self._field
            try:
                self.fields.append((name, text.decode()))
            except UnicodeDecodeError:
                raise InvalidRequest(
                    f"The form field {shown(name)} is not UTF-8 text.",
                    code="malformed_multipart",
                    next_step="Send a file as a part with a filename: curl -F image=@a.png.",
                ) from None
            self._field = None


async def _body(
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


def _boundary(request: Request) -> str:
    boundary = parse_options_header(request.headers["content-type"])[1].get("boundary", "")
    if not 1 <= len(boundary) <= 70:  # RFC 2046
        raise InvalidRequest(
            "The Content-Type multipart/form-data has no valid boundary (1 to 70 characters).",
            code="malformed_multipart",
            next_step="Leave the Content-Type to your HTTP client, as curl -F does.",
        )
    return str(boundary)


def _check_free(store: ArtifactStore, rules: UploadRules, coming_bytes: int) -> None:
    free = store.free_bytes()
    if free - coming_bytes < rules.min_free_bytes:
        raise InsufficientStorage(
            f"{free} bytes of disk are free; this upload needs {coming_bytes} and "
            f"{rules.min_free_bytes} must stay free.",
            next_step="Retry later, or free space where MESHPRESS_DATA_DIR lies.",
        )


@contextmanager
def _full_disk_is_507() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise InsufficientStorage(
            "The disk filled up while the upload arrived; nothing of it was kept.",
            next_step="Retry later, or free space where MESHPRESS_DATA_DIR lies.",
        ) from error


def _empty_body(rules: UploadRules) -> InvalidRequest:
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
