"""Which of a pipeline's artifacts the client accepts: Accept headers against artifact types.

Knows media types, no request and no job.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import NotAcceptable
from service.http.problems import shown
from service.jobs.records import StoredFile
from service.pipelines import format_of

# An artifact's format, the second word of its name, to what clients may call it; the first is
# what documentation shows. application/octet-stream fits every format.
FORMAT_TYPES: dict[str, tuple[str, ...]] = {
    "glb": ("model/gltf-binary",),
    "obj": ("application/zip", "model/obj"),
    "ply": ("application/ply", "model/ply", "application/x-ply"),
    "stl": ("model/stl", "application/sla"),
    "splat": ("application/ply", "model/ply"),
    "loose": ("application/zip",),
    "lod": ("application/zip",),
    "compressed": ("application/ply", "model/ply"),
    "spz": ("application/octet-stream",),
    "sog": ("application/zip", "application/vnd.gaussian-splat"),
}
ANY_BINARY = "application/octet-stream"


def choose_format(accept: str, formats: Sequence[str]) -> str:
    """The format of `formats` (best first) that an Accept header likes most.

    Raises NotAcceptable naming what there is.
    """
    best, best_quality = "", 0.0
    ranges = _parse(accept)
    for name in formats:
        types = (*FORMAT_TYPES.get(name, ()), ANY_BINARY)
        quality = max(_quality(ranges, media_type) for media_type in types)
        if quality > best_quality:
            best, best_quality = name, quality
    if best_quality > 0:
        return best
    offered = ", ".join(f"{FORMAT_TYPES.get(name, (ANY_BINARY,))[0]} ({name})" for name in formats)
    raise NotAcceptable(
        f"Accept: {shown(accept)} fits nothing this request can produce: {offered}.",
        next_step="Send Accept: */*, or one of these types.",
    )


def accepts_json_only(accept: str) -> bool:
    """True when the client asks for JSON and for no file: it wants the job, not its bytes."""
    wanted = {name for name, quality in _parse(accept) if quality}
    return wanted == {"application/json"}


def pick_artifact(artifacts: Sequence[StoredFile], wanted_format: str) -> StoredFile:
    """The artifact of that format, else the main one."""
    for artifact in artifacts:
        if format_of(artifact.name) == wanted_format:
            return artifact
    return artifacts[0]


def _parse(accept: str) -> list[tuple[str, float]]:
    """(media range, quality) of each element; a quality that does not parse counts as 1."""
    ranges = []
    for element in accept.split(","):
        name, *parameters = (part.strip().lower() for part in element.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = min(max(float(parameter[2:]), 0.0), 1.0)
                except ValueError:
                    continue
        if name:
            ranges.append((name, quality))
    return ranges or [("*/*", 1.0)]


def _quality(ranges: list[tuple[str, float]], media_type: str) -> float:
    """The quality of the most specific range that covers `media_type`; 0 when none does."""
    for candidate in (media_type, media_type.split("/")[0] + "/*", "*/*"):
        for name, quality in ranges:
            if name == candidate:
                return quality
    return 0.0
