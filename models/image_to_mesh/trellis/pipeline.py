"""The TRELLIS pipeline: image(s) of one object -> a coloured mesh, or Gaussians, or both.

Knows nothing of requests and queues: it sees files, options and a context. Read `_run`
from top to bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from models.image_to_mesh.finishing.finish import warm_up
from models.image_to_mesh.options import TrellisOptions
from models.image_to_mesh.preprocess.decode import decode
from models.image_to_mesh.preprocess.mask import Cutout, cut_out
from models.image_to_mesh.preprocess.source import mask_source
from models.image_to_mesh.stopwatch import Stopwatch
from models.image_to_mesh.trellis.checkpoint import load_generator
from models.image_to_mesh.trellis.generator import Generator
from models.image_to_mesh.trellis.preprocess import centre_on_black, in_bytes
from models.image_to_mesh.trellis.release import Release, read_release
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
WEIGHTS, IMAGE_WEIGHTS = "trellis-image-large", "dinov2-large-registers"
NEEDED_BYTES = 12 << 30
"""A device with less free memory than this holds one network at a time."""


def load(device: str) -> Pipeline:
    """Raises Unavailable, with the command to run, where weights are missing."""
    release = read_release(require(WEIGHTS))
    place = torch.device(device)
    residency = Residency(place, offload=should_offload(place, NEEDED_BYTES))
    generator = load_generator(release, require(IMAGE_WEIGHTS), residency, chosen_dtype(place))
    warm_up()
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
        samplers = samplers_for(self.release, options)

        # 1. Decode and cut out: the object alone, centred, on black.
        watch.stage("decode", 0.0)
        masks = mask_source(options.mask, context.device, partial(check_cancelled, context))
        cutouts = [cut_out(decode(file), options.seed, masks) for file in inputs]
        pictures = [centre_on_black(in_bytes(cutout.rgba), cutout.name) for cutout in cutouts]

        # 2. Look: DINOv2's tokens of each image.
        watch.stage("look", 0.03)
        tokens = self.generator.look(pictures)

        # 3. Structure: which voxels of 64^3 the object occupies.
        watch.stage("structure", 0.06)
        coords = self.generator.structure(
            tokens, noise, samplers[0], options.mixing, each_step(watch, 0.06, 0.35)
        )

        # 4. Latent: what is in each of them.
        watch.stage("latent", 0.35)
        latent = self.generator.latent(
            tokens, coords, noise, samplers[1], options.mixing, each_step(watch, 0.35, 0.7)
        )

        # 5. Decode the latent: a surface, Gaussians, or both; finish, and write the files.
        results = decode_and_deliver(self.generator, latent, options, watch)
        facts = {"voxels": len(coords), **results.facts}
        warnings = [note for cutout in cutouts for note in cutout.notes] + results.warnings
        report = _report(cutouts, samplers, facts, watch, warnings)
        return PipelineResult(results.artifacts, report)


def _check_count(inputs: Sequence[InputFile]) -> None:
    if not 1 <= len(inputs) <= MAX_IMAGES:
        raise InvalidInput(
            f"{len(inputs)} images were given; 1 to {MAX_IMAGES} are allowed.",
            code="image_count",
            next_step="Send one image, or a few views of one object.",
        )


def _report(
    cutouts: Sequence[Cutout],
    samplers: Samplers,
    facts: dict[str, JsonValue],
    watch: Stopwatch,
    warnings: list[str],
) -> dict[str, JsonValue]:
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
        "samplers": sampler_facts(samplers),
        **facts,
        "seconds": dict(watch.seconds),
        "warnings": warnings,
    }
