"""Where a result goes: a file of the right format, written whole or not at all, or stdout.

Knows no pipeline; formats are the endings of a pipeline's artifact names.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.context import Artifact
from service.cli.files import obj_companions, place_copy, place_members, place_obj
from service.cli.refused import Refused

ENDINGS = {  # of formats whose files end otherwise than in ".<format>"; longer endings first
    "obj": (".obj", ".obj.zip"),
    "lod": ("lod-meta.json", ".lod.zip"),
    "loose": ("meta.json", ".loose.zip"),
    "compressed": (".compressed.ply",),
    "splat": (".splat.ply",),
}
UNPACKED = {"lod": "lod-meta.json", "loose": "meta.json"}
"""Formats of many files: naming the one that describes the others unpacks them beside it."""

MEMBERS = {  # what lies beside the file of UNPACKED, as patterns
    "lod": ("[0-9]*_[0-9]*",),
    "loose": ("means_[lu].webp", "scales.webp", "quats.webp", "sh0.webp", "shN_*s.webp"),
}

OPEN_WITH = {
    "glb": "Blender (File > Import > glTF 2.0) or any glTF viewer",
    "obj": "Blender (File > Import > Wavefront) or any mesh editor",
    "ply": "MeshLab or Blender (File > Import > Stanford PLY)",
    "stl": "a slicer or Blender (File > Import > STL)",
    "splat": "the SuperSplat editor (superspl.at/editor) or any viewer of 3-D Gaussians",
    "compressed": "PlayCanvas: the SuperSplat editor or the engine",
    "spz": "a viewer that reads SPZ",
    "loose": "the PlayCanvas engine: load its meta.json",
    "lod": "the PlayCanvas engine: load its lod-meta.json",
    "sog": "PlayCanvas: the SuperSplat editor (superspl.at/editor) or the engine",
}


@dataclass(frozen=True)
class Target:
    """One requested result. path is None for stdout."""

    path: Path | None
    format: str

    @property
    def is_loose_obj(self) -> bool:
        """`.obj` is written as files that lie beside each other, `.obj.zip` as one."""
        return self.path is not None and self.path.suffix.lower() == ".obj"

    @property
    def is_unpacked(self) -> bool:
        """`meta.json` and `lod-meta.json` are written with the files they name, `.zip` as one."""
        return self.path is not None and self.path.name == UNPACKED.get(self.format)

    def check(self, overwrite: bool) -> None:
        """Refuse, before any work is done, what could not be written after it."""
        if self.path is None:
            if sys.stdout.isatty():
                raise Refused(
                    "The result is binary and stdout is a terminal; name a file or use a pipe."
                )
            return
        folder = self.path.parent
        if not folder.is_dir():
            raise Refused(f"{self.path}: the folder {folder} does not exist.")
        if not os.access(folder, os.W_OK):
            raise Refused(f"{self.path}: the folder {folder} is not writable.")
        if self.path.is_dir():
            raise Refused(f"{self.path} is a folder; name a file in it.")
        companions: list[Path] = []
        if self.is_loose_obj:
            companions = list(obj_companions(self.path).values())
        elif self.is_unpacked:
            patterns = MEMBERS[self.format]
            companions = sorted(path for pattern in patterns for path in folder.glob(pattern))
        for path in (self.path, *companions):
            if path.exists() and not overwrite:
                raise Refused(f"{path} exists; add -w to overwrite it.")

    def write(self, artifact: Artifact) -> list[Path]:
        """Put the artifact in its place; returns the files written, the main one first."""
        if self.path is None:
            with artifact.path.open("rb") as source:
                shutil.copyfileobj(source, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return []
        if self.is_loose_obj:
            return place_obj(artifact.path, self.path)
        if self.is_unpacked:
            return place_members(artifact.path, self.path)
        place_copy(artifact.path, self.path)
        return [self.path]


def parse_target(text: str, formats: Sequence[str], default: str) -> Target:
    """`out.glb`, or `-` for stdout in the `default` format."""
    if text == "-":
        return Target(None, default)
    name = Path(text).name.lower()
    endings = {end: form for form in formats for end in ENDINGS.get(form, (f".{form}",))}
    for ending in sorted(endings, key=len, reverse=True):  # .compressed.ply before .ply
        # A file that others look for by its name has that name, in lower case.
        if Path(text).name == ending or (ending[0] == "." and name.endswith(ending)):
            return Target(Path(text), endings[ending])
    allowed = ", ".join(endings)
    raise Refused(f"{text}: the format follows the ending, one of {allowed}.")
