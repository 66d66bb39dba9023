"""Which file is this: what the first bytes say, and what each task takes.

A look at the door only; whether the rest of the file keeps its promise is the pipeline's to find
out. Names and Content-Types are claims, the bytes decide.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD_BYTES = 16  # enough for every signature below


@dataclass(frozen=True)
class FileKind:
    """A kind of file: name for messages, media type, extension, signatures (offset, bytes).

    A kind without signatures is known by its extension alone, and only where nothing else fits.
    """

    name: str
    media_type: str
    extension: str
    signatures: tuple[tuple[int, bytes], ...]
    every: bool = False  # all signatures must be there, not just one

    def matches(self, head: bytes) -> bool:
        if not self.signatures:
            return False
        found = (head[at : at + len(magic)] == magic for at, magic in self.signatures)
        return all(found) if self.every else any(found)


PNG = FileKind("PNG", "image/png", ".png", ((0, b"\x89PNG\r\n\x1a\n"),))
JPEG = FileKind("JPEG", "image/jpeg", ".jpg", ((0, b"\xff\xd8\xff"),))
WEBP = FileKind("WebP", "image/webp", ".webp", ((0, b"RIFF"), (8, b"WEBP")), every=True)
PLY = FileKind("PLY", "application/ply", ".ply", ((0, b"ply\n"), (0, b"ply\r"), (0, b"ply ")))
SPZ = FileKind("SPZ", "application/octet-stream", ".spz", ((0, b"NGSP"),))
GZIP = FileKind("gzip (SPZ)", "application/gzip", ".spz", ((0, b"\x1f\x8b"),))
KSPLAT = FileKind("KSPLAT", "application/octet-stream", ".ksplat", ((0, b"\x00\x01"),))
SPLAT = FileKind("SPLAT", "application/octet-stream", ".splat", ())
ZIP = FileKind("ZIP (SOG)", "application/zip", ".sog", ((0, b"PK\x03\x04"),))

TASK_KINDS: dict[str, tuple[FileKind, ...]] = {
    "mesh": (PNG, JPEG, WEBP),
    "splat": (PLY, SPZ, GZIP, ZIP, KSPLAT, SPLAT),
}
TASK_ACCEPTS = {
    "mesh": "PNG, JPEG or WebP",
    "splat": "PLY (.ply, .compressed.ply), SPZ (.spz), a SOG bundle (.sog, or a ZIP of loose or "
    "streamed SOG), .ksplat, or .splat (which has no signature: send its name)",
}

# Only for messages: what people send by mistake.
_MISTAKEN: tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...] = (
    ("a GIF image", ((0, b"GIF8"),)),
    ("a TIFF image", ((0, b"II*\x00"), (0, b"MM\x00*"))),
    ("a BMP image", ((0, b"BM"),)),
    ("a HEIC, AVIF or MP4 file", ((4, b"ftyp"),)),
    ("an OpenEXR image", ((0, b"v/1\x01"),)),
    ("a PDF", ((0, b"%PDF"),)),
    ("a binary glTF", ((0, b"glTF"),)),
    ("an empty ZIP archive", ((0, b"PK\x05\x06"),)),
    ("a zstd stream", ((0, b"\x28\xb5\x2f\xfd"),)),
    ("a RIFF file that is not WebP", ((0, b"RIFF"),)),
    ("JSON", ((0, b"{"), (0, b"["))),
    ("HTML or XML", ((0, b"<"),)),
    ("a data URL; send the decoded bytes", ((0, b"data:"),)),
    ("base64 text of a PNG; send the decoded bytes", ((0, b"iVBORw0KGgo"),)),
    ("base64 text of a JPEG; send the decoded bytes", ((0, b"/9j/"),)),
)

_LONG_SIGNATURES = tuple(
    signatures
    for signatures in (
        *(kind.signatures for kinds in TASK_KINDS.values() for kind in kinds),
        *(signatures for _, signatures in _MISTAKEN),
    )
    if signatures and min(len(magic) for _, magic in signatures) >= 4
)


def find_kind(head: bytes, kinds: tuple[FileKind, ...]) -> FileKind | None:
    """The kind whose signature `head`, the first HEAD_BYTES bytes or all there are, carries."""
    return next((kind for kind in kinds if kind.matches(head)), None)


def find_named(head: bytes, name: str, kinds: tuple[FileKind, ...]) -> FileKind | None:
    """The kind without a signature whose extension `name` has, unless the bytes are clearly
    something else: raw floats may begin with any one or two bytes, so only long signatures tell."""
    if any(_fits(head, long) for long in _LONG_SIGNATURES):
        return None
    for kind in kinds:
        if not kind.signatures and name.lower().endswith(kind.extension):
            return kind
    return None


def task_of(media_type: str) -> str:
    """The task that takes files of this media type, one of TASK_KINDS'."""
    return next(
        task
        for task, kinds in TASK_KINDS.items()
        if any(kind.media_type == media_type for kind in kinds)
    )


def describe(head: bytes) -> str:
    """What a file starts with, in words: a known type, text, or its first bytes in hex."""
    for kinds in TASK_KINDS.values():
        if kind := find_kind(head, kinds):
            return f"a {kind.name} file"
    for words, signatures in _MISTAKEN:
        if _fits(head, signatures):
            return words
    if head and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head):
        return f"text beginning {head.decode('ascii')!r}"
    return f"bytes beginning {head[:8].hex(' ')}"


def _fits(head: bytes, signatures: tuple[tuple[int, bytes], ...]) -> bool:
    return any(head[at : at + len(magic)] == magic for at, magic in signatures)
