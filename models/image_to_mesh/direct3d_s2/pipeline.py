"""The Direct3D-S2 pipeline: one image of an object -> a mesh at 512^3 or 1024^3, coloured by it.

Knows nothing of requests and queues: it sees files, options and a context. Read `_run` from top to
bottom. The two releases are one pipeline with other networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
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
from models.image_to_mesh.delivery import deliver
from models.image_to_mesh.direct3d_s2.checkpoint import load_generator
from models.image_to_mesh.direct3d_s2.colour import Array, Coloured, coloured
from models.image_to_mesh.direct3d_s2.generator import Generator
from models.image_to_mesh.direct3d_s2.networks import chosen_dtype
from models.image_to_mesh.direct3d_s2.preprocess import centre_on_white
from models.image_to_mesh.direct3d_s2.release import RELEASES, Sampler
from models.image_to_mesh.direct3d_s2.surface import Mesh, cells_of, mesh_of
from models.image_to_mesh.finishing.finish import warm_up
from models.image_to_mesh.options import Direct3DS2Options
from models.image_to_mesh.preprocess.decode import decode
from models.image_to_mesh.preprocess.mask import Cutout, cut_out
from models.image_to_mesh.preprocess.source import mask_source
from models.image_to_mesh.stopwatch import Stopwatch
from models.image_to_mesh.trellis.preprocess import in_bytes
from models.nn.memory import memory_returned
from models.nn.residency import Residency, should_offload
from models.nn.samplers import Step
from models.weights.store import require

IMAGE_WEIGHTS = "dinov2-large-registers"
NEEDED_BYTES = 20 << 30
"""A device with less free memory than this holds one network at a time: with all of them on the
card 1024 took 15.8 GB, and a surface of that size is finished there too."""


def load(device: str) -> Pipeline:
    """Release 1.1. Raises Unavailable, with the command to run, where weights are missing."""
    return load_release("1.1", device)


def load_v1_0(device: str) -> Pipeline:
    """Release 1.0: slower, and led by the tokens of the object alone. Raises as `load` does."""
    return load_release("1.0", device)


def load_release(version: str, device: str) -> Pipeline:
    release, place = RELEASES[version], torch.device(device)
    folder, image_folder = require(release.entry), require(IMAGE_WEIGHTS)
    residency = Residency(place, offload=should_offload(place, NEEDED_BYTES))
    generator = load_generator(release, folder, image_folder, residency, chosen_dtype(place))
    warm_up()
    return Direct3DS2Pipeline(generator)


class Direct3DS2Pipeline:
    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def __call__(
        self, context: RunContext, inputs: Sequence[InputFile], options: Direct3DS2Options
    ) -> PipelineResult:
        """Raises InvalidInput when the image cannot be read or cut out, or is not alone."""
        with memory_returned(self.generator.device):
            return self._run(context, inputs, options)

    def _run(
        self, context: RunContext, inputs: Sequence[InputFile], options: Direct3DS2Options
    ) -> PipelineResult:
        generator, watch = self.generator, Stopwatch(context)
        noise = torch.Generator().manual_seed(options.seed)
        samplers = _samplers(generator.release.samplers, options)
        level = generator.release.surface_level
        fine = options.resolution == 1024

        # 1. Decode and cut out: the object alone, on white.
        watch.stage("decode", 0.0)
        masks = mask_source(options.mask, context.device, partial(check_cancelled, context))
        cutout = cut_out(decode(_only(inputs)), options.seed, masks)
        picture = centre_on_white(in_bytes(cutout.rgba))

        # 2. Look: DINOv2's tokens.
        watch.stage("look", 0.02)
        seen = generator.look(picture)

        # 3. Coarse: which cells of 64^3 hold the surface.
        watch.stage("coarse", 0.04)
        cells = generator.coarse(seen, noise, samplers["dense"], _steps(watch, 0.04, 0.14))
        counts: dict[str, JsonValue] = {"tokens_512": len(cells)}

        # 4. 512: a latent for each cell, decoded, refined, and its surface.
        watch.stage("latent_512", 0.14)
        end = 0.3 if fine else 0.65
        latent = generator.latent(
            generator.networks.sparse_flow_512,
            seen,
            cells,
            noise,
            samplers["sparse_512"],
            _steps(watch, 0.14, end),
        )
        watch.stage("surface_512", end)
        field = generator.surface_512(latent, _parts(watch, end, end + 0.1))
        mesh = mesh_of(field, 2 * level, generator.networks.refiner.resolution)

        # 5. 1024: the same from the cells near that surface, eight times as many voxels.
        if fine:
            watch.stage("cells_1024", 0.4)
            decoder = generator.networks.sparse_vae_1024
            resolution = decoder.out_resolution
            cells = cells_of(mesh, resolution, partial(check_cancelled, context))
            counts["tokens_1024"] = len(cells)
            watch.stage("latent_1024", 0.42)
            latent = generator.latent(
                generator.networks.sparse_flow_1024,
                seen,
                cells,
                noise,
                samplers["sparse_1024"],
                _steps(watch, 0.42, 0.65),
            )
            watch.stage("surface_1024", 0.65)
            field = generator.surface_1024(latent, _parts(watch, 0.65, 0.75))
            mesh = mesh_of(field, level, resolution)
        del latent, field

        # 6. Colour: of the image where it sees the surface, blended where it does not.
        watch.stage("colour", 0.78)
        painted = coloured(*_placed(mesh), cutout.rgba, _parts(watch, 0.78, 0.83))
        counts |= {"vertices": len(mesh.vertices), "faces": len(mesh.faces)}
        del mesh

        # 7. Finish: fewer faces, a texture, and files.
        artifacts, facts, notes = deliver(
            painted.mesh, options, watch, (0.83, 1.0), views=(painted.view,)
        )
        watch.stage("done", 1.0)
        report = _report(cutout, samplers, counts | facts, painted, watch, options)
        report["release"] = generator.release.version
        report["warnings"] += notes
        return PipelineResult(artifacts, report)


def _only(inputs: Sequence[InputFile]) -> InputFile:
    if len(inputs) != 1:
        raise InvalidInput(
            f"{len(inputs)} images were given; Direct3D-S2 takes one.",
            code="image_count",
            next_step="Send the image that shows most of the object, or choose another pipeline.",
        )
    return inputs[0]


def _samplers(own: Mapping[str, Sampler], options: Direct3DS2Options) -> dict[str, Sampler]:
    """The release's, where the options say nothing else."""
    asked = {
        "dense": options.dense_steps,
        "sparse_512": options.sparse_steps,
        "sparse_1024": options.fine_steps,
    }
    return {
        name: replace(
            sampler,
            steps=asked[name] or options.steps or sampler.steps,
            guidance=sampler.guidance if options.guidance is None else options.guidance,
        )
        for name, sampler in own.items()
    }


