"""The embedded pipeline: image(s) of one object -> a closed, textured mesh. No weights, no GPU.

Knows nothing of requests and queues: it sees files, options and a context. Read `EmbeddedPipeline`
from top to bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from models.context import (
    InputFile,
    InvalidInput,
    JsonValue,
    Pipeline,
    PipelineResult,
    RunContext,
    check_cancelled,
)
from models.image_to_mesh.finishing.atlas import plan_atlas, unwrap
from models.image_to_mesh.finishing.bake import bake
from models.image_to_mesh.finishing.check import MeshFacts
from models.image_to_mesh.finishing.export import export
from models.image_to_mesh.finishing.mesh import TexturedMesh
from models.image_to_mesh.finishing.normals import vertex_normals
from models.image_to_mesh.finishing.simplify import simplify
from models.image_to_mesh.finishing.unit_box import to_unit_box
from models.image_to_mesh.finishing.visibility import View
from models.image_to_mesh.geometry.cameras import Camera, object_to_camera
from models.image_to_mesh.geometry.medial_balls import reconstruct
from models.image_to_mesh.geometry.several import Shape, reconstruct_views
from models.image_to_mesh.geometry.views import ViewPlan, plan_views
from models.image_to_mesh.options import EmbeddedOptions
from models.image_to_mesh.preprocess.decode import decode
from models.image_to_mesh.preprocess.mask import Cutout, cut_out
from models.image_to_mesh.preprocess.source import mask_source
from models.image_to_mesh.stopwatch import Stopwatch

MAX_IMAGES = 16
DOUBTFUL_AGREEMENT = 0.75


def load(device: str) -> Pipeline:
    """There is nothing to load: the same code runs on the CPU whatever the device."""
    return EmbeddedPipeline()


class EmbeddedPipeline:
    def __call__(
        self, context: RunContext, inputs: Sequence[InputFile], options: EmbeddedOptions
    ) -> PipelineResult:
        """Raises InvalidInput when an image cannot be read or cut out, or the images disagree."""
        _check_counts(inputs, options)
        watch = Stopwatch(context)

        # 1. Decode: upright 8-bit sRGB with alpha.
        watch.stage("decode", 0.0)
        pictures = [decode(file) for file in inputs]

        # 2. Mask: cut the object out.
        watch.stage("mask", 0.08)
        masks = mask_source(options.mask, context.device, partial(check_cancelled, context))
        cutouts = [cut_out(picture, options.seed, masks) for picture in pictures]

        # 3. Geometry: a closed surface in the first camera's frame.
        watch.stage("geometry", 0.2)
        plan = plan_views(
            [cutout.rgba for cutout in cutouts],
            [cutout.name for cutout in cutouts],
            options.azimuth,
            options.elevation,
        )
        shape = _shape(cutouts, plan, options)

        # 4. Simplify: down to the face budget, still closed.
        watch.stage("simplify", 0.45)
        vertices, faces = simplify(shape.vertices, shape.faces, options.faces)

        # 5. Texture: project the images onto pages of an atlas.
        watch.stage("texture", 0.7)
        views = [View(c.rgba, camera) for c, camera in zip(cutouts, shape.cameras, strict=True)]
        atlas = plan_atlas(vertices, faces, views, options.texture_size)
        source, uv, corners = unwrap(vertices, faces, views, atlas)
        texture = bake(vertices, faces, views, atlas)

        # 6. Export: into the unit box, to files, and back to check them.
        watch.stage("export", 0.9)
        turn = object_to_camera(shape.azimuths[0], plan.elevations[0])
        positions = to_unit_box(vertices, faces, turn)
        normals = vertex_normals(positions, faces).astype(np.float32)
        mesh = TexturedMesh(positions, normals, faces, source, uv, corners, texture)
        artifacts, facts = export(mesh, options.formats, options.texture_format, context.workdir)
        watch.stage("done", 1.0)
        return PipelineResult(artifacts, _report(cutouts, plan, shape, facts, watch, options))


def _check_counts(inputs: Sequence[InputFile], options: EmbeddedOptions) -> None:
    count = len(inputs)
    if not 1 <= count <= MAX_IMAGES:
        raise InvalidInput(
            f"{count} images were given; 1 to {MAX_IMAGES} are allowed.",
            code="image_count",
            next_step="Send one image, or a few views of one object.",
        )
    for name, values in (("azimuth", options.azimuth), ("elevation", options.elevation)):
        if values is not None and len(values) != count:
            raise InvalidInput(
                f"{name} has {len(values)} value(s) for {count} image(s); one per image is needed.",
                code="angles_count",
                next_step=f"Give {name} once per image, in the images' order, or leave it out.",
            )


def _shape(cutouts: Sequence[Cutout], plan: ViewPlan, options: EmbeddedOptions) -> Shape:
    if len(cutouts) > 1:
        return reconstruct_views(
            [cutout.rgba for cutout in cutouts], plan, options.field_of_view, options.resolution
        )
    vertices, faces = reconstruct(cutouts[0].rgba, options.field_of_view, options.resolution)
    camera = Camera(tangent=float(np.tan(np.radians(options.field_of_view) / 2)))
    return Shape(vertices, faces, (camera,), plan.azimuths, "medial balls", None)


def _report(
    cutouts: Sequence[Cutout],
    plan: ViewPlan,
    shape: Shape,
    facts: MeshFacts,
    watch: Stopwatch,
    options: EmbeddedOptions,
) -> dict[str, JsonValue]:
    warnings = [note for cutout in cutouts for note in cutout.notes]
    warnings += options.warnings()
    if plan.source == "guess":
        warnings.append(
            f"The images' angles are a guess (confidence {plan.confidence:.2f}); "
            "declare them with azimuth for a reliable result."
        )
    if len(cutouts) == 1:
        warnings.append(
            "One image: the depth and the back are estimated from the outline and its colours."
        )
    if shape.agreement is not None and shape.agreement < DOUBTFUL_AGREEMENT:
        warnings.append(
            f"The images' outlines agree only in part ({shape.agreement:.2f}); parts that one view "
            "misses are cut off. Check the angles."
        )
    moved = max(abs(a - b) for a, b in zip(shape.azimuths, plan.azimuths, strict=True))
    if moved > 0:
        warnings.append(
            f"The outlines do not fit together under the given azimuths; the images were turned by "
            f"up to {moved:.1f} degrees, to where they do."
        )
    if facts.faces > options.faces:
        warnings.append(
            f"The mesh has {facts.faces} faces, above the budget of {options.faces}: with fewer, "
            "its thin or loose parts would collapse."
        )
    return {
        "pipeline": "embedded",
        "views": [
            {
                "image": cutout.name,
                "azimuth": shape.azimuths[k],
                "azimuth_declared": plan.azimuths[k],
                "elevation": plan.elevations[k],
                "label": plan.label(k),
                "size_px": [cutout.rgba.shape[1], cutout.rgba.shape[0]],
                "mask": {"source": cutout.source, "confidence": cutout.confidence},
            }
            for k, cutout in enumerate(cutouts)
        ],
        "views_source": plan.source,
        "views_guessed": plan.source == "guess",
        "views_confidence": plan.confidence,
        "views_agreement": shape.agreement,
        "method": shape.method,
        "mesh": {**facts.as_json(), "faces_before": len(shape.faces)},
        "texture_size": options.texture_size,
        "seconds": dict(watch.seconds),
        "warnings": warnings,
    }
