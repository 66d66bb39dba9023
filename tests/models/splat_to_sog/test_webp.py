"""Lossless textures: every byte comes back, invisible texels too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.splat_to_sog import webp
from models.splat_to_sog.webp import WebpError, decode_webp, encode_webp, webp_size


@pytest.mark.parametrize(("height", "width"), [(4, 4), (1, 960), (60, 33)])
@pytest.mark.parametrize("channels", [3, 4])
def test_every_byte_comes_back(rng, height: int, width: int, channels: int) -> None:
    texels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    texels[..., -1] *= rng.integers(0, 2, (height, width), dtype=np.uint8)  # half of alpha is 0
    data = encode_webp(texels)
    assert webp_size(data) == (width, height)
    found = decode_webp(data, max_texels=height * width)
    np.testing.assert_array_equal(found[..., :channels], texels)
    if channels == 3:
        assert (found[..., 3] == 255).all()


def test_too_many_texels_are_refused_before_decoding(rng) -> None:
    data = encode_webp(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(WebpError, match="8 x 8 pixels; at most 63"):
        decode_webp(data, max_texels=63)


def test_more_effort_is_never_larger_and_equal_texels_give_equal_files(rng) -> None:
    texels = np.cumsum(rng.integers(0, 5, (64, 64, 3)), axis=1).astype(np.uint8)
    fast = encode_webp(texels, webp.FAST)
    assert set(webp.FAST) < set(webp.THOROUGH)
    assert len(encode_webp(texels, webp.THOROUGH)) <= len(fast)
    assert fast == encode_webp(texels)
    assert len(encode_webp(texels, webp.FAST[::-1])) == len(fast)


def test_tries_side_by_side_give_the_same_file(rng) -> None:
    texels = np.cumsum(rng.integers(-2, 3, (40, 64, 3)), axis=1).astype(np.uint8)
    with ThreadPoolExecutor(3) as pool:
        started = [webp.start_webp(texels, effort, pool) for effort in (webp.FAST, webp.THOROUGH)]
        found = [file() for file in started]
    assert found == [encode_webp(texels, webp.FAST), encode_webp(texels, webp.THOROUGH)]
