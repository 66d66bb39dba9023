"""Geometry of a GLB by EXT_meshopt_compression, over quantised attributes.

Knows nothing of textures. Every view becomes a stream of its own, exact but for normals and
tangents, which are octahedral. Format: Khronos EXT_meshopt_compression.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.compress import Placement, steps_of
from models.image_to_mesh.finishing.container import (
    INDEX_BUFFER,
    MESHOPT,
    VERTEX_BUFFER,
    Document,
)
from models.image_to_mesh.finishing.mesh import TexturedMesh
from models.image_to_mesh.finishing.meshopt_attributes import encode_attributes
from models.image_to_mesh.finishing.meshopt_octahedral import encode_octahedral
from models.image_to_mesh.finishing.meshopt_order import in_order
from models.image_to_mesh.finishing.meshopt_triangles import encode_triangles

NORMAL_BITS, TANGENT_BITS = 10, 8
"""A twelfth and a third of a degree, on average."""


def compressed_with_meshopt(
    document: Document, mesh: TexturedMesh
) -> tuple[dict[str, Any], Placement]:
    """The primitive, and the node's scale and translation, as `compress.quantized` gives them."""
    document.uses("KHR_mesh_quantization", required=True)
    document.uses(MESHOPT, required=True)
    faces, old = in_order(mesh.faces)
    source, tangents = mesh.source[old], mesh.tangents
    at, placement = steps_of(mesh.positions, source)
    normals = encode_octahedral(mesh.normals[source], NORMAL_BITS, np.int16)
    uv = np.round(mesh.uv[old] * 65535).astype(np.uint16)
    attributes = {
        "POSITION": document.accessor(
            at, _packed(document, np.pad(at, ((0, 0), (0, 1)))), bounds=True
        ),
        "NORMAL": document.accessor(
            normals[:, :3], _packed(document, normals, filter="OCTAHEDRAL"), normalized=True
        ),
        "TEXCOORD_0": document.accessor(uv, _packed(document, uv), normalized=True),
    }
    if tangents is not None:
        rows = encode_octahedral(
            tangents[old, :3], TANGENT_BITS, np.int8, np.sign(tangents[old, 3]) * 127
        )
        attributes["TANGENT"] = document.accessor(
            rows, _packed(document, rows, filter="OCTAHEDRAL"), normalized=True
        )
    flat = faces.reshape(-1).astype(np.uint16 if len(old) < 65535 else np.uint32)
    view = document.packed_view(
        encode_triangles(faces), len(flat), flat.itemsize, INDEX_BUFFER, mode="TRIANGLES"
    )
    primitive = {"attributes": attributes, "indices": document.accessor(flat, view)}
    return primitive, placement


def _packed(document: Document, rows: npt.NDArray[Any], **more: Any) -> int:
    """Rows (N, C) of a whole number of four bytes, as a view of vertices."""
    rows = np.ascontiguousarray(rows)
    data = encode_attributes(rows.view(np.uint8).reshape(len(rows), -1))
    return document.packed_view(
        data, len(rows), rows.strides[0], VERTEX_BUFFER, mode="ATTRIBUTES", **more
    )
