"""A request's body into the artifact store: a raw file, or a form with files and fields.

Knows no job and no option. Whatever ends the upload early (client gone, limit, wrong bytes, full
disk) leaves nothing behind: a payload's temporary file goes with its context.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass

import anyio.to_thread
from fastapi import Request
from multipart import MultipartError, PushMultipartParser

from service.errors import InvalidRequest
from service.http.arriving import ArrivingFile
from service.http.body import UploadRules, empty_body, full_disk_is_507, is_form, read_body
from service.http.filenames import name_from_headers
from service.http.forms import Form, read_boundary
from service.jobs.records import StoredFile
from service.storage.artifacts import ArtifactStore


@dataclass(frozen=True)
class Upload:
    """files: in the order they came. fields: (name, text) of a form, in order."""

    files: tuple[StoredFile, ...]
    fields: tuple[tuple[str, str], ...] = ()


async def receive_upload(request: Request, store: ArtifactStore, rules: UploadRules) -> Upload:
    """Stream the body into the store; call `check_headers` first.

    Raises InvalidRequest and its kin, InsufficientStorage, and ClientDisconnect.
    """
    chunks = read_body(request, store, rules)
    with full_disk_is_507():
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
        file = ArrivingFile(payload, raw_name, rules, where="The body")
        async for chunk in chunks:
            file.write(chunk)
        if not payload.size_bytes:
            raise empty_body(rules)
        file.check()
        return Upload((await anyio.to_thread.run_sync(file.store_in, store),))


async def _receive_form(
    request: Request, chunks: AsyncIterator[bytes], store: ArtifactStore, rules: UploadRules
) -> Upload:
    with ExitStack() as payloads:
        form = Form(payloads, store, rules)
        try:
            parser = PushMultipartParser(
                read_boundary(request.headers["content-type"]), max_header_size=8192
            )
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
