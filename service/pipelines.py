"""The literal table of pipelines: name, task, inputs, options model, loader path, artifacts, needs.

Never imports a pipeline: the runner resolves `loader` in its own process. Importing this module
costs a few small pydantic models. Adding one is an entry here, and its place in AUTO_ORDER.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel

from models.image_to_mesh.options import (
    Direct3DS2Options,
    EmbeddedOptions,
    ReconViaGenOptions,
    TrellisOptions,
)
from models.splat_to_sog.pipeline_options import SplatOptions
from models.weights.catalogue import CATALOGUE, WeightEntry
from models.weights.store import Missing, missing
from service.errors import NotFound, PipelineUnavailable

GIB = 1 << 30
Options = Mapping[str, Any]
NO_OPTIONS: Options = {}


@dataclass(frozen=True)
class OptionNeed:
    """What `option=value` takes beyond its pipeline's own packages and weights."""

    option: str
    value: str
    packages: tuple[str, ...]
    extra: str
    weights: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.option}={self.value}"


@dataclass(frozen=True)
class PipelineEntry:
    """One pipeline as the service sees it.

    task:         what the user asks for: "mesh" or "splat"; the URL's last word
    loader:       "module:function"; `function(device)` returns a models.context.Pipeline
    inputs:       (fewest, most) files
    media_types:  what the inputs may be; the pipeline itself looks at the bytes
    artifacts:    what it can write; the second word of a name is its format
    splats:       the one of them that the splat task takes as its input: asking for a format of
                  that task makes a job of two steps; empty: none
    needs:        what it wants beyond the base install, for humans; empty = runs anywhere
    packages:     what must be importable; `extra` of our distribution brings them
    weights:      names in the catalogue of `models.weights`, without which it cannot run
    option_needs: what single values of its options take beyond that
    memory_bytes: what a GPU must have, with all that can be off-loaded off the card; 0 = no GPU
    best_with:    (fewest, most) files for which `pipeline=auto` may take it
    """

    name: str
    task: str
    summary: str
    loader: str
    options: type[BaseModel]
    inputs: tuple[int, int]
    media_types: tuple[str, ...]
    artifacts: tuple[str, ...]
    splats: str = ""
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    extra: str = ""
    weights: tuple[str, ...] = ()
    option_needs: tuple[OptionNeed, ...] = ()
    memory_bytes: int = 0
    best_with: tuple[int, int] = (0, 1 << 16)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats it can write, the default first."""
        return tuple(format_of(name) for name in self.artifacts)

    def weight_entries(self) -> tuple[WeightEntry, ...]:
        """All weights it can use, as the catalogue describes them; some are optional."""
        return tuple(
            entry
            for entry in CATALOGUE
            if entry.name in self.weights or (entry.optional and self.name in entry.pipelines)
        )

    def lacks(self, options: Options = NO_OPTIONS) -> Iterator[Missing]:
        """What keeps it from running here, each with the command that mends it.

        options: of a request; without them, what they need is not missed

        Asked anew each time: packages and weights may come and go while a service runs.
        """
        asked = self._asked(options)
        wanted = [(self.packages, self.extra), *((need.packages, need.extra) for need in asked)]
        for packages, extra in dict.fromkeys(wanted):
            absent = [name for name in packages if find_spec(name) is None]
            if absent:
                words = f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed"
                yield Missing(words, f'pip install "meshpress[{extra}]"')
        weights = [*self.weights, *(name for need in asked for name in need.weights)]
        if (lack := missing(weights)) is not None:
            yield lack

    def unavailable_reason(self) -> str:
        """Why this pipeline cannot run on this machine, with what to do; empty when it can."""
        return " ".join(f"{lack}." for lack in self.lacks())

    def check_available(self, options: Options = NO_OPTIONS) -> None:
        """Raises PipelineUnavailable with the reason, and the command to run as its next step."""
        lacks = list(self.lacks(options))
        if not lacks:
            return
        reasons = ". ".join(lack.reason for lack in lacks)
        command = " && ".join(lack.command for lack in lacks)
        next_step = f"Run `{command}` on this machine; nothing has to be restarted."
        # Where it can run, but not so: which options it is.
        unmet = [
            need for need in self._asked(options) if any(self.lacks({need.option: need.value}))
        ]
        unmet = [] if any(self.lacks()) else unmet
        so = f" with {' and '.join(map(str, unmet))}" if unmet else ""
        if unmet:
            next_step += f" Or choose another {' and '.join(need.option for need in unmet)}."
        raise PipelineUnavailable(
            f"Pipeline {self.name!r} cannot run here{so}. {reasons}.",
            next_step=next_step,
            details={"pipeline": self.name, "command": command},
        )

    def _asked(self, options: Options) -> list[OptionNeed]:
        return [need for need in self.option_needs if options.get(need.option) == need.value]


IMAGES = ("image/png", "image/jpeg", "image/webp")
MESHES = ("mesh.glb", "mesh.obj.zip", "mesh.ply", "mesh.stl")
SPLATS = (
    "application/octet-stream",
    "application/ply",
    "model/ply",
    "application/x-ply",
    "application/vnd.gaussian-splat",
    "application/zip",
    "application/gzip",
)

BIREFNET = OptionNeed("mask", "birefnet", ("torch", "safetensors"), "torch", ("birefnet",))
DRACO = OptionNeed("compression", "draco", ("DracoPy",), "draco")

DIRECT3D_S2 = PipelineEntry(
    name="direct3d_s2",
    task="mesh",
    summary="Direct3D-S2: one image to a shape as fine as 1024 voxels along an edge, coloured "
    "by what the image shows.",
    loader="models.image_to_mesh.direct3d_s2.pipeline:load",
    options=Direct3DS2Options,
    inputs=(1, 1),
    media_types=IMAGES,
    artifacts=MESHES,
    needs=("An NVIDIA GPU with 12 GB; on a CPU it takes many minutes.",),
    packages=("torch", "safetensors"),
    extra="torch",
    weights=("direct3d-s2-v1-1", "dinov2-large-registers"),
    option_needs=(BIREFNET, DRACO),
    memory_bytes=11 * GIB,  # off-loaded it takes 10.4 GB at 1024
)

PIPELINES: tuple[PipelineEntry, ...] = (
    PipelineEntry(
        name="embedded",
        task="mesh",
        summary="Silhouettes to a closed, textured mesh in about a second; no weights, no GPU.",
        loader="models.image_to_mesh.pipeline:load",
        options=EmbeddedOptions,
        inputs=(1, 16),
        media_types=IMAGES,
        artifacts=MESHES,
        option_needs=(BIREFNET,),
    ),
    PipelineEntry(
        name="trellis",
        task="mesh",
        summary="TRELLIS-image: networks imagine the whole object, unseen sides too, as a textured "
        "mesh, as Gaussians, or as both.",
        loader="models.image_to_mesh.trellis.pipeline:load",
        options=TrellisOptions,
        inputs=(1, 16),
        media_types=IMAGES,
        artifacts=(*MESHES, "scene.splat.ply"),
        splats="scene.splat.ply",
        needs=("An NVIDIA GPU with 8 GB; on a CPU it takes many minutes.",),
        packages=("torch", "safetensors"),
        extra="torch",
        weights=("trellis-image-large", "dinov2-large-registers"),
        option_needs=(BIREFNET, DRACO),
        memory_bytes=7 * GIB,  # off-loaded it takes 5.7 GB; a card of 8 GB shows less than 8 GiB
    ),
    PipelineEntry(
        name="reconviagen",
        task="mesh",
        summary="ReconViaGen: photos from all around, their cameras unknown, to a textured mesh, "
        "Gaussians, or both; the cameras are in the report.",
        loader="models.image_to_mesh.reconviagen.pipeline:load",
        options=ReconViaGenOptions,
        inputs=(1, 16),
        media_types=IMAGES,
        artifacts=(*MESHES, "scene.splat.ply"),
        splats="scene.splat.ply",
        needs=("An NVIDIA GPU with 10 GB; on a CPU it takes many minutes.",),
        packages=("torch", "safetensors"),
        extra="torch",
        weights=("reconviagen-v0-2", "vggt-object-v0-1", "dinov2-large-registers"),
        option_needs=(BIREFNET, DRACO),
        memory_bytes=9 * GIB,  # off-loaded 16 photos take 7.2 GB
        best_with=(2, 16),
    ),
    DIRECT3D_S2,
    replace(
        DIRECT3D_S2,
        name="direct3d_s2_v1_0",
        summary="Direct3D-S2's first release: the same with its earlier attention, and slower.",
        loader="models.image_to_mesh.direct3d_s2.pipeline:load_v1_0",
        weights=("direct3d-s2-v1-0", "dinov2-large-registers"),
    ),
    PipelineEntry(
        name="sog",
        task="splat",
        summary="Gaussian splats, one file or several as one scene, to a SOG or any other format.",
        loader="models.splat_to_sog.pipeline:load",
        options=SplatOptions,
        inputs=(1, 64),
        media_types=SPLATS,
        artifacts=(
            "scene.sog",
            "scene.loose.zip",
            "scene.lod.zip",
            "scene.ply",
            "scene.compressed.ply",
            "scene.spz",
        ),
    ),
)

FALLBACK: Mapping[str, str] = {"mesh": "embedded", "splat": "sog"}
"""What runs everywhere: the pipeline of a task where nothing better can run."""

AUTO = "auto"
AUTO_ORDER: Mapping[str, tuple[str, ...]] = {
    "mesh": ("reconviagen", "trellis", "direct3d_s2", "embedded"),
    "splat": ("sog",),
}
"""The best first; see `service.choice`."""


def find_pipeline(
    task: str, name: str | None = None, table: tuple[PipelineEntry, ...] = PIPELINES
) -> PipelineEntry:
    """The task's pipeline of that name, or its fallback. Raises NotFound listing the names."""
    wanted = name or FALLBACK[task]
    for entry in table:
        if entry.task == task and entry.name == wanted:
            return entry
    names = ", ".join((AUTO, *(entry.name for entry in table if entry.task == task)))
    raise NotFound(
        f"There is no {task} pipeline named {wanted!r}.",
        code="pipeline_not_found",
        next_step=f"Use one of: {names}. GET /v1/pipelines describes them.",
    )


def follower(
    entry: PipelineEntry, table: tuple[PipelineEntry, ...] = PIPELINES
) -> PipelineEntry | None:
    """The pipeline that can go on from this one's Gaussians; None when it makes none."""
    if not entry.splats:
        return None
    return next((other for other in table if other.name == FALLBACK["splat"]), None)


def all_formats(
    entry: PipelineEntry, table: tuple[PipelineEntry, ...] = PIPELINES
) -> tuple[str, ...]:
    """What a request that names this pipeline may ask for: its own formats, then those of the step
    after it."""
    then = follower(entry, table)
    later = then.formats if then is not None else ()
    return tuple(dict.fromkeys((*entry.formats, *later)))


def format_of(artifact_name: str) -> str:
    """ "mesh.obj.zip" -> "obj"."""
    words = artifact_name.split(".")
    return words[1] if len(words) > 1 else ""
