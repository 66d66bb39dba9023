"""A network's coloured mesh, finished and written in the formats asked for.

Knows no network: what a pipeline decodes comes in, what it hands out goes to its folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from models.context import Artifact, JsonValue, check_cancelled
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.export import export
from models.image_to_mesh.finishing.finish import FinishOptions, finish
from models.image_to_mesh.finishing.visibility import View
from models.image_to_mesh.options import NetworkOptions
from models.image_to_mesh.stopwatch import Stopwatch

MESH_FORMATS = ("glb", "obj", "ply", "stl")


@dataclass(frozen=True)
class ViewedMesh:
    """A mesh and the pictures to paint it with; facts and warnings for the report."""

    mesh: ColouredMesh
    views: Sequence[View] = ()
    facts: dict[str, JsonValue] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def mesh_formats(formats: Sequence[str]) -> list[str]:
    """Those of the formats that are a mesh, in their order, each once."""
    return [name for name in dict.fromkeys(formats) if name in MESH_FORMATS]


def deliver(
    mesh: ColouredMesh,
    options: NetworkOptions,
    watch: Stopwatch,
    share: tuple[float, float],  # of the whole pipeline: where finishing begins and ends
    *,
    views: Sequence[View] = (),
) -> tuple[list[Artifact], dict[str, JsonValue], list[str]]:
    """The mesh formats of `options.formats`; facts for the report; warnings.

    A job that is cancelled ends between two stages, or two parts of a long one. Raises Unavailable
    where the compression needs a package that is not here.
    """
    begun = 0

    def stage(name: str) -> None:
        """Each stage takes half of what is left: their number is finishing's own affair."""
        nonlocal begun
        watch.stage(name, share[1] - (share[1] - share[0]) * 0.5**begun)
        begun += 1

    context = watch.context
    settings = FinishOptions(
        options.faces,
        options.texture_size,
        options.normal_map,
        options.texture_format,
        options.compression,
    )
    finished = finish(
        mesh,
        settings,
        stage=stage,
        check=partial(check_cancelled, context),
        device=context.device,
        views=views,
    )
    stage("export")
    formats = mesh_formats(options.formats)
    artifacts, facts = export(
        finished.mesh,
        formats,
        options.texture_format,
        context.workdir,
        compression=options.compression,
        closed=False,  # a network's surface may be open, as the object's may be
    )
    warnings = options.warnings()
    if facts.faces > options.faces:
        warnings.append(
            f"The mesh has {facts.faces} faces, above the budget of {options.faces}: with fewer, "
            "its thin or loose parts would collapse."
        )
    return artifacts, {"mesh": {**facts.as_json(), **finished.facts}}, warnings
