"""The fixed order, what the report says, and that nothing is done that was not asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models.context import InvalidInput
from models.splat_to_sog.scene.operations import apply
from models.splat_to_sog.scene.options import SceneOptions


def test_no_options_change_nothing(make_splats) -> None:
    splats = make_splats(10, 2)
    applied = apply([splats], SceneOptions())
    assert applied.splats is splats
    assert applied.report == {
        "splats_in": 10,
        "non_finite": {},
        "repaired": {},
        "dropped": {},
        "splats_out": 10,
    }


def test_filters_count_what_each_drops_of_what_is_left(make_splats) -> None:
    splats = make_splats(5)
    splats.means[:] = np.arange(5)[:, None] * np.float32([1, 0, 0])
    splats.opacities[:] = 5, -9, 5, 5, 5
    splats.scales[:] = -4
    splats.scales[2] = 3
    splats.means[1] = 99  # faint and far: the first filter takes it
    splats.sh0[0, 0] = np.nan
    options = SceneOptions(min_opacity=0.1, max_size=1, sphere=[0, 0, 0, 3.5])
    report = apply([splats], options).report
    assert report["non_finite"] == {"colour not finite": 1}
    assert report["dropped"] == {"min_opacity": 1, "max_size": 1, "sphere": 1}
    assert report["splats_out"] == 1
    assert json.loads(json.dumps(report)) == report


def test_boxes_and_sizes_mean_the_moved_scene(make_splats) -> None:
    splats = make_splats(2)
    splats.means[:] = [[1, 0, 0], [0, 1, 0]]
    options = SceneOptions(scale=10, rotate=[0, 0, 90], box=[-1, 9, -1, 1, 11, 1])
    applied = apply([splats], options)
    np.testing.assert_allclose(applied.splats.means, [[0, 10, 0]], atol=1e-5)


def test_merge_cut_and_decimate_in_one(make_splats) -> None:
    steps: list[str] = []
    applied = apply(
        [make_splats(50, 3), make_splats(30, 1)],
        SceneOptions(keep_fraction=0.5),
        sh_degree=2,
        on_step=lambda step, done: steps.append(step),
    )
    assert (len(applied.splats), applied.splats.degree) == (40, 2)
    assert applied.report["merged_away"] == 40
    assert list(dict.fromkeys(steps)) == ["clean", "transform", "decimate"]


def test_nothing_left_names_the_step(make_splats) -> None:
    with pytest.raises(InvalidInput, match="box: it leaves none of the 4 splats") as caught:
        apply([make_splats(4)], SceneOptions(box=[500, 0, 0, 501, 1, 1]))
    assert caught.value.code == "splat_empty"


def test_a_splat_moved_beyond_float32_is_refused(make_splats) -> None:
    splats = make_splats(4)
    splats.means[2] = 3e38
    with pytest.raises(InvalidInput, match=r"scale 10 and translate .* beyond 3.4e38") as error:
        apply([splats], SceneOptions(scale=10))
    assert error.value.code == "splat_limits"
    apply([splats], SceneOptions(scale=0.5))
