"""Geometry of a GLB in fewer bytes: quantised (KHR_mesh_quantization), or by Draco.

Knows nothing of textures; `meshopt` packs what is quantised here. Graphics cards read quantised
attributes as they are; Draco (KHR_draco_mesh_compression) is smaller still and needs a decoder in
the viewer, and DracoPy here.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from models.context import Unavailable
from models.image_to_mesh.finishing.container import Document
from models.image_to_mesh.finishing.mesh import TexturedMesh

Compression = Literal["none", "quantize", "meshopt", "draco"]
Placement = dict[str, Any]
"""Of a node: the scale and translation that undo the steps of quantised positions."""

POSITION_BITS, TEXTURE_BITS, NORMAL_BITS = 16, 14, 10
"""Of Draco: a 65,000th of the object, an eighth of a texel at 2048, a tenth of a degree."""
DRACO_LEVEL = 7


def quantized(document: Document, mesh: TexturedMesh) -> tuple[dict[str, Any], Placement]:
    """The primitive, and what undoes the steps of positions.

    Positions, normals and texture coordinates in 16 bits, tangents in 8: half the bytes.
    """
    document.uses("KHR_mesh_quantization", required=True)
    at, placement = steps_of(mesh.positions, mesh.source)
    attributes = {
        "POSITION": document.vertices(at, bounds=True),
        "NORMAL": document.vertices(_signed(mesh.normals[mesh.source], np.int16), normalized=True),
        "TEXCOORD_0": document.vertices(
            np.round(mesh.uv * 65535).astype(np.uint16), normalized=True
        ),
    }
    if mesh.tangents is not None:
        attributes["TANGENT"] = document.vertices(_signed(mesh.tangents, np.int8), normalized=True)
    primitive = {
        "attributes": attributes, "indices": document.indices(mesh.faces, len(mesh.source)),
    }  # fmt: skip
    return primitive, placement


def steps_of(
    positions: npt.NDArray[np.float32],  # (V, 3)
    source: npt.NDArray[np.int64],  # (N,) the position of each texture vertex
) -> tuple[npt.NDArray[np.uint16], Placement]:
    """(N, 3) in 65,535ths of the longest side, and what undoes them."""
    low = positions.min(axis=0).astype(np.float64)
    step = max(float((positions.max(axis=0) - low).max()), 1e-12) / 65535
    at = _apart((positions - low) / step).astype(np.uint16)
    return at[source], {"scale": [step] * 3, "translation": low.tolist()}


def _apart(exact: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(V, 3) in steps, rounded so that no two places become one: that would open the surface.

    Of places that share a step all but the first take the nearest free one beside it, if any.
    """
    steps = np.round(exact).astype(np.int64)
    places = np.array([1 << 32, 1 << 16, 1])
    keys = steps @ places
    _, first = np.unique(keys, return_index=True)
    taken = set(keys.tolist())
    around = np.indices((3, 3, 3)).reshape(3, -1).T - 1
    for index in np.setdiff1d(np.arange(len(steps)), first):
        near = steps[index] + around
        near = near[((near >= 0) & (near < 1 << 16)).all(axis=1)]
        order = np.argsort(((near - exact[index]) ** 2).sum(axis=1), kind="stable")
        free = [k for k in order if int(near[k] @ places) not in taken]
        if free:
            steps[index] = near[free[0]]
            taken.add(int(steps[index] @ places))
    return steps


def compressed_with_draco(document: Document, mesh: TexturedMesh) -> dict[str, Any]:
    """The primitive. Tangents stay beside Draco's data, in the order its decoder gives."""
    try:
        import DracoPy
    except ImportError as error:
        raise Unavailable(
            "Draco compression needs the package DracoPy, which is not installed.",
            code="compression_unavailable",
            next_step="Run pip install 'meshpress[draco]', or choose compression quantize or none.",
        ) from error
    document.uses("KHR_draco_mesh_compression", required=True)
    data = DracoPy.encode(
        mesh.positions[mesh.source],
        mesh.faces.astype(np.uint32),
        quantization_bits=POSITION_BITS,
        compression_level=DRACO_LEVEL,
        tex_coord=mesh.uv.astype(np.float64),
        normals=mesh.normals[mesh.source].astype(np.float64),
        tex_coord_quantization_bits=TEXTURE_BITS,
        normal_quantization_bits=NORMAL_BITS,
    )
    decoded = DracoPy.decode(data)
    kinds = DracoPy.AttributeType
    ids = {
        name: int(decoded.get_attribute_by_type(kind)["unique_id"])
        for name, kind in (
            ("POSITION", kinds.POSITION),
            ("NORMAL", kinds.NORMAL),
            ("TEXCOORD_0", kinds.TEX_COORD),
        )
    }
    points = np.asarray(decoded.points, np.float32).reshape(-1, 3)
    attributes = {
        "POSITION": document.accessor(points, None, bounds=True),
        "NORMAL": document.accessor(points, None),
        "TEXCOORD_0": document.accessor(np.empty((len(points), 2), np.float32), None),
    }
    if mesh.tangents is not None:
        both = np.hstack((mesh.positions[mesh.source], mesh.uv))
        _, order = cKDTree(both).query(np.hstack((points, np.asarray(decoded.tex_coord))))
        document.uses("KHR_mesh_quantization", required=True)
        attributes["TANGENT"] = document.vertices(
            _signed(mesh.tangents[order], np.int8), normalized=True
        )
    faces = np.asarray(decoded.faces).reshape(-1)
    wide = np.uint16 if len(points) < 65535 else np.uint32
    return {
        "attributes": attributes,
        "indices": document.accessor(faces.astype(wide), None),
        "extensions": {
            "KHR_draco_mesh_compression": {"bufferView": document.view(data), "attributes": ids}
        },
    }


def _signed(values: npt.NDArray[np.float32], kind: type[np.signedinteger[Any]]) -> Any:
    """-1..1 as whole numbers of a type, normalised as glTF says (section 3.6.2.2)."""
    return np.round(np.clip(values, -1, 1) * np.iinfo(kind).max).astype(kind)
