"""Several scenes as one.

Does not move them: each may be transformed before. The result has the highest SH degree among
them; a scene of a lower one gets zeros, which look the same. All must be drawn by the same model
(plain, antialiased or 2-D): one file names one, and the same numbers look different in another.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.context import InvalidInput
from models.splat_to_sog.scratch import Scratch, chunks
from models.splat_to_sog.splats import COEFFICIENTS, Splats


def merge(
    scenes: Sequence[Splats],
    names: Sequence[str] = (),  # one a scene, for messages
    scratch: Scratch | None = None,
) -> Splats:
    """One after the other. A single scene is returned as it is. Raises InvalidInput."""
    if not scenes:
        raise InvalidInput("No scene to merge: at least one is needed.")
    if len(scenes) == 1:
        return scenes[0]
    names = names or [f"scene {number}" for number in range(1, len(scenes) + 1)]
    for name, scene in zip(names, scenes, strict=True):
        if scene.model != scenes[0].model:
            raise InvalidInput(
                f"{name} is drawn as {scene.model!r} splats and {names[0]} as "
                f"{scenes[0].model!r} ones; one scene has one kind.",
                code="splat_models_differ",
                next_step="Merge files of one kind, or export them again as the same.",
            )
    scratch = scratch or Scratch()
    total = sum(map(len, scenes))
    degree = max(scene.degree for scene in scenes)
    shapes = {"means": (3,), "scales": (3,), "quats": (4,), "opacities": (), "sh0": (3,)}
    merged = {name: scratch.empty((total, *shape)) for name, shape in shapes.items()}
    harmonics = scratch.empty((total, 3, COEFFICIENTS[degree]))
    start = 0
    for scene in scenes:
        for rows in chunks(len(scene)):
            target = slice(start + rows.start, start + rows.stop)
            for name, array in merged.items():
                array[target] = getattr(scene, name)[rows]
            own = COEFFICIENTS[scene.degree]
            harmonics[target, :, :own] = scene.shN[rows]
            harmonics[target, :, own:] = 0
        start += len(scene)
    return Splats(**merged, shN=harmonics, model=scenes[0].model)
