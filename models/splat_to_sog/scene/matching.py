"""Disjoint pairs of least cost out of a graph: greedy matching, many edges at a time.

Does not know what the nodes are. An edge that is the cheapest of both its ends is one that the
greedy algorithm would take (Preis, "Linear time 1/2-approximation algorithm for maximum weighted
matching", 1999), so all such edges are taken at once, their ends leave the graph, and so on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


def cheapest_pairs(
    i: Indices,  # [E]
    j: Indices,  # [E]
    costs: NDArray[np.floating],  # [E]
    nodes: int,
    limit: int,
) -> Indices:  # [M], M <= limit
    """Edges of a greedy matching, cheapest first; equal costs: the earlier edge first."""
    order = np.argsort(costs, kind="stable")
    i, j = i[order], j[order]
    rank = np.arange(len(order))
    free = np.ones(nodes, bool)
    best = np.empty(nodes, np.intp)
    taken = []
    while len(rank):
        a, b = i[rank], j[rank]
        # The last write wins: backwards, so that a node ends with its cheapest edge.
        backwards = rank[::-1]
        both = np.stack([b[::-1], a[::-1]], axis=1).ravel()
        best[both] = np.repeat(backwards, 2)
        won = (best[a] == rank) & (best[b] == rank)
        taken.append(rank[won])
        free[a[won]] = False
        free[b[won]] = False
        rank = rank[free[a] & free[b]]
    return order[np.sort(np.concatenate(taken))[:limit]] if taken else order[:0]


def cheapest_pairs_reference(
    i: Indices, j: Indices, costs: NDArray[np.floating], nodes: int, limit: int
) -> Indices:
    """The same, edge by edge. For tests."""
    free = np.ones(nodes, bool)
    taken: list[int] = []
    for edge in np.argsort(costs, kind="stable"):
        if free[i[edge]] and free[j[edge]] and len(taken) < limit:
            free[[i[edge], j[edge]]] = False
            taken.append(int(edge))
    return np.array(taken, np.intp)
