"""Decoding: every accepted kind of pixel arrives upright; every bad file is refused by name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from models.context import InputFile, InvalidInput
from models.image_to_mesh.preprocess.decode import MAX_SIDE_PX, decode

Save = Callable[..., InputFile]


@pytest.fixture
def colours(rng: np.random.Generator) -> np.ndarray:
    """Four flat quarters, so that lossy formats and palettes keep their middles."""
    quarters = rng.integers(20, 235, (2, 2, 3), np.uint8)
    return np.kron(quarters, np.ones((24, 24, 1), np.uint8))


def test_rgb_rgba_and_webp_arrive_unchanged(save: Save, colours: np.ndarray) -> None:
    rgba = np.dstack([colours, np.full(colours.shape[:2], 77, np.uint8)])
    assert np.array_equal(decode(save(colours)).pixels[..., :3], colours)
    assert (decode(save(colours)).pixels[..., 3] == 255).all()
    assert np.array_equal(decode(save(rgba)).pixels, rgba)
    assert np.array_equal(decode(save(rgba, "a.webp", lossless=True, exact=True)).pixels, rgba)


def test_greyscale_of_8_and_16_bits_agree(save: Save, colours: np.ndarray) -> None:
    grey = colours[..., 0]
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    assert np.array_equal(decode(save(grey)).pixels[..., 1], grey)
    assert np.array_equal(decode(save(wide)).pixels[..., 1], grey)


def test_palette_with_transparency(save: Save, colours: np.ndarray) -> None:
    image = Image.fromarray(colours).quantize(8)
    transparent = int(np.asarray(image)[0, 0])
    pixels = decode(save(image, transparency=transparent)).pixels
    assert pixels[0, 0, 3] == 0
    assert pixels[-1, -1, 3] == 255
    assert np.abs(pixels[-1, -1, :3].astype(int) - colours[-1, -1]).max() <= 4  # its 8 colours


def test_cmyk_jpeg(save: Save, colours: np.ndarray) -> None:
    pixels = decode(save(Image.fromarray(colours).convert("CMYK"), "a.jpg", quality=98)).pixels
    middle = (slice(12, None, 24), slice(12, None, 24))
    # JPEG at quality 98 moves flat colours by a few levels; a wrong inversion moves them by ~100.
    assert np.abs(pixels[middle][..., :3].astype(int) - colours[middle]).max() < 12


def test_exif_orientation_is_applied(save: Save, colours: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate 270 degrees counter-clockwise to show upright
    pixels = decode(save(colours[:, :24], "turned.png", exif=exif)).pixels
    assert np.array_equal(pixels[..., :3], np.rot90(colours[:, :24], -1))


def test_embedded_profile_is_converted_to_srgb(save: Save, colours: np.ndarray) -> None:
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (
        np.abs(
            decode(save(colours, icc_profile=lab_like)).pixels[..., :3].astype(int) - colours
        ).max()
        <= 1
    )
    broken = decode(save(colours, icc_profile=b"not a profile"))
    assert np.array_equal(broken.pixels[..., :3], colours)
    assert "profile" in broken.notes[0]


def test_large_image_is_reduced_and_says_so(save: Save) -> None:
    picture = decode(save(np.full((300, 2 * MAX_SIDE_PX, 3), 9, np.uint8), "wide.png"))
    assert picture.pixels.shape == (150, MAX_SIDE_PX, 4)
    assert "wide.png: reduced from 4096x300 to 2048x150" in picture.notes


def test_animation_uses_its_first_frame(save: Save, colours: np.ndarray) -> None:
    second = Image.fromarray(255 - colours)
    picture = decode(
        save(
            Image.fromarray(colours), "a.webp", save_all=True, append_images=[second], lossless=True
        )
    )
    assert np.array_equal(picture.pixels[..., :3], colours)
    assert "first frame" in picture.notes[0]


def png_with_header(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose data are a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bad_files(good: bytes) -> dict[str, tuple[bytes, str, str]]:
    """name -> (bytes, code, words the message must hold)"""
    return {
        "empty.png": (b"", "image_empty", "0 bytes"),
        "text.png": (b"hello, I am not an image" * 9, "image_format", "PNG, JPEG or WEBP"),
        "truncated.png": (good[: len(good) // 2], "image_damaged", "truncated"),
        "gif.png": (b"GIF89a" + bytes(64), "image_format", "PNG, JPEG or WEBP"),
        "tiff.png": (b"II*\0" + bytes(64), "image_format", "PNG, JPEG or WEBP"),
        "bomb.png": (png_with_header(30_000, 30_000), "image_too_large", "900000000"),
        "large.png": (png_with_header(9_000, 8_000), "image_too_large", "9000x8000"),
        "lying.png": (png_with_header(512, 512), "image_damaged", "lying.png"),
        "line.png": (png_with_header(1, 4_000), "image_too_small", "1x4000"),
        "dot.png": (png_with_header(1, 1), "image_too_small", "1x1"),
    }


@pytest.mark.parametrize("name", sorted(bad_files(b"")))
def test_bad_file_is_refused_by_name(name: str, tmp_path: Path, samples: Path) -> None:
    data, code, words = bad_files((samples / "robot.png").read_bytes())[name]
    path = tmp_path / "upload"
    path.write_bytes(data)
    with pytest.raises(InvalidInput) as caught:
        decode(InputFile(path, name))
    assert caught.value.code == code
    assert name in caught.value.message
    assert words in caught.value.message
    assert caught.value.next_step
