"""The TRELLIS pipeline: image(s) of one object -> a coloured mesh, or Gaussians, or both.

Knows nothing of requests and queues: it sees files, options and a context. Read `_run`
from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from models.context import (
    Artifact,
    InputFile,
    InvalidInput,
    JsonValue,
    Pipeline,
    PipelineError,
    PipelineResult,
    RunContext,
)
from models.image_to_mesh.delivery import deliver, mesh_formats
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.options import TrellisOptions
from models.image_to_mesh.preprocess.decode import decode
from models.image_to_mesh.preprocess.mask import Cutout, cut_out
from models.image_to_mesh.preprocess.source import mask_source
from models.image_to_mesh.stopwatch import Stopwatch
from models.image_to_mesh.trellis.checkpoint import load_generator
from models.image_to_mesh.trellis.gaussian_decoder import Gaussians
from models.image_to_mesh.trellis.generator import Generator
from models.image_to_mesh.trellis.preprocess import centre_on_black
from models.image_to_mesh.trellis.release import Release, SamplerSettings, read_release
from models.image_to_mesh.trellis.splat_ply import encode_splat_ply
from models.image_to_mesh.trellis.voxel_mesh import DecodedMesh
from models.nn.memory import memory_returned
from models.nn.precision import chosen_dtype
from models.nn.residency import Residency, should_offload
from models.nn.samplers import Step
from models.weights.store import require

T = TypeVar("T")

MAX_IMAGES = 16
SPLAT = "scene.splat.ply"
WEIGHTS, IMAGE_WEIGHTS = "trellis-image-large", "dinov2-large-registers"
NEEDED_BYTES = 12 << 30
"""A device with less free memory than this holds one network at a time."""


def load(device: str) -> Pipeline:
    """Raises Unavailable, with the command to run, where weights are missing."""
    release = read_release(require(WEIGHTS))
    place = torch.device(device)
    residency = Residency(place, offload=should_offload(place, NEEDED_BYTES))
    generator = load_generator(release, require(IMAGE_WEIGHTS), residency, chosen_dtype(place))
    return TrellisPipeline(generator, release)


class TrellisPipeline:
    def __init__(self, generator: Generator, release: Release) -> None:
        self.generator = generator
        self.release = release

    def __call__(
        self, context: RunContext, inputs: Sequence[InputFile], options: TrellisOptions
    ) -> PipelineResult:
        """Raises InvalidInput when an image cannot be read or cut out."""
        _check_count(inputs)
        with memory_returned(self.generator.residency.device):
            return self._run(context, inputs, options)

    def _run(
        self, context: RunContext, inputs: Sequence[InputFile], options: TrellisOptions
    ) -> PipelineResult:
        watch, noise = Stopwatch(context), torch.Generator().manual_seed(options.seed)
        samplers = _samplers(self.release, options)

        # 1. Decode and cut out: the object alone, centred, on black.
        watch.stage("decode", 0.0)
        masks = mask_source(options.mask, context.device)
        cutouts = [cut_out(decode(file), options.seed, masks) for file in inputs]
        pictures = [centre_on_black(_bytes(cutout), cutout.name) for cutout in cutouts]

        # 2. Look: DINOv2's tokens of each image.
        watch.stage("look", 0.03)
        tokens = self.generator.look(pictures)

        # 3. Structure: which voxels of 64^3 the object occupies.
        watch.stage("structure", 0.06)
        coords = self.generator.structure(
            tokens, noise, samplers[0], options.mixing, _steps(watch, 0.06, 0.35)
        )

        # 4. Latent: what is in each of them.
        watch.stage("latent", 0.35)
        latent = self.generator.latent(
            tokens, coords, noise, samplers[1], options.mixing, _steps(watch, 0.35, 0.7)
        )

        # 5. Decode the latent: a surface, Gaussians, or both.
        artifacts: dict[str, Artifact] = {}
        facts: dict[str, JsonValue] = {"voxels": len(coords)}
        warnings = [note for cutout in cutouts for note in cutout.notes]
        if "splat" in options.formats:
            watch.stage("splat", 0.7)
            gaussians = self.generator.gaussians(latent)
            artifacts["splat"] = _write(context, encode_gaussians(gaussians))
            facts["gaussians"] = len(gaussians.means)
        if meshes := mesh_formats(options.formats):
            watch.stage("surface", 0.73)
            surface = placed(self.generator.mesh(latent))

            # 6. Finish: fewer faces, texture, normal map; then the files.
            made, more, notes = deliver(surface, options, watch, (0.78, 1.0))
            artifacts |= zip(meshes, made, strict=True)
            facts |= more
            warnings += notes
        watch.stage("done", 1.0)
        in_order = [artifacts[kind] for kind in dict.fromkeys(options.formats)]
        return PipelineResult(in_order, _report(cutouts, samplers, facts, watch, warnings))


def placed(mesh: DecodedMesh) -> ColouredMesh:
    """The mesh turned to y up and facing +z, its longest side 1, centred at the origin."""
    if len(mesh.faces) == 0:
        raise PipelineError(
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


def _bytes(cutout: Cutout) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(H, W, 4) uint8, straight alpha."""
    return np.asarray((cutout.rgba * 255 + 0.5).astype(np.uint8))


def _check_count(inputs: Sequence[InputFile]) -> None:
    if not 1 <= len(inputs) <= MAX_IMAGES:
        raise InvalidInput(
            f"{len(inputs)} images were given; 1 to {MAX_IMAGES} are allowed.",
            code="image_count",
            next_step="Send one image, or a few views of one object.",
        )


def _samplers(release: Release, options: TrellisOptions) -> tuple[SamplerSettings, SamplerSettings]:
    """Of structure and latent: what was asked of this one, else of both, else the release's own."""

    def chosen(own: SamplerSettings, steps: int | None, guidance: float | None) -> SamplerSettings:
        return replace(
            own,
            steps=_first(steps, options.steps, own.steps),
            cfg_strength=_first(guidance, options.guidance, own.cfg_strength),
        )

    return (
        chosen(release.structure_sampler, options.structure_steps, options.structure_guidance),
        chosen(release.latent_sampler, options.latent_steps, options.latent_guidance),
    )


def _first(*values: T | None) -> T:
    """The first that was given."""
    return next(value for value in values if value is not None)


def _steps(watch: Stopwatch, start: float, end: float) -> Callable[[Step], None]:
    """Progress from `start` to `end` of the whole, step by step; a cancelled job ends between."""

    def on_step(step: Step) -> None:
        watch.advance(start + (end - start) * step.done / step.total, f"{step.done}/{step.total}")

    return on_step


def _write(context: RunContext, splats: bytes) -> Artifact:
    path = context.workdir / SPLAT
    path.write_bytes(splats)
    return Artifact(SPLAT, path, "application/ply")


def _report(
    cutouts: Sequence[Cutout],
    samplers: tuple[SamplerSettings, SamplerSettings],
    facts: dict[str, JsonValue],
    watch: Stopwatch,
    warnings: list[str],
) -> dict[str, JsonValue]:
    structure, latent = samplers
    return {
        "pipeline": "trellis",
        "views": [
            {
                "image": cutout.name,
                "size_px": [cutout.rgba.shape[1], cutout.rgba.shape[0]],
                "mask": {"source": cutout.source, "confidence": cutout.confidence},
            }
            for cutout in cutouts
        ],
        "samplers": {
            "structure": {"steps": structure.steps, "guidance": structure.cfg_strength},
            "latent": {"steps": latent.steps, "guidance": latent.cfg_strength},
        },
        **facts,
        "seconds": dict(watch.seconds),
        "warnings": warnings,
    }
