"""All scene operations in their one order: `apply(scenes, options)` is a pure function.

Does not read files or encode. The order is fixed, whatever order the options were given in:

    1. clean: drop splats no renderer can draw     5. floaters
    2. merge the scenes                            6. cut the spherical harmonics
    3. scale, then rotate, then translate          7. decimate
    4. filters: opacity, size, box, sphere

So a box is in the coordinates of the result, and a floater is judged among what the filters left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput, JsonValue
from models.splat_to_sog.scene import filters
from models.splat_to_sog.scene.merge import merge
from models.splat_to_sog.scene.options import SceneOptions
from models.splat_to_sog.scene.transform import Transform, transform
from models.splat_to_sog.scratch import Scratch, chunks
from models.splat_to_sog.splats import Splats, drop_non_finite
from models.splat_to_sog.stages import OnStage


@dataclass(frozen=True)
class Applied:
    """The scene that is left, and JSON facts: what each step dropped or did."""

    splats: Splats
    report: dict[str, JsonValue]


def apply(
    scenes: Sequence[Splats],
    options: SceneOptions,
    scratch: Scratch | None = None,
    *,
    names: Sequence[str] = (),
    sh_degree: int | None = None,
    on_step: OnStage = lambda step, fraction: None,
) -> Applied:
    """Steps that are not asked for cost nothing; no option given returns the cleaned scene.

    Raises InvalidInput when nothing is left, naming the step that dropped the last splat, and
    when scenes of different models are to be merged.
    """
    scratch = scratch or Scratch()
    report: dict[str, JsonValue] = {"splats_in": sum(map(len, scenes))}

    # 1. clean each scene, 2. make them one
    on_step("clean", 0.0)
    cleaned = [drop_non_finite(scene, scratch) for scene in scenes]
    report["non_finite"] = _summed([part.dropped for part in cleaned])
    report["repaired"] = _summed([part.repaired for part in cleaned])
    splats = merge([part.splats for part in cleaned], names, scratch)
    del cleaned
    _check_drawable(splats, names, report)

    # 3. move
    change = Transform.of(
        options.translate or (0, 0, 0), options.rotate or (0, 0, 0), options.scale or 1.0
    )
    on_step("transform", 0.0)
    splats = transform(splats, change, scratch)
    _check_in_reach(splats, change)

    # 4. filters and 5. floaters, each on what the one before it left
    dropped: dict[str, int] = {}
    for name, keep_of in _filters(options).items():
        on_step(name, 0.0)
        keep = keep_of(splats)
        dropped[name] = len(keep) - int(keep.sum())
        if dropped[name]:
            splats = splats.take(keep, scratch)
            _check_left(splats, name, report)
    report["dropped"] = dropped

    # 6. cut bands before splats are merged: what is cut should not steer the merging
    if sh_degree is not None:
        splats = splats.cut_degree(sh_degree, scratch)

    # 7. decimate
    if options.decimates():
        from models.splat_to_sog.scene.decimate import decimate  # its kd-tree is slow to import

        before = len(splats)
        keep_count = options.count_to_keep(before)
        splats = decimate(splats, keep_count, lambda fraction: on_step("decimate", fraction))
        report["merged_away"] = before - len(splats)
    report["splats_out"] = len(splats)
    return Applied(splats, report)


def _filters(options: SceneOptions) -> dict[str, Callable[[Splats], NDArray[np.bool_]]]:
    """Name of the option -> mask of what it keeps; only those asked for, in the fixed order."""
    chosen: dict[str, Callable[[Splats], NDArray[np.bool_]]] = {}
    if (opacity := options.min_opacity) is not None:
        chosen["min_opacity"] = lambda splats: filters.opaque_enough(splats, opacity)
    if (low := options.min_size) is not None:
        chosen["min_size"] = lambda splats: filters.within_sizes(splats, low, None)
    if (high := options.max_size) is not None:
        chosen["max_size"] = lambda splats: filters.within_sizes(splats, None, high)
    if (share := options.max_relative_size) is not None:
        chosen["max_relative_size"] = lambda splats: filters.within_sizes(
            splats, None, share * filters.extent(splats)[1]
        )
    if (box := options.box) is not None:
        chosen["box"] = lambda splats: filters.in_box(splats, box)
    if (sphere := options.sphere) is not None:
        chosen["sphere"] = lambda splats: filters.in_sphere(splats, sphere)
    if (strength := options.floaters) is not None:
        from models.splat_to_sog.scene.floaters import not_floating  # its kd-tree, likewise

        chosen["floaters"] = lambda splats: not_floating(splats, strength)
    return chosen


def _check_drawable(splats: Splats, names: Sequence[str], report: dict[str, JsonValue]) -> None:
    if not len(splats):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in report["non_finite"].items())
        raise InvalidInput(
            f"{', '.join(names) or 'the scene'}: none of its {report['splats_in']} splats can be "
            f"drawn ({reasons}).",
            code="splat_empty",
            next_step="The training diverged or the export is broken: export it again.",
        )


def _check_in_reach(splats: Splats, change: Transform) -> None:
    """A number beyond float32 became infinite."""
    for rows in chunks(len(splats)):
        if not np.isfinite(splats.means[rows]).all():
            raise InvalidInput(
                f"scale {change.scale:g} and translate {change.translation.tolist()} move a splat "
                "beyond 3.4e38, the largest number a scene can hold.",
                code="splat_limits",
                next_step="Move it less far, or drop what lies far out first.",
            )


def _check_left(splats: Splats, step: str, report: dict[str, JsonValue]) -> None:
    if not len(splats):
        raise InvalidInput(
            f"{step}: it leaves none of the {report['splats_in']} splats.",
            code="splat_empty",
            next_step="Loosen this option; boxes, spheres and sizes are in scene units, after "
            "scale, rotate and translate.",
        )


def _summed(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for reason, count in part.items():
            total[reason] = total.get(reason, 0) + count
    return total
