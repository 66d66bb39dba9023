"""Charts: every face once, none over another, all within the square."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from models.image_to_mesh.finishing import uv as module
from models.image_to_mesh.finishing.texels import cover
from models.image_to_mesh.finishing.uv import unwrap_charts

SIZE = 512


@pytest.fixture(params=["ball in one cluster", "ring in several"])
def mesh(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> trimesh.Trimesh:
    if request.param == "ball in one cluster":
        return trimesh.creation.icosphere(3)
    monkeypatch.setattr(module, "FACES_A_CLUSTER", 300)
    return trimesh.creation.torus(1, 0.4)


def test_every_face_keeps_its_place(mesh: trimesh.Trimesh) -> None:
    charts = unwrap_charts(mesh.vertices, mesh.faces.astype(np.int32), SIZE)
    assert np.array_equal(charts.source[charts.faces], mesh.faces)
    assert charts.uv.min() >= 0
    assert charts.uv.max() <= 1
    assert charts.uv.max() > 0.95  # the square is used to its end
    assert charts.charts > 1
    assert 0.3 < charts.filled <= 1


def test_no_chart_lies_over_another(mesh: trimesh.Trimesh) -> None:
    """The texels that faces cover one by one are as many as they cover together."""
    charts = unwrap_charts(mesh.vertices, mesh.faces.astype(np.int32), SIZE)
    corners = charts.uv[charts.faces].astype(np.float64)
    edge, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    doubled = edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0]
    together = len(cover(charts.uv, charts.faces, SIZE).index)
    # Faces' areas count what lies twice twice. Texels at edges make some per cent of difference.
    assert np.abs(doubled).sum() / 2 * SIZE**2 == pytest.approx(together, rel=0.01)
    # Packing may turn a chart over, but whole: a texture vertex has one handedness.
    turned = np.zeros((len(charts.uv), 2), bool)
    turned[charts.faces, (doubled > 0).astype(int)[:, None]] = True
    assert not turned.all(axis=1).any()


def test_texels_are_spread_evenly(mesh: trimesh.Trimesh) -> None:
    """A face's share of the texture follows its share of the surface."""
    charts = unwrap_charts(mesh.vertices, mesh.faces.astype(np.int32), SIZE)
    corners = charts.uv[charts.faces].astype(np.float64)
    edge, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    share = np.abs(edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0]) / mesh.area_faces
    assert np.percentile(share, 95) < 2 * np.percentile(share, 5)
