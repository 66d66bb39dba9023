"""Each filter keeps what its limits say, values on the limit included."""

from __future__ import annotations

import numpy as np

from models.splat_to_sog.scene import filters


def test_opacity_is_compared_as_alpha(make_splats) -> None:
    splats = make_splats(6)
    alpha = np.array([0, 0.0999, 0.1, 0.5, 0.999, 1])
    with np.errstate(divide="ignore"):
        splats.opacities[:] = np.log(alpha) - np.log1p(-alpha)
    keep = filters.opaque_enough(splats, 0.1)
    assert keep.tolist() == [False, False, True, True, True, True]
    assert filters.opaque_enough(splats, 0).all()
    assert filters.opaque_enough(splats, 1).tolist() == [False] * 5 + [True]


def test_size_is_the_largest_standard_deviation(make_splats) -> None:
    splats = make_splats(3)
    splats.scales[:] = np.log([[0.1, 0.01, 0.01], [1, 2, 0.01], [4, 4, 4]])
    assert filters.within_sizes(splats, 0.5, 3).tolist() == [False, True, False]
    assert filters.within_sizes(splats, None, 0.5).tolist() == [True, False, False]
    assert filters.within_sizes(splats, 3, None).tolist() == [False, False, True]
    splats.scales[0] = -np.inf
    assert filters.within_sizes(splats, None, 1.0).tolist() == [True, False, False]


def test_box_and_sphere_judge_the_centre(make_splats) -> None:
    splats = make_splats(4)
    splats.means[:] = [[0, 0, 0], [1, 1, 1], [1, 1, 1.01], [-0.01, 0, 0]]
    assert filters.in_box(splats, [0, 0, 0, 1, 1, 1]).tolist() == [True, True, False, False]
    assert filters.in_sphere(splats, [0, 0, 0, 1.0]).tolist() == [True, False, False, True]
    assert filters.in_sphere(splats, [1, 1, 1, 0.02]).tolist() == [False, True, True, False]


def test_extent_ignores_a_few_far_splats(make_splats) -> None:
    splats = make_splats(1000)
    centre, radius = filters.extent(splats)
    splats.means[:10] += 1e6
    far_centre, far_radius = filters.extent(splats)
    assert np.linalg.norm(far_centre - centre) < 0.3
    assert abs(far_radius / radius - 1) < 0.1
