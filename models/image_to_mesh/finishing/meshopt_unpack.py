"""A GLB with EXT_meshopt_compression as one without, for readers that do not know the extension.

Knows nothing of the encoders: it reads what the format's pages say, so a mistake there shows here.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from models.context import InvalidInput
from models.image_to_mesh.finishing.container import MESHOPT, joined
from models.image_to_mesh.finishing.meshopt_octahedral import decode_octahedral

Bytes = npt.NDArray[np.uint8]


def unpacked(glb: bytes) -> bytes:
    """The file with its views unpacked, or the same bytes where it has no such view.

    Raises InvalidInput where a stream is damaged.
    """
    (size,) = struct.unpack_from("<I", glb, 12)
    document: dict[str, Any] = json.loads(glb[20 : 20 + size])
    if MESHOPT not in document.get("extensionsUsed", []):
        return glb
    stored, binary = glb[28 + size :], bytearray()
    for view in document["bufferViews"]:
        packed = view.get("extensions", {}).get(MESHOPT)
        if packed is not None:
            del view["extensions"]
        place = view if packed is None else packed
        begin = place.get("byteOffset", 0)
        data = stored[begin : begin + place["byteLength"]]
        if packed is not None:
            data = decode_view(data, packed).tobytes()
        view |= {"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)}
        binary += data + bytes(-len(data) % 4)
    for key in ("extensionsUsed", "extensionsRequired"):
        document[key] = [name for name in document[key] if name != MESHOPT]
    document["buffers"] = [{"byteLength": len(binary)}]
    return joined(document, bytes(binary))


def decode_view(data: bytes, how: dict[str, Any]) -> Bytes:
    """One view, by the fields of its extension -> rows of bytes (count, byteStride)."""
    from models.image_to_mesh.finishing import meshopt_unpack_compiled as compiled

    mode, filter_ = how["mode"], how.get("filter", "NONE")
    count, stride = how["count"], how["byteStride"]
    stream = np.frombuffer(data, np.uint8)
    if mode == "TRIANGLES" and filter_ == "NONE":
        faces = np.empty((count // 3, 3), np.int64)
        sound = compiled.triangles(stream, faces) >= 0
        kind = np.uint16 if stride == 2 else np.uint32
        rows = faces.astype(kind).reshape(-1, 1).view(np.uint8)
    elif mode == "ATTRIBUTES" and filter_ in ("NONE", "OCTAHEDRAL"):
        rows = np.empty((count, stride), np.uint8)
        sound = compiled.attributes(stream, rows) >= 0
        if sound and filter_ == "OCTAHEDRAL":
            values = rows.view(np.int8 if stride == 4 else np.int16)
            rows = decode_octahedral(values).view(np.uint8)
    else:
        raise InvalidInput(
            f"A view of the file has the mode {mode} and the filter {filter_}, which are not read.",
            next_step="Save it as plain glTF with another tool.",
        )
    if not sound:
        raise InvalidInput(
            f"A stream of mode {mode} in the file is damaged.",
            next_step="Write or download the file again.",
        )
    return rows
