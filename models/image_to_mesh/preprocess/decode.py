"""Decode one uploaded PNG, JPEG or WEBP file into upright 8-bit sRGB pixels with alpha.

Knows nothing of what is in the picture; a file that lies about itself is refused before its pixels
are unpacked.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from models.context import InputFile, InvalidInput

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_IMAGE_PIXELS = 64_000_000
"""Refused above this, by the size in the header: 64 MP unpack to 256 MB."""
MAX_SIDE_PX = 2048
"""Larger images are reduced to this: the largest texture has no use for more."""
MIN_SIDE_PX = 16


@dataclass(frozen=True)
class Picture:
    """pixels: (H, W, 4) uint8, straight alpha, sRGB. notes: what was changed, for the report."""

    name: str
    pixels: npt.NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def decode(file: InputFile) -> Picture:
    """Read, check, turn upright, convert to 8-bit sRGB with alpha, reduce to MAX_SIDE_PX.

    Raises InvalidInput naming the file when it is empty, of another format, too large, too small,
    truncated or damaged.
    """
    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file.path, formats=FORMATS) as image:
                _check_size(file.name, *image.size)
                if getattr(image, "n_frames", 1) > 1:
                    notes.append(f"{file.name}: animated; only the first frame is used")
                image.draft("RGB", (MAX_SIDE_PX, MAX_SIDE_PX))  # JPEG: decode at a reduced scale
                original = image.size
                image.load()
                upright = ImageOps.exif_transpose(image)
                converted = _to_rgba8(_to_srgb(upright, file.name, notes))
    except InvalidInput:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(file.name, str(error)) from error
    except UnidentifiedImageError as error:
        if file.path.stat().st_size == 0:
            raise InvalidInput(
                f"{file.name} is empty (0 bytes).",
                code="image_empty",
                next_step="Upload the image again.",
            ) from error
        raise InvalidInput(
            f"{file.name} is not a PNG, JPEG or WEBP image.",
            code="image_format",
            next_step="Convert the file to PNG, JPEG or WEBP.",
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        # Pillow's decoders report damage with these; its own messages name the chunk or marker.
        raise InvalidInput(
            f"{file.name} is damaged: {error}.",
            code="image_damaged",
            next_step="Open the file in an image editor and save it again.",
        ) from error
    if max(converted.size) > MAX_SIDE_PX:
        scale = MAX_SIDE_PX / max(converted.size)
        size = (max(1, round(converted.width * scale)), max(1, round(converted.height * scale)))
        converted = converted.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    if max(original) > MAX_SIDE_PX:
        notes.append(
            f"{file.name}: reduced from {original[0]}x{original[1]} to "
            f"{converted.width}x{converted.height}"
        )
    _check_not_tiny(file.name, *converted.size)
    return Picture(file.name, np.asarray(converted), tuple(notes))


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_IMAGE_PIXELS:
        raise _too_large(name, f"{width}x{height} pixels")
    _check_not_tiny(name, width, height)


def _check_not_tiny(name: str, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise InvalidInput(
            f"{name} is {width}x{height} pixels; each side must be at least {MIN_SIDE_PX}.",
            code="image_too_small",
            next_step="Upload a larger image; 512 pixels or more give a good texture.",
        )


def _too_large(name: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{name} is too large: {what}; at most {MAX_IMAGE_PIXELS // 1_000_000} megapixels "
        "are allowed.",
        code="image_too_large",
        next_step=f"Reduce the image; more than {MAX_SIDE_PX} pixels a side are not used.",
    )


def _to_srgb(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """Apply an embedded colour profile; a profile that cannot be read is reported, not fatal."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            outputMode="RGBA" if image.mode == "RGBA" else "RGB",
        )
    except (ImageCms.PyCMSError, OSError) as error:
        notes.append(f"{name}: its colour profile cannot be used ({error}); taken as sRGB")
        return image
    return image if converted is None else converted


def _to_rgba8(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGBA. 16-bit and float greyscale need scaling, which convert() omits."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8), "L").convert(
            "RGBA"
        )
    if image.mode in ("I", "F"):
        values = np.asarray(image, np.float64)
        top = 65535.0 if values.max(initial=0.0) > 255 else 255.0
        return Image.fromarray(
            np.clip(values * (255.0 / top), 0, 255).astype(np.uint8), "L"
        ).convert("RGBA")
    return image.convert("RGBA")
