"""The ReconViaGen pipeline: photos of one object, cameras unknown -> a textured mesh, or Gaussians.

Knows nothing of requests and queues: it sees files, options and a context. Read
`ReconViaGenPipeline` from top to bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from models.context import (
    InputFile,
    InvalidInput,
    JsonValue,
    Pipeline,
    PipelineResult,
    RunContext,
    check_cancelled,
)
from models.image_to_mesh.delivery import ViewedMesh
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.finish import warm_up
from models.image_to_mesh.options import ReconViaGenOptions
from models.image_to_mesh.preprocess.decode import decode
from models.image_to_mesh.preprocess.mask import Cutout, cut_out
from models.image_to_mesh.preprocess.source import mask_source
from models.image_to_mesh.reconviagen.cameras import camera_facts, photos_of
from models.image_to_mesh.reconviagen.checkpoint import Folders, load_generator
from models.image_to_mesh.reconviagen.generator import Conditions, Generator
from models.image_to_mesh.reconviagen.photo_texture import photo_texture
from models.image_to_mesh.reconviagen.preprocess import Framed, frame_on_black
from models.image_to_mesh.reconviagen.release import read_release
from models.image_to_mesh.stopwatch import Stopwatch
from models.image_to_mesh.trellis.preprocess import in_bytes
from models.image_to_mesh.trellis.release import Release
from models.image_to_mesh.trellis.results import decode_and_deliver
from models.image_to_mesh.trellis.sampling import (
    Samplers,
    each_step,
    sampler_facts,
    samplers_for,
)
from models.nn.memory import memory_returned
from models.nn.precision import chosen_dtype
from models.nn.residency import Residency, should_offload
from models.weights.store import require

MAX_IMAGES = 16
WEIGHTS, VGGT_WEIGHTS, IMAGE_WEIGHTS = (
    "reconviagen-v0-2",
    "vggt-object-v0-1",
    "dinov2-large-registers",
)
NEEDED_BYTES = 15 << 30
"""A device with less free memory than this holds one network at a time: 16 photos with all of them
on the card took 14.5 GB."""


def load(device: str) -> Pipeline:
    """Raises Unavailable, with the command to run, where weights are missing."""
    release = read_release(require(WEIGHTS))
    folders = Folders(require(IMAGE_WEIGHTS), require(VGGT_WEIGHTS))
    place = torch.device(device)
    residency = Residency(place, offload=should_offload(place, NEEDED_BYTES))
    generator = load_generator(release, folders, residency, chosen_dtype(place))
    warm_up()
    return ReconViaGenPipeline(generator, release)


class ReconViaGenPipeline:
    def __init__(self, generator: Generator, release: Release) -> None:
        self.generator = generator
        self.release = release

    def __call__(
        self, context: RunContext, inputs: Sequence[InputFile], options: ReconViaGenOptions
    ) -> PipelineResult:
        """Raises InvalidInput when an image cannot be read or cut out."""
        _check_count(inputs)
        with memory_returned(self.generator.residency.device):
            return self._run(context, inputs, options)

    def _run(
        self, context: RunContext, inputs: Sequence[InputFile], options: ReconViaGenOptions
    ) -> PipelineResult:
        watch, noise = Stopwatch(context), torch.Generator().manual_seed(options.seed)
        samplers = _samplers(self.release, options)

        # 1. Decode and cut out: the object alone, on black, and where it was in the photo.
        watch.stage("decode", 0.0)
        masks = mask_source(options.mask, context.device, partial(check_cancelled, context))
        cutouts = [cut_out(decode(file), options.seed, masks) for file in inputs]
        frames = [frame_on_black(in_bytes(cutout.rgba), cutout.name) for cutout in cutouts]

        # 2. Look at all photos together: what the flows are told, and the cameras.
        watch.stage("look", 0.03)
        layers = self.generator.networks.vggt.depth
        conditions = self.generator.look(
            [frame.pixels for frame in frames],
            lambda layer: watch.advance(0.03 + 0.09 * (layer + 1) / layers),
        )

        # 3. Structure: which voxels of 64^3 the object occupies.
        watch.stage("structure", 0.12)
        coords = self.generator.structure(
            conditions, noise, samplers[0], each_step(watch, 0.12, 0.42)
        )

        # 4. Latent: what is in each of them.
        watch.stage("latent", 0.42)
        latent = self.generator.latent(
            conditions, coords, noise, samplers[1], each_step(watch, 0.42, 0.7)
        )

        # 5. Decode the latent: a surface, Gaussians, or both; find the surface in the photos if
        # they are to paint it; finish, and write the files.
        def paint(mesh: ColouredMesh) -> ViewedMesh:
            if options.texture_from == "decoder":
                return ViewedMesh(mesh)
            watch.stage("register", 0.75)
            photos = photos_of(conditions.poses, frames, cutouts)
            names = [cutout.name for cutout in cutouts]
            return photo_texture(mesh, photos, names, lambda: watch.advance(0.75))

        results = decode_and_deliver(self.generator, latent, options, watch, paint)
        facts = {"voxels": len(coords), **results.facts}
        warnings = [note for cutout in cutouts for note in cutout.notes] + results.warnings
        if len(inputs) == 1:
            warnings.append("One image: the sides it does not show are imagined.")
        report = _report(cutouts, frames, conditions, samplers, facts, watch, warnings)
        return PipelineResult(results.artifacts, report)


def _check_count(inputs: Sequence[InputFile]) -> None:
    if not 1 <= len(inputs) <= MAX_IMAGES:
        raise InvalidInput(
            f"{len(inputs)} images were given; 1 to {MAX_IMAGES} are allowed.",
            code="image_count",
            next_step="Send a few views of one object.",
        )


def _samplers(release: Release, options: ReconViaGenOptions) -> Samplers:
    """Guidance counts from one here: below it the photos would weigh less than nothing."""
    structure, latent = (
        replace(sampler, cfg_strength=max(1.0, sampler.cfg_strength))
        for sampler in samplers_for(release, options)
    )
    return structure, latent


def _report(
    cutouts: Sequence[Cutout],
    frames: Sequence[Framed],
    conditions: Conditions,
    samplers: Samplers,
    facts: dict[str, JsonValue],
    watch: Stopwatch,
    warnings: list[str],
) -> dict[str, JsonValue]:
    cameras = camera_facts(conditions.poses, frames)
    return {
        "pipeline": "reconviagen",
        "views": [
            {
                "image": cutout.name,
                "size_px": [cutout.rgba.shape[1], cutout.rgba.shape[0]],
                "mask": {"source": cutout.source, "confidence": cutout.confidence},
                "camera": camera,
            }
            for cutout, camera in zip(cutouts, cameras, strict=True)
        ],
        "cameras": "x right, y down, z ahead; the world is that of the first image's camera, in "
        "units of the network's own: not those of the mesh",
        "samplers": sampler_facts(samplers),
        **facts,
        "seconds": dict(watch.seconds),
        "warnings": warnings,
    }
