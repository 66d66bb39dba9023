"""SOG v2: bundles and loose files read alike; archives and descriptions that lie are refused."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.context import InvalidInput
from models.splat_to_sog.bundle import bundle
from models.splat_to_sog.readers import read, read_files
from models.splat_to_sog.webp import encode_webp

FIELDS = ("means", "scales", "quats", "opacities", "sh0", "shN")


@pytest.fixture
def files(encoded_scene: dict[str, bytes]) -> dict[str, bytes]:
    return dict(encoded_scene)


def bundled(tmp_path: Path, files: dict[str, bytes]) -> Path:
    path = tmp_path / "in.sog"
    path.write_bytes(bundle(files))
    return path


def edited(files: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    """meta.json with dotted fields changed (`means__mins=...`); None removes."""
    meta = json.loads(files["meta.json"])
    for dotted, value in changes.items():
        *parents, key = dotted.split("__")
        node = meta
        for parent in parents:
            node = node[parent]
        if value is None:
            del node[key]
        else:
            node[key] = value
    return {**files, "meta.json": json.dumps(meta).encode()}


def test_bundle_folder_meta_and_file_set_read_alike(tmp_path: Path, files) -> None:
    from_bundle = read(bundled(tmp_path, files), "in.sog")
    folder = tmp_path / "loose"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    elsewhere = {name: tmp_path / f"{i}.bin" for i, name in enumerate(files)}
    for name, path in elsewhere.items():
        shutil.copy(folder / name, path)
    (folder / "meta.json").rename(folder / "upload-1")  # recognised by its content
    by_meta = read(folder / "upload-1", "meta.json")
    (folder / "upload-1").rename(folder / "meta.json")
    for other in (read(folder, "loose"), by_meta, read_files(elsewhere, "set")):
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(other, field), getattr(from_bundle, field))


def test_null_in_codebook_entry_0_continues_the_others(tmp_path: Path, files) -> None:
    book = json.loads(files["meta.json"])["scales"]["codebook"]
    patched = edited(files, scales__codebook=[None, *book[1:]])
    found = read(bundled(tmp_path, patched), "in.sog").scales.min()
    assert found == np.float32(book[1] + (book[1] - book[255]) / 255)


def test_labels_past_the_palette_are_zeros(tmp_path: Path, files) -> None:
    labels = np.full((12, 12, 3), 255, np.uint8)
    found = read(bundled(tmp_path, {**files, "shN_labels.webp": encode_webp(labels)}), "in.sog")
    assert (found.shN == 0).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 3}, "'version' is 3; allowed are 2, and 1 or none"),
        ({"version": True}, "'version' is True"),
        ({"version": None}, "'means.shape' is None; [splats, 3]"),  # read as version 1
        ({"count": 0}, "'count' is 0; allowed is a whole number of 1 to"),
        ({"count": 145}, "too small for 145 splats"),
        ({"count": 10**12}, "'count' is 1000000000000"),
        ({"count": True}, "'count' is True"),
        ({"count": 1}, None),  # fewer than the texture holds is legal
        ({"means": None}, "'means.files' is None"),
        ({"means__mins": [0, 0]}, "'means.mins' is [0, 0]; 3 finite numbers"),
        ({"means__maxs": [0, "1", 2]}, "'means.maxs'"),
        ({"means__maxs": [0, 1e60, 2]}, "'means.maxs'"),
        ({"means__files": ["means_l.webp"]}, "2 plain name(s)"),
        ({"means__files": ["../../etc/passwd", "means_u.webp"]}, "without folders"),
        ({"quats__files": ["a/b.webp"]}, "'quats.files'"),
        ({"quats__files": [".webp"]}, "'quats.files'"),
        ({"quats__files": ["absent.webp"]}, "'absent.webp' is missing (present: means_l.webp"),
        ({"scales__codebook": [0.0] * 255}, "'scales.codebook' is not a list of 256"),
        ({"sh0__codebook": [None] * 256}, "'sh0.codebook'"),
        ({"shN__count": 65537}, "'shN.count' is 65537"),
        ({"shN__count": 4000}, "texture 'shN_centroids.webp'"),
        ({"shN__bands": 4}, "'shN.bands' is 4; allowed is a whole number of 1 to 3"),
        ({"shN__bands": 2}, "take 512 x"),
    ],
)
def test_refuses_a_bad_description(tmp_path: Path, files, changes, says) -> None:
    path = bundled(tmp_path, edited(files, **changes))
    if says is None:
        assert len(read(path, "in.sog")) == changes["count"]
        return
    with pytest.raises(InvalidInput, match="^in.sog: SOG: ") as error:
        read(path, "in.sog")
    assert says in error.value.message


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"version": NaN}']
)
def test_refuses_json_that_is_none(tmp_path: Path, files, text: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"meta\.json"):
        read(bundled(tmp_path, {**files, "meta.json": text}), "in.sog")


# --- archives -------------------------------------------------------------------------------


def archive(path: Path, entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        for name, data in entries:
            out.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "name",
    ["../meta.json", "/etc/x.webp", "scene/meta.json", "a.png", "..\\a.webp", "x/", "a b.webp"],
)
def test_refuses_names_that_do_not_belong(tmp_path: Path, files, name: str) -> None:
    path = archive(tmp_path / "a", [*files.items(), (name, b"x")])
    with pytest.raises(InvalidInput, match="only meta.json and .*.webp at the root") as error:
        read(path, "a")
    assert error.value.code == "splat_archive"


def test_refuses_bombs_and_crowds(tmp_path: Path, files) -> None:
    bomb = {**files, "quats.webp": bytes(50 << 20)}
    path = archive(tmp_path / "a", list(bomb.items()), zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidInput, match=r"'quats.webp' claims to unpack from \d+ to 52428800"):
        read(path, "a")
    path = archive(tmp_path / "b", [("meta.json", bytes(5 << 20))], zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidInput, match="allowed are 4194304"):
        read(path, "b")
    path = archive(tmp_path / "c", [(f"{i}.webp", b"") for i in range(17)])
    with pytest.raises(InvalidInput, match="17 entries; at most 16"):
        read(path, "c")


def test_refuses_other_archives(tmp_path: Path, files) -> None:
    path = archive(tmp_path / "a", [("a.webp", b"x")])
    with pytest.raises(InvalidInput, match="no meta.json at its root"):
        read(path, "a")
    path = archive(tmp_path / "b", list(files.items()), zipfile.ZIP_LZMA)
    with pytest.raises(InvalidInput, match="ZIP method 14; allowed are 0"):
        read(path, "b")
    with pytest.warns(UserWarning, match="Duplicate"):
        path = archive(tmp_path / "c", [*files.items(), ("quats.webp", b"x")])
    with pytest.raises(InvalidInput, match="two entries 'quats.webp'"):
        read(path, "c")


@pytest.mark.parametrize("keep", [0.001, 0.3, 0.6, 0.99])
def test_refuses_a_truncated_bundle(tmp_path: Path, files, keep: float) -> None:
    whole = bundle(files)
    path = tmp_path / "a"
    path.write_bytes(whole[: max(4, int(len(whole) * keep))])
    with pytest.raises(InvalidInput, match="the ZIP archive is damaged") as error:
        read(path, "a")
    assert error.value.code == "splat_truncated"


def test_refuses_a_flipped_byte(tmp_path: Path, files) -> None:
    whole = bytearray(bundle(files))
    whole[len(files["means_l.webp"]) // 2] ^= 0x55
    path = tmp_path / "a"
    path.write_bytes(whole)
    with pytest.raises(InvalidInput, match="damaged"):
        read(path, "a")


# --- textures -------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def test_refuses_bad_textures(tmp_path: Path, files) -> None:
    small, large = Image.new("RGB", (4, 4)), Image.new("RGB", (2000, 2000))
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    good = files["quats.webp"]
    cases = {
        "is 4 x 4 pixels, too small": saved(small, "WEBP", lossless=True),
        "2000 x 2000 pixels; at most 4496 texels": saved(large, "WEBP", lossless=True),
        "lossy WebP": saved(Image.new("RGB", (16, 16)), "WEBP", lossless=False),
        "animation": saved(
            frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:]
        ),
        "not a WebP image": saved(small, "PNG"),
        "cannot be decoded|its header says": good[: len(good) // 2],
        r"not a WebP image \(it begins with b''\)": b"",
    }
    for says, data in cases.items():
        with pytest.raises(InvalidInput, match=says) as error:
            read(bundled(tmp_path, {**files, "quats.webp": data}), "in.sog")
        assert "texture 'quats.webp'" in error.value.message, says
        assert error.value.code == "splat_texture"


def test_a_texture_that_claims_to_be_huge_is_never_decoded(tmp_path: Path, files) -> None:
    """16383 x 16383 in a VP8L header of 30 bytes: decoding would take a gigabyte."""
    bits = 16382 | 16382 << 14
    body = b"\x2f" + bits.to_bytes(4, "little") + bytes(30)
    data = b"WEBPVP8L" + len(body).to_bytes(4, "little") + body
    bomb = b"RIFF" + len(data).to_bytes(4, "little") + data
    with pytest.raises(InvalidInput, match="16383 x 16383 pixels; at most"):
        read(bundled(tmp_path, {**files, "means_l.webp": bomb}), "in.sog")
