"""The parts of a GLB as numpy arrays, straight from the format's pages: no reader's own ideas.

Khronos glTF 2.0 specification, sections 3.6.2 (accessors) and 4.4 (container).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def parse(glb: bytes) -> tuple[dict[str, Any], bytes]:
    """The document, and the binary chunk."""
    length = int.from_bytes(glb[12:16], "little")
    return json.loads(glb[20 : 20 + length]), glb[28 + length :]


def view(document: dict[str, Any], binary: bytes, index: int) -> bytes:
    entry = document["bufferViews"][index]
    return binary[entry["byteOffset"] : entry["byteOffset"] + entry["byteLength"]]


def accessor(document: dict[str, Any], binary: bytes, index: int) -> np.ndarray:
    """(N, C); normalised whole numbers as the numbers they stand for."""
    entry = document["accessors"][index]
    kind, width = np.dtype(TYPES[entry["componentType"]]), WIDTHS[entry["type"]]
    stride = document["bufferViews"][entry["bufferView"]].get("byteStride", kind.itemsize * width)
    data = view(document, binary, entry["bufferView"])
    rows = np.frombuffer(data, np.uint8).reshape(-1, stride)[:, : kind.itemsize * width]
    values = np.ascontiguousarray(rows).view(kind)
    assert len(values) == entry["count"]
    if not entry.get("normalized"):
        return values
    return np.maximum(values / np.iinfo(kind).max, -1)