def _placed(mesh: Mesh) -> tuple[Array, np.ndarray[tuple[int, ...], np.dtype[np.int32]]]:
    """Centred at the origin, the longest side 1: vertices (V, 3) float32, faces (F, 3) int32."""
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    vertices = (mesh.vertices - (low + high) / 2) / (high - low).amax()
    return vertices.cpu().numpy(), mesh.faces.int().cpu().numpy()


def _steps(watch: Stopwatch, start: float, end: float) -> Callable[[Step], None]:
    """Progress from `start` to `end` of the whole, step by step; a cancelled job ends between."""
    advance = _parts(watch, start, end)
    return lambda step: advance(step.done, step.total)


def _parts(watch: Stopwatch, start: float, end: float) -> Callable[[int, int], None]:
    def on_part(done: int, total: int) -> None:
        watch.advance(start + (end - start) * done / total, f"{done}/{total}")

    return on_part


def _report(
    cutout: Cutout,
    samplers: dict[str, Sampler],
    counts: dict[str, JsonValue],
    painted: Coloured,
    watch: Stopwatch,
    options: Direct3DS2Options,
) -> dict[str, JsonValue]:
    used = samplers if options.resolution == 1024 else {
        name: sampler for name, sampler in samplers.items() if name != "sparse_1024"
    }  # fmt: skip
    return {
        "pipeline": "direct3d_s2",
        "views": [
            {
                "image": cutout.name,
                "size_px": [cutout.rgba.shape[1], cutout.rgba.shape[0]],
                "mask": {"source": cutout.source, "confidence": cutout.confidence},
                **painted.facts,
            }
        ],
        "resolution": options.resolution,
        "samplers": {
            name: {"steps": sampler.steps, "guidance": sampler.guidance}
            for name, sampler in used.items()
        },
        **counts,
        "seconds": dict(watch.seconds),
        "warnings": [*cutout.notes, *painted.warnings],
    }
