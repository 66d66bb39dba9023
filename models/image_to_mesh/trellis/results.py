"""What a structured latent becomes: a finished mesh, a file of Gaussians, or both.

It knows decoders by what they give, not how the latent was found; files go where the context says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.context import Artifact, InvalidInput, JsonValue
from models.image_to_mesh.delivery import ViewedMesh, deliver, mesh_formats
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.options.shared import GaussianOptions
from models.image_to_mesh.stopwatch import Stopwatch
from models.image_to_mesh.trellis.gaussian_decoder import Gaussians
from models.image_to_mesh.trellis.splat_ply import encode_splat_ply
from models.image_to_mesh.trellis.voxel_mesh import DecodedMesh
from models.nn.sparse_tensor import SparseTensor

SPLAT = "scene.splat.ply"


class Decoders(Protocol):
    def mesh(self, latent: SparseTensor) -> DecodedMesh: ...
    def gaussians(self, latent: SparseTensor) -> Gaussians: ...


@dataclass(frozen=True)
class Results:
    """artifacts: in the order of the formats, each once. facts, warnings: for the report."""

    artifacts: list[Artifact]
    facts: dict[str, JsonValue]
    warnings: list[str]


def decode_and_deliver(
    decoders: Decoders,
    latent: SparseTensor,
    options: GaussianOptions,
    watch: Stopwatch,
    paint: Callable[[ColouredMesh], ViewedMesh] = ViewedMesh,
) -> Results:
    """The last 30 % of a pipeline: every format that `options` asks for.

    paint: finds pictures that know the surface's colours better; by itself the mesh has none.
    Raises InvalidInput where the latent has no surface.
    """
    made: dict[str, Artifact] = {}
    facts: dict[str, JsonValue] = {}
    warnings: list[str] = []
    if "splat" in options.formats:
        watch.stage("splat", 0.7)
        gaussians = decoders.gaussians(latent)
        path = watch.context.workdir / SPLAT
        path.write_bytes(encode_gaussians(gaussians))
        made["splat"] = Artifact(SPLAT, path, "application/ply")
        facts["gaussians"] = len(gaussians.means)
    if meshes := mesh_formats(options.formats):
        watch.stage("surface", 0.73)
        painted = paint(placed(decoders.mesh(latent)))
        files, more, notes = deliver(painted.mesh, options, watch, (0.78, 1.0), views=painted.views)
        made |= zip(meshes, files, strict=True)
        facts |= painted.facts | more
        warnings = [*painted.warnings, *notes]
    watch.stage("done", 1.0)
    return Results([made[kind] for kind in dict.fromkeys(options.formats)], facts, warnings)


def placed(mesh: DecodedMesh) -> ColouredMesh:
    """The mesh turned to y up and facing +z, its longest side 1, centred at the origin."""
    if len(mesh.faces) == 0:
        raise InvalidInput(
            "The image gave no surface: the decoded field has one sign everywhere.",
            code="surface_empty",
            next_step="Try another seed, or an image that shows the object larger.",
        )
    x, y, z = mesh.vertices.unbind(1)
    turned = torch.stack((x, z, -y), dim=1)
    low, high = turned.amin(0), turned.amax(0)
    positions = (turned - (low + high) / 2) / (high - low).amax()
    return ColouredMesh(
        _array(positions), _array(mesh.faces).astype(np.int32), _array(mesh.colours)
    )


def encode_gaussians(gaussians: Gaussians) -> bytes:
    return encode_splat_ply(
        _array(gaussians.means),
        _array(gaussians.sh0),
        _array(gaussians.scales),
        _array(gaussians.quaternions),
        _array(gaussians.opacities),
    )


def _array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(tensor.cpu().numpy())
