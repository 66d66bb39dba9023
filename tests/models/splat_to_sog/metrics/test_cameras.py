"""The orbit: around the middle, robust to strays, defined for every scene."""

from __future__ import annotations

import numpy as np
import pytest

from models.splat_to_sog.metrics.cameras import orbit
from models.splat_to_sog.metrics.project import project
from tests.models.splat_to_sog.conftest import MakeSplats
from tests.models.splat_to_sog.metrics.conftest import MakeScene


def test_cameras_face_the_middle(make_splats: MakeSplats) -> None:
    splats = make_splats(500)
    middle = np.median(splats.means, axis=0)
    radius = np.percentile(np.linalg.norm(splats.means - middle, axis=1), 80)
    cameras = orbit(splats, 8, 256)
    assert len(cameras) == 8
    for view, camera in enumerate(cameras):
        np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(camera.rotation) == pytest.approx(1, abs=1e-5)
        distance = (1.1 if view % 2 else 2.2) * radius
        seen = camera.rotation @ (middle - camera.position)
        np.testing.assert_allclose(seen, [0, 0, distance], atol=1e-4)
        assert camera.rotation[0, 1] == pytest.approx(0, abs=1e-6)  # level horizon
        assert camera.rotation[1, 1] > 0  # y points down in a 3DGS scene
        assert camera.near == pytest.approx(0.02 * radius)


def test_strays_do_not_shrink_the_scene(make_splats: MakeSplats) -> None:
    splats = make_splats(1000)
    splats.means[:20] = 1e6
    assert np.linalg.norm(orbit(splats, 1, 64)[0].position) < 30


@pytest.mark.parametrize("log_scale", [-3.0, -np.inf, 70.0, 100.0])
def test_one_splat_is_looked_at(log_scale: float, one_splat: MakeScene) -> None:
    splats = one_splat(mean=(5, 6, 7), log_scale=log_scale)
    for camera in orbit(splats, 4, 64):
        assert len(project(splats, camera)) == 1
