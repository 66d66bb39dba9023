"""Names users give to files: read from headers, made harmless, shown in headers again.

A name is a label for messages and downloads. It is never joined to a path.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, unquote

from multipart import parse_content_disposition

LONGEST_NAME = 120  # characters; file systems that clients save to allow 255 bytes

_EXTENDED = re.compile(r"filename\*\s*=\s*(?:utf-8|iso-8859-1)'[^']*'([^;\s]+)", re.IGNORECASE)


def clean_name(raw: str | None, fallback: str) -> str:
    """The last component of `raw` without control characters; `fallback` when nothing is left."""
    last = re.split(r"[/\\]", raw or "")[-1]
    kept = "".join(char for char in last if unicodedata.category(char)[0] != "C")
    kept = kept.replace('"', "'").strip().lstrip(".").strip()
    if len(kept) > LONGEST_NAME:  # the end says what it is
        kept = kept[: LONGEST_NAME - 24] + "…" + kept[-23:]
    return kept or fallback


def name_from_headers(x_filename: str | None, content_disposition: str | None) -> str | None:
    """The raw name a request gives its body: X-Filename (may be percent-encoded), else
    Content-Disposition (`filename*` before `filename`)."""
    if x_filename:
        return unquote(x_filename)
    if not content_disposition:
        return None
    if found := _EXTENDED.search(content_disposition):
        return unquote(found.group(1))
    found_name: str | None = parse_content_disposition(content_disposition)[2]
    return found_name


def attachment(name: str) -> str:
    """A Content-Disposition that makes browsers save under `name` (RFC 6266)."""
    ascii_name = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    header = f'attachment; filename="{ascii_name}"'
    if ascii_name != name:
        header += f"; filename*=UTF-8''{quote(name, safe='')}"
    return header
