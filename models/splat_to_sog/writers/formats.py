"""The table of formats that are written: name, suffix, media type, options, and the writer's path.

Does not import a writer: listing the formats costs no array library, so the command line may.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.context import InvalidInput
from models.splat_to_sog.filenames import LOD_META, META
from models.splat_to_sog.options import SogOptions


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlyOptions(_Options):
    """How a 3DGS .ply is written."""

    normals: Annotated[
        bool, Field(description="Write nx ny nz (zeros), which some old viewers insist on.")
    ] = False


class CompressedPlyOptions(_Options):
    """How a .compressed.ply is written: the format leaves nothing to choose."""


class SpzOptions(_Options):
    """How an .spz is written."""

    version: Annotated[
        Literal[3, 4],
        Field(description="3: one gzip stream, read everywhere; 4: zstd streams, smaller."),
    ] = 3
    sh_bits: Annotated[
        Literal["5/4", "8"],
        Field(description="Bits of a harmonic: 5 in band 1 and 4 above, as is usual, or 8."),
    ] = "5/4"
    fractional_bits: Annotated[
        int | None,
        Field(
            ge=0,
            le=23,
            description="Bits of a position below the unit; default: 12, more for a tiny scene, "
            "fewer for one that does not fit.",
        ),
    ] = None


class StreamedOptions(_Options):
    """How a streamed SOG is cut into chunks; `sog` says how each is encoded."""

    chunk_splats: Annotated[
        int, Field(ge=1, le=1 << 24, description="Most splats in one chunk and under one leaf.")
    ] = 512 * 1024
    leaf_extent: Annotated[
        float, Field(gt=0, description="Leaves wider than this, in scene units, are split.")
    ] = 16.0
    leaf_splats: Annotated[
        int, Field(ge=1, description="Leaves of no more splats are not split for their extent.")
    ] = 8 * 1024
    errors: Annotated[
        bool,
        Field(description="Render every leaf at every level to tell viewers what detail is worth."),
    ] = False
    sog: SogOptions = SogOptions()


@dataclass(frozen=True)
class Format:
    """suffixes: the ends of a file name that mean this format; writer: "module:function".

    A format of several files has a second suffix, under which they are one archive.
    """

    suffixes: tuple[str, ...]
    media_type: str
    options: type[BaseModel]
    writer: str


_HERE = "models.splat_to_sog.writers"
_BINARY = "application/octet-stream"  # what has no registered media type

FORMATS = {
    "sog": Format((".sog",), "application/zip", SogOptions, f"{_HERE}.sog:write_sog"),
    "loose": Format(
        (META, ".loose.zip"), "application/json", SogOptions, f"{_HERE}.sog:write_loose"
    ),
    "lod": Format(
        (LOD_META, ".lod.zip"),
        "application/json",
        StreamedOptions,
        f"{_HERE}.streamed:write_one_level",
    ),
    "compressed": Format(
        (".compressed.ply",),
        _BINARY,
        CompressedPlyOptions,
        f"{_HERE}.compressed_ply:write_compressed_ply",
    ),
    "ply": Format((".ply",), _BINARY, PlyOptions, f"{_HERE}.ply:write_ply"),
    "spz": Format((".spz",), _BINARY, SpzOptions, f"{_HERE}.spz:write_spz"),
}

ARCHIVE = ".zip"


def format_of(path: Path) -> str:
    """The format a file name asks for, by its longest suffix that is known."""
    name = path.name.lower()
    suffixes = {suffix: key for key, known in FORMATS.items() for suffix in known.suffixes}
    fitting = [suffix for suffix in suffixes if name.endswith(suffix)]
    if not fitting:
        raise InvalidInput(
            f"{path.name}: no format is written under this name; known are {', '.join(suffixes)}.",
            code="splat_type",
            next_step="Name the output with one of these endings.",
        )
    return suffixes[max(fitting, key=len)]
