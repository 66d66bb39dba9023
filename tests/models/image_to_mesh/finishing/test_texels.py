"""Texels: compiled loops and PyTorch against the plain rasteriser; padding in smaller copies."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from models.image_to_mesh.finishing import rasterize_device
from models.image_to_mesh.finishing.fill import fill_nearest
from models.image_to_mesh.finishing.rasterize import rasterize
from models.image_to_mesh.finishing.texels import cover, interpolate

SIZE = 200


def charts(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Small triangles that lie anywhere, slivers and one without area among them."""
    corners = rng.random((400, 1, 2)) + rng.normal(size=(400, 3, 2)) * rng.uniform(0, 0.05)
    corners[0] = corners[0, 0]
    uv = np.clip(corners, 0, 1).reshape(-1, 2).astype(np.float32)
    return uv, np.arange(len(uv), dtype=np.int32).reshape(-1, 3)


def test_loops_cover_what_the_plain_rasteriser_covers(rng: np.random.Generator) -> None:
    uv, faces = charts(rng)
    points = uv.astype(np.float64) * SIZE - 0.5
    texels = cover(uv, faces, SIZE)
    plain = rasterize(points, np.zeros(len(points)), faces, SIZE, SIZE)
    # Centres on an edge to within float32 of the plain one may go either way.
    assert (texels.covered != plain.covered).mean() < 1e-3
    placed = interpolate(texels.face, texels.weights, faces, points.astype(np.float32))
    rows, columns = np.divmod(texels.index, SIZE)
    assert np.abs(placed - np.stack((columns, rows), 1)).max() < 1e-3


def test_pytorch_covers_what_the_loops_cover(rng: np.random.Generator) -> None:
    uv, faces = charts(rng)
    texels = cover(uv, faces, SIZE)
    index, face, weights = rasterize_device.cover(
        torch.from_numpy(uv), torch.from_numpy(faces).long(), SIZE
    )
    assert np.array_equal(index.numpy(), texels.index)
    assert np.array_equal(face.numpy(), texels.face)
    assert np.abs(weights.numpy() - texels.weights).max() < 1e-5  # slivers magnify rounding


def test_padding_keeps_the_background_out_of_smaller_copies(rng: np.random.Generator) -> None:
    """White charts on black: a tenth of the texture's size still shows white alone."""
    uv, faces = charts(rng)
    known = cover(uv, faces, SIZE).covered
    assert 0.1 < known.mean() < 0.9
    white = np.where(known[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    padded = fill_nearest(white, known)
    assert np.array_equal(padded[known], white[known])
    assert cv2.resize(padded, (20, 20), interpolation=cv2.INTER_AREA).min() == 255
    assert not known.all() and white.min() == 0  # the caller's picture stays as it was
