"""multipart/form-data: the parser's events into files and fields, in the order they came.

Knows no request and no limit on the whole body; part names of files are free, their order counts.
"""

from __future__ import annotations

from contextlib import ExitStack

from multipart import MultipartSegment, parse_options_header

from service.errors import InvalidRequest, InvalidUpload, PayloadTooLarge
from service.http.arriving import ArrivingFile
from service.http.body import UploadRules
from service.http.problems import shown
from service.storage.artifacts import ArtifactStore

MOST_FIELDS = 64
LONGEST_FIELD_BYTES = 16 << 10
PREAMBLE_BYTES = 64 << 10  # a boundary that has not appeared by then is the wrong one
LONGEST_BOUNDARY = 70  # RFC 2046


def read_boundary(content_type: str) -> str:
    boundary = parse_options_header(content_type)[1].get("boundary", "")
    if not 1 <= len(boundary) <= LONGEST_BOUNDARY:
        raise InvalidRequest(
            "The Content-Type multipart/form-data has no valid boundary (1 to 70 characters).",
            code="malformed_multipart",
            next_step="Leave the Content-Type to your HTTP client, as curl -F does.",
        )
    return str(boundary)


class Form:
    """Multipart events in, files and fields out."""

    def __init__(self, payloads: ExitStack, store: ArtifactStore, rules: UploadRules) -> None:
        self.fields: list[tuple[str, str]] = []
        self._payloads = payloads
        self._store = store
        self._rules = rules
        self._files: list[ArrivingFile] = []
        self._file: ArrivingFile | None = None
        self._field: tuple[str, bytearray] | None = None
        self._preamble_bytes = 0

    def take(self, event: MultipartSegment | bytes | None) -> None:
        """One event of the parser: the head of a part, some of its bytes, or its end."""
        if isinstance(event, MultipartSegment):
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
                    next_step="Send a file as a part with a filename: curl -F image=@a.png.",
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

    def files(self) -> list[ArrivingFile]:
        """The files of a form that has ended. Raises InvalidUpload when there is none."""
        if not self._files:
            raise InvalidUpload(
                "The form has no file.",
                code="no_file",
                next_step="Add one as a part with a filename: curl -F image=@a.png.",
            )
        return self._files

    def _begin(self, part: MultipartSegment) -> None:
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
        self._file = ArrivingFile(payload, part.filename, self._rules, where)

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
