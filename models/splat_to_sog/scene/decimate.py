"""Fewer splats that look the same: neighbours are merged, the least visible changes first."""

from __future__ import annotations

import time

import numpy as np
from scipy.spatial import cKDTree

from models.splat_to_sog.order import hilbert_order
from models.splat_to_sog.quantize import quantize_positions
from models.splat_to_sog.scene.matching import cheapest_pairs
from models.splat_to_sog.scene.moments import moments_of, splats_of
from models.splat_to_sog.scene.pair_cost import PairCost

NEIGHBOURS = 8
ROUND_SHARE = 0.2
PIXEL = 0.002
BLUR = 0.3


def decimate(
    splats,
    keep,
    cost=None,
    neighbours=NEIGHBOURS,
    share=ROUND_SHARE,
    pixel=PIXEL,
    verbose=False,
    acc=0,
    gamma=0.0,
    ga=0.0,
    visible=None,
    maxk=None,
):
    cost = cost or PairCost()
    order = hilbert_order(quantize_positions(splats.means).steps)
    scene = moments_of(splats, order)
    centre = np.median(scene.means, axis=0)
    radius = np.percentile(np.linalg.norm(scene.means - centre, axis=1), 80)
    T = {}
    vis = np.ones(len(scene), np.float32) if visible is None else visible(scene, centre, radius)

    def tick(name, t):
        T[name] = T.get(name, 0) + time.process_time() - t

    while len(scene) > keep:
        n = len(scene)
        t = time.process_time()
        far = ((scene.means - centre) ** 2).sum(1) / radius**2
        blur = (BLUR * (pixel * radius) ** 2 * (1 + far)).astype(np.float32)
        areas = cost.areas(scene.covs, blur)
        tick("area", t)
        t = time.process_time()
        tree = cKDTree(scene.means)
        _, near = tree.query(scene.means, k=min(neighbours + 1, n))
        tick("knn", t)
        t = time.process_time()
        i = np.repeat(np.arange(n), near.shape[1])
        j = near.ravel()
        i, j = np.minimum(i, j), np.maximum(i, j)
        key = np.unique((i * n + j)[i != j])
        i, j = key // n, key % n
        tick("edges", t)
        t = time.process_time()
        errors = np.empty(len(i), np.float32)
        for s in range(0, len(i), 1 << 15):
            r = slice(s, s + (1 << 15))
            errors[r] = cost.merge(scene, areas, vis, blur, i[r], j[r]).errors
        errors /= (1 + far[i]).astype(np.float32)
        if gamma:
            errors /= (areas[i] + areas[j] + 1e-20) ** gamma
        if ga:
            errors /= (np.maximum(scene.alphas[i], scene.alphas[j]) + 1e-6) ** ga
        raw = errors
        base = scene.errors[i] + scene.errors[j]
        if acc == 1:
            errors = errors + base
        if acc == 2:
            errors = (np.sqrt(errors) + np.sqrt(scene.errors[i]) + np.sqrt(scene.errors[j])) ** 2
        if acc == 3:
            errors = (np.sqrt(errors) + np.sqrt(base)) ** 2
        if acc == 4:
            errors = (np.sqrt(errors) + np.sqrt(base)) ** 2 - base
        tick("cost", t)
        t = time.process_time()
        limit = min(n - keep, max(1, int(share * n)))
        chosen = cheapest_pairs(i, j, errors, n, limit)
        tick("match", t)
        t = time.process_time()
        er = errors[chosen]
        i, j = i[chosen], j[chosen]
        merged = cost.merge(scene, areas, vis, blur, i, j)
        scene.means[i], scene.covs[i], scene.alphas[i] = merged.means, merged.covs, merged.alphas
        w = merged.shares[:, None]
        scene.colours[i] = w * scene.colours[i] + (1 - w) * scene.colours[j]
        scene.errors[i] = er if acc else scene.errors[i] + scene.errors[j] + er
        scene.sources[i] = -1
        alive = np.ones(n, bool)
        alive[j] = False
        vis[i] = np.maximum(vis[i], vis[j])
        scene = scene.take(alive)
        vis = vis[alive]
        tick("apply", t)
    t = time.process_time()
    out = splats_of(scene, splats)
    tick("back", t)
    if verbose:
        print({k: round(v, 2) for k, v in T.items()})
    return out
