"""Streams of EXT_meshopt_compression, read by three decoders: plain, compiled, and meshoptimizer's.

The plain one (`plain_meshopt`) is written from the format's pages alone.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from models.context import InvalidInput
from models.image_to_mesh.finishing.check import read_back
from models.image_to_mesh.finishing.finish import FinishOptions, finish
from models.image_to_mesh.finishing.glb import encode_glb
from models.image_to_mesh.finishing.mesh import TexturedMesh
from models.image_to_mesh.finishing.meshopt_attributes import encode_attributes
from models.image_to_mesh.finishing.meshopt_octahedral import (
    decode_octahedral,
    encode_octahedral,
)
from models.image_to_mesh.finishing.meshopt_order import in_order
from models.image_to_mesh.finishing.meshopt_triangles import encode_triangles
from models.image_to_mesh.finishing.meshopt_unpack import decode_view, unpacked
from tests.models.image_to_mesh.finishing import plain_meshopt
from tests.models.image_to_mesh.finishing.bumpy import bumpy
from tests.models.image_to_mesh.finishing.parse_glb import accessor, parse, view

NAME = "EXT_meshopt_compression"
PACKAGES = Path(__file__).parents[1]
SCRIPT = """
const decoder = require('meshoptimizer/decoder.cjs');
const { readFileSync } = require('fs');
decoder.ready.then(() => {
  for (const view of JSON.parse(readFileSync(0))) {
    const rows = new Uint8Array(view.count * view.byteStride);
    const data = Buffer.from(view.data, 'base64');
    decoder.decodeGltfBuffer(rows, view.count, view.byteStride, data, view.mode, view.filter);
    console.log(Buffer.from(rows).toString('base64'));
  }
});
"""
Reference = Callable[[list[tuple[bytes, dict[str, Any]]]], list[bytes]]


@pytest.fixture(scope="session")
def reference() -> Reference:
    """reference([(data, fields of the extension)]) -> bytes of each, by meshoptimizer's decoder."""
    node = shutil.which("node")
    if node is None or not (PACKAGES / "node_modules" / "meshoptimizer").is_dir():
        pytest.skip(f"Node.js or meshoptimizer absent: 'npm ci --ignore-scripts' in {PACKAGES}")

    def run(views: list[tuple[bytes, dict[str, Any]]]) -> list[bytes]:
        asked = [
            {"filter": "NONE", **how, "data": base64.b64encode(data).decode()}
            for data, how in views
        ]
        done = subprocess.run(
            [node, "-e", SCRIPT],
            cwd=PACKAGES,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return [base64.b64decode(line) for line in done.stdout.split()]

    return run


def random_rows(rng: np.random.Generator) -> list[np.ndarray]:
    """Every block and group that is cut short, and differences of every width."""
    sizes = [(1, 4), (15, 4), (16, 8), (17, 12), (255, 4), (256, 8), (257, 16), (1500, 8)]
    sizes += [(200, 64), (70, 256), (300, 100)]
    rows = [
        np.cumsum(rng.integers(-most, most + 1, size), axis=0).astype(np.uint8)
        for size in sizes
        for most in (1, 6, 200)
    ]
    mixed = rng.integers(-128, 128, (800, 8)) >> rng.integers(0, 9, (800, 8)).repeat(1, 0)
    return [*rows, np.cumsum(mixed, axis=0).astype(np.uint8)]


def random_triangles(rng: np.random.Generator) -> list[np.ndarray]:
    """Triangles without any order, few and many vertices, and a surface walked along its edges."""
    loose = [
        rng.integers(0, most, (count, 3))
        for count, most in ((1, 3), (40, 8), (500, 20), (500, 60), (700, 4000), (300, 2**31 - 1))
    ]
    surface = trimesh.creation.icosphere(3).faces
    walked, _ = in_order(surface[rng.permutation(len(surface))].astype(np.int32))
    return [faces.astype(np.int32) for faces in [*loose, np.arange(30).reshape(-1, 3)]] + [walked]


def turned(faces: np.ndarray) -> np.ndarray:
    """Each triangle from the corner on that makes it the least: what a stream may change."""
    turns = np.stack([np.roll(faces, -k, axis=1) for k in range(3)], axis=1)
    least = np.lexsort(turns.transpose(2, 0, 1)[::-1], axis=1)[:, 0]
    return turns[np.arange(len(faces)), least]


def of_rows(rows: np.ndarray) -> tuple[bytes, dict[str, Any]]:
    how = {"mode": "ATTRIBUTES", "count": len(rows), "byteStride": rows.shape[1]}
    return encode_attributes(rows), how


def of_triangles(faces: np.ndarray, wide: int = 4) -> tuple[bytes, dict[str, Any]]:
    return encode_triangles(faces), {"mode": "TRIANGLES", "count": faces.size, "byteStride": wide}


def test_group_is_the_specification_s_example() -> None:
    """Appendix A, mode 0: the one group written out there, after sixteen rows of nothing."""
    differences = [-1, -4, -3, 26, -91, 0, -6, 6, -4, -4, 5, -5, 1, -1, 0, 0]
    group = bytes.fromhex("175ff0bc77a9210034b5")
    read, end = plain_meshopt.read_deltas(group, 0, 2)
    assert [plain_meshopt.unzigzag(value) for value in read] == differences
    assert end == len(group)
    rows = np.zeros((32, 4), np.uint8)
    rows[16:, 0] = np.cumsum(differences).astype(np.uint8)
    assert encode_attributes(rows) == b"\xa0\x08" + group + bytes(3) + bytes(32)


def test_rows_come_back(rng: np.random.Generator) -> None:
    for rows in random_rows(rng):
        data, how = of_rows(rows)
        assert plain_meshopt.read_attributes(data, *rows.shape) == rows.tobytes()
        assert decode_view(data, how).tobytes() == rows.tobytes()


def test_triangles_come_back(rng: np.random.Generator) -> None:
    for faces in random_triangles(rng):
        data, how = of_triangles(faces)
        read = np.array(plain_meshopt.read_triangles(data, len(faces)))
        assert (turned(read) == turned(faces)).all()
        assert decode_view(data, how).tobytes() == read.astype(np.uint32).tobytes()


def test_a_rare_triangle_of_new_vertices_is_no_restart(rng: np.random.Generator) -> None:
    """Told outside the table it would send the numbering back to zero."""
    remembered = list(range(14, -1, -1))  # the newest first
    faces = [remembered[k : k + 3][::-1] for k in (12, 9, 6, 3, 0)]
    for new in range(15, 1015):
        b, c = remembered[rng.integers(5, 9)], remembered[rng.integers(9, 14)]
        faces.append([new, b, c])
        remembered = [new, *remembered[:13]]
    faces.append([1015, 1016, 1017])
    read = plain_meshopt.read_triangles(encode_triangles(np.array(faces, np.int32)), len(faces))
    assert [list(face) for face in read] == faces


@pytest.mark.node
def test_reference_decoder_reads_the_same(reference: Reference, rng: np.random.Generator) -> None:
    """Bit for bit; triangles in the order of corners in which the others read them too."""
    rows, faces = random_rows(rng), random_triangles(rng)
    narrow = [f for f in faces if f.max() < 65536]
    views = [*map(of_rows, rows), *map(of_triangles, faces)]
    views += [of_triangles(f, 2) for f in narrow]
    for (data, how), read in zip(views, reference(views), strict=True):
        assert decode_view(data, how).tobytes() == read


def test_order_keeps_the_surface(rng: np.random.Generator) -> None:
    """The same triangles with the same winding; vertices in the order they are met in."""
    surface = trimesh.creation.icosphere(4).faces.astype(np.int32)
    seamed = np.where(np.arange(len(surface))[:, None] % 7 == 0, surface + 5000, surface)
    for faces in (surface, seamed.astype(np.int32), random_triangles(rng)[4]):
        shuffled = faces[rng.permutation(len(faces))]
        ordered, old = in_order(shuffled)
        same = [np.array(sorted(map(tuple, turned(f)))) for f in (old[ordered], shuffled)]
        assert (same[0] == same[1]).all()
        met = np.maximum.accumulate(ordered.reshape(-1))
        assert (np.diff(met, prepend=-1) <= 1).all()
        assert len(old) == len(np.unique(faces)) == ordered.max() + 1


def test_order_brings_triangles_to_a_byte(rng: np.random.Generator) -> None:
    """As given, at random, a triangle takes several; the format's least is one."""
    surface = trimesh.creation.icosphere(5).faces.astype(np.int32)
    shuffled = surface[rng.permutation(len(surface))]
    ordered, _ = in_order(shuffled)
    assert len(encode_triangles(ordered)) < 1.15 * len(surface)
    assert len(encode_triangles(shuffled)) > 3 * len(surface)


@pytest.mark.parametrize("bits, kind, degrees", [(8, np.int8, 1.4), (10, np.int16, 0.24)])
def test_directions_come_back(
    bits: int, kind: Any, degrees: float, rng: np.random.Generator
) -> None:
    """degrees: half a step of the square, where the octahedron draws it longest, and rounding."""
    vectors = rng.normal(size=(5000, 3))
    vectors = np.vstack((vectors, np.eye(3), -np.eye(3), [[1, 1, 0], [-1, 0, -1]]))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = encode_octahedral(vectors.astype(np.float32), bits, kind, 7)
    most = np.iinfo(kind).max
    exact = np.array([plain_meshopt.turn_back(row, most) for row in rows.tolist()])
    read = decode_octahedral(rows)
    assert (read[:, 3] == 7).all()
    assert np.abs(read - exact).max() < 0.51  # float32 may round a half the other way
    back = read[:, :3] / np.linalg.norm(read[:, :3], axis=1, keepdims=True)
    gap = np.degrees(2 * np.arcsin(np.linalg.norm(back - vectors, axis=1) / 2))
    assert gap.max() < degrees


@pytest.mark.node
def test_reference_filter_gives_the_same_directions(
    reference: Reference, rng: np.random.Generator
) -> None:
    """To one step, as much as the format promises."""
    vectors = rng.normal(size=(3000, 3))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    for bits, kind in ((8, np.int8), (10, np.int16)):
        rows = encode_octahedral(vectors, bits, kind)
        data, how = of_rows(rows.view(np.uint8))
        (read,) = reference([(data, how | {"filter": "OCTAHEDRAL"})])
        theirs = np.frombuffer(read, kind).reshape(-1, 4).astype(int)
        assert np.abs(theirs - decode_octahedral(rows)).max() <= 1


@pytest.fixture(scope="module")
def textured() -> TexturedMesh:
    return finish(bumpy(5), FinishOptions(3000, 256)).mesh


def packed_views(glb: bytes) -> list[tuple[bytes, dict[str, Any]]]:
    document, binary = parse(glb)
    every = [entry.get("extensions", {}).get(NAME) for entry in document["bufferViews"]]
    return [
        (binary[how["byteOffset"] : how["byteOffset"] + how["byteLength"]], how)
        for how in every
        if how is not None
    ]


def test_finished_mesh_is_the_quantised_one(textured: TexturedMesh) -> None:
    """Positions and texture coordinates exactly, vertex by vertex; directions nearly."""
    files = {kind: encode_glb(textured, compression=kind) for kind in ("quantize", "meshopt")}
    assert read_back(files["meshopt"]) == read_back(files["quantize"])
    assert read_back(files["meshopt"]).watertight
    found = {}
    for kind, glb in files.items():
        document, binary = parse(unpacked(glb))
        (primitive,) = document["meshes"][0]["primitives"]
        faces = accessor(document, binary, primitive["indices"]).reshape(-1, 3)
        names = ("POSITION", "TEXCOORD_0", "NORMAL", "TANGENT")
        rows = np.hstack(
            [accessor(document, binary, primitive["attributes"][name]) for name in names]
        )
        # Vertices numbered by place and texture coordinates, whatever their order in the file.
        number, inverse = np.unique(rows[:, :5], axis=0, return_index=True, return_inverse=True)[1:]
        every = turned(inverse.reshape(-1)[faces])
        found[kind] = rows[number], every[np.lexsort(every.T)]
    (ours, our_faces), (theirs, their_faces) = found["meshopt"], found["quantize"]
    assert (our_faces == their_faces).all()
    assert (ours[:, :5] == theirs[:, :5]).all()
    assert np.abs(ours[:, 5:8] - theirs[:, 5:8]).max() < 0.005  # ten bits around an octahedron
    assert np.abs(ours[:, 8:] - theirs[:, 8:]).max() < 0.025  # eight


@pytest.mark.node
def test_finished_mesh_is_read_by_all(textured: TexturedMesh, reference: Reference) -> None:
    """Before filters bit for bit, by three decoders."""
    views = [(data, {**how, "filter": "NONE"}) for data, how in packed_views(encode(textured))]
    assert len(views) == 5
    for (data, how), theirs in zip(views, reference(views), strict=True):
        assert decode_view(data, how).tobytes() == theirs
        if how["mode"] == "ATTRIBUTES":
            plain = plain_meshopt.read_attributes(data, how["count"], how["byteStride"])
        else:
            read = plain_meshopt.read_triangles(data, how["count"] // 3)
            plain = np.array(read).astype(f"<u{how['byteStride']}").tobytes()
        assert plain == theirs


def encode(mesh: TexturedMesh) -> bytes:
    return encode_glb(mesh, compression="meshopt")


def test_file_says_what_the_extension_demands(textured: TexturedMesh) -> None:
    glb = encode(textured)
    document, binary = parse(glb)
    assert {NAME, "KHR_mesh_quantization"} <= set(document["extensionsRequired"])
    own, placeholder = document["buffers"]
    assert own["byteLength"] == len(binary)
    assert set(placeholder) == {"byteLength", "extensions"}  # no uri: nothing to fall back to
    assert placeholder["extensions"] == {NAME: {"fallback": True}}
    for entry in document["bufferViews"]:
        how = entry.get("extensions", {}).get(NAME)
        assert entry["buffer"] == (0 if how is None else 1)
        if how is None:
            continue
        assert how["buffer"] == 0
        assert entry["byteLength"] == how["byteStride"] * how["count"]
        assert entry.get("byteStride", how["byteStride"]) == how["byteStride"]
        assert entry["byteOffset"] % 4 == 0
        assert entry["byteOffset"] + entry["byteLength"] <= placeholder["byteLength"]
        assert how["byteStride"] % (2 if how["mode"] == "TRIANGLES" else 4) == 0
        assert how["mode"] == "ATTRIBUTES" or how["count"] % 3 == 0
    assert b"OCTAHEDRAL" in glb


def test_plain_files_pass_unchanged(textured: TexturedMesh) -> None:
    glb = encode_glb(textured)
    assert unpacked(glb) is glb
    packed = encode(textured)
    document, _ = parse(unpacked(packed))
    assert document["images"][0]["bufferView"] == 5
    assert NAME not in json.dumps(document)
    images = [view(*parse(file), index) for file, index in ((glb, 5), (unpacked(packed), 5))]
    assert images[0] == images[1]


def test_damaged_streams_are_refused(rng: np.random.Generator) -> None:
    """Cut short they are refused; with a byte changed they are refused or read as something."""
    rows = np.cumsum(rng.integers(-9, 10, (300, 8)), axis=0).astype(np.uint8)
    for data, how in (of_rows(rows), of_triangles(random_triangles(rng)[2])):
        for length in rng.integers(0, len(data), 60):
            with pytest.raises(InvalidInput, match="damaged"):
                decode_view(data[:length], how)
        for place in rng.integers(1, len(data), 300):
            changed = bytearray(data)
            changed[place] ^= int(rng.integers(1, 256))
            try:
                assert decode_view(bytes(changed), how).size == how["count"] * how["byteStride"]
            except InvalidInput as error:
                assert "damaged" in str(error)
    with pytest.raises(InvalidInput, match="INDICES"):
        decode_view(b"", {"mode": "INDICES", "count": 3, "byteStride": 4})
