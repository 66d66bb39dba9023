"""Scenes follow each other, padded to one degree; different models are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.context import InvalidInput
from models.splat_to_sog.scene.merge import merge


def test_lower_degrees_are_padded_with_zeros(make_splats) -> None:
    first, second = make_splats(5, 1), make_splats(4, 3)
    merged = merge([first, second])
    assert (len(merged), merged.degree) == (9, 3)
    np.testing.assert_array_equal(merged.means, np.concatenate([first.means, second.means]))
    np.testing.assert_array_equal(merged.opacities[5:], second.opacities)
    np.testing.assert_array_equal(merged.shN[:5, :, :3], first.shN)
    assert not merged.shN[:5, :, 3:].any()
    np.testing.assert_array_equal(merged.shN[5:], second.shN)


def test_one_scene_is_itself(make_splats) -> None:
    splats = make_splats(3)
    assert merge([splats]) is splats


def test_models_must_agree_and_the_message_names_the_files(make_splats) -> None:
    other = replace(make_splats(2), model="antialiased")
    with pytest.raises(InvalidInput, match="b.ply .*'antialiased'.* a.ply .*'default'") as caught:
        merge([make_splats(2), other], ["a.ply", "b.ply"])
    assert caught.value.code == "splat_models_differ"
    assert caught.value.next_step


def test_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        merge([])
