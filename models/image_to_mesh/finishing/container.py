"""The container of binary glTF 2.0: a document that grows part by part, and its bytes.

Knows nothing of what the parts mean. Format: Khronos glTF 2.0 specification, sections 3.6 and 4.4.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

COMPONENTS = {
    np.dtype(np.int8): 5120,
    np.dtype(np.uint8): 5121,
    np.dtype(np.int16): 5122,
    np.dtype(np.uint16): 5123,
    np.dtype(np.uint32): 5125,
    np.dtype(np.float32): 5126,
}
VERTEX_BUFFER, INDEX_BUFFER = 34962, 34963
MESHOPT = "EXT_meshopt_compression"


class Document:
    """One buffer, and the views, accessors and images that describe it; `root` holds the rest."""

    def __init__(self) -> None:
        self.root: dict[str, Any] = {"asset": {"version": "2.0", "generator": "meshpress"}}
        self.accessors: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []
        self._views: list[dict[str, Any]] = []
        self._binary = bytearray()
        self._unpacked = 0

    def view(self, data: bytes, **more: Any) -> int:
        """A run of bytes, aligned to four; -> its index."""
        self._views.append(
            {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data), **more}
        )
        self._binary += data + bytes(-len(data) % 4)
        return len(self._views) - 1

    def packed_view(self, data: bytes, count: int, stride: int, target: int, **how: str) -> int:
        """A view of `count` rows of so many bytes, stored by EXT_meshopt_compression; -> its index.

        how: the extension's mode and filter. Unpacked it lies in a second buffer, which has a size
        and no bytes: the extension is required.
        """
        packed = self._views[self.view(data)]
        size = count * stride
        wide = {"byteStride": stride} if target == VERTEX_BUFFER else {}
        extension = {**packed, "byteStride": stride, "count": count, **how}
        packed |= {"buffer": 1, "byteOffset": self._unpacked, "byteLength": size, **wide}
        packed |= {"target": target, "extensions": {MESHOPT: extension}}
        self._unpacked += size + -size % 4
        return len(self._views) - 1

    def vertices(
        self, values: npt.NDArray[Any], *, normalized: bool = False, bounds: bool = False
    ) -> int:
        """An attribute (N, C), each row padded to four bytes; -> its accessor."""
        padding = -(values.shape[1] * values.itemsize) % 4 // values.itemsize
        rows = np.ascontiguousarray(np.pad(values, ((0, 0), (0, padding))))
        stride = {"byteStride": rows.strides[0]} if padding else {}
        view = self.view(rows.tobytes(), target=VERTEX_BUFFER, **stride)
        return self.accessor(values, view, normalized=normalized, bounds=bounds)

    def indices(self, faces: npt.NDArray[np.int32], vertices: int) -> int:
        """Triangles (F, 3), 16 bits an index where that is enough; -> their accessor."""
        # The largest number of a type is no index: it restarts a strip.
        flat = faces.reshape(-1).astype(np.uint16 if vertices < 65535 else np.uint32)
        return self.accessor(flat, self.view(flat.tobytes(), target=INDEX_BUFFER))

    def accessor(
        self,
        values: npt.NDArray[Any],  # (N,) or (N, C): how many, and of what
        view: int | None,  # None: an extension says where they are
        *,
        normalized: bool = False,
        bounds: bool = False,
    ) -> int:
        entry: dict[str, Any] = {
            "componentType": COMPONENTS[values.dtype],
            "count": len(values),
            "type": "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}",
        }
        if view is not None:
            entry["bufferView"] = view
        if normalized:
            entry["normalized"] = True
        if bounds:
            entry["min"], entry["max"] = values.min(axis=0).tolist(), values.max(axis=0).tolist()
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def image(self, data: bytes, media_type: str) -> int:
        self.images.append({"bufferView": self.view(data), "mimeType": media_type})
        return len(self.images) - 1

    def uses(self, extension: str, *, required: bool) -> None:
        for key in ("extensionsUsed", *(["extensionsRequired"] if required else [])):
            names = self.root.setdefault(key, [])
            if extension not in names:
                names.append(extension)

    def glb(self) -> bytes:
        parts = {"accessors": self.accessors, "bufferViews": self._views, "images": self.images}
        document = {**self.root, **{name: part for name, part in parts.items() if part}}
        document["buffers"] = [{"byteLength": len(self._binary)}]
        if self._unpacked:
            fallback = {MESHOPT: {"fallback": True}}
            document["buffers"].append({"byteLength": self._unpacked, "extensions": fallback})
        return joined(document, bytes(self._binary))


def joined(document: dict[str, Any], binary: bytes) -> bytes:
    """Both chunks, each padded to four bytes."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    return b"".join(
        (
            struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary)),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(binary), b"BIN\0"),
            binary,
        )
    )
