"""BiRefNet against the reference implementation: names and shapes in full, numbers in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.image_to_mesh.preprocess.birefnet.network import BiRefNet, BiRefNetConfig, _folded
from models.image_to_mesh.preprocess.birefnet.swin import SwinTransformer, _same_region
from models.nn.weights import on_meta
from models.weights.catalogue import find_entries
from tests.models.image_to_mesh.preprocess.seeded import seeded

SMALL = BiRefNetConfig(width=8, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=5)
BYTES = {"F16": 2, "I64": 8}
SEED = 20261120


def header(names: dict[str, tuple[str, list[int]]]) -> bytes:
    """What a safetensors file begins with: https://github.com/huggingface/safetensors#format."""
    fields: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape) in sorted(names.items(), key=lambda each: (-BYTES[each[1][0]], each)):
        start, end = end, end + BYTES[kind] * int(np.prod(shape))
        fields[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(fields, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + b" " * (-len(text) % 8)


@pytest.fixture
def names(samples: Path) -> dict[str, tuple[str, list[int]]]:
    listed: dict[str, tuple[str, list[int]]] = json.loads(
        (samples / "birefnet.names.json").read_text()
    )
    return listed


def test_names_and_shapes_are_the_release(names: dict[str, tuple[str, list[int]]]) -> None:
    ours = {
        name: ["F16" if tensor.is_floating_point() else "I64", list(tensor.shape)]
        for name, tensor in on_meta(BiRefNet).state_dict().items()
    }
    assert ours == names


def test_the_listed_names_make_the_published_file(names: dict[str, tuple[str, list[int]]]) -> None:
    (entry,) = find_entries(["birefnet"])
    (size,) = (file.size_bytes for file in entry.files if file.name == "model.safetensors")
    content = sum(BYTES[kind] * int(np.prod(shape)) for kind, shape in names.values())
    assert len(header(names)) + content == size


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        pytest.param(torch.float64, 1e-6, id="birefnet-fp64"),  # the file has 24 bits
        # 40 layers, and samples between pixels of random images: 2e-4 at values of about 3.
        pytest.param(torch.float32, 2e-3, id="birefnet-fp32"),
    ],
)
@torch.no_grad()
def test_computes_what_the_reference_does(
    dtype: torch.dtype, tolerance: float, samples: Path
) -> None:
    expected = load_file(samples / "birefnet.parity.safetensors")
    network = seeded(BiRefNet(SMALL)).to(dtype)
    squeezed: list[Tensor] = []
    network.squeeze_module.register_forward_hook(lambda module, given, out: squeezed.append(out))
    image = np.random.RandomState(SEED).standard_normal((1, 3, 96, 160))
    logits = network(torch.from_numpy(image).to(dtype))
    assert (squeezed[0] - expected["squeezed"]).abs().max() < tolerance
    assert (logits - expected["logits"]).abs().max() < tolerance


@torch.no_grad()
def test_in_half_precision_the_mask_is_the_same() -> None:
    """What a GPU computes in: activations stay in range, and rounding does not move the mask."""
    network = seeded(BiRefNet(SMALL))
    image = torch.from_numpy(np.random.RandomState(SEED).standard_normal((1, 3, 64, 96))).float()
    expected = network(image).sigmoid()
    halved = network.half()(image.half()).float().sigmoid()
    # Random weights look at noise between pixels, which magnifies; trained ones are smoother.
    assert (halved - expected).abs().mean() < 0.02
    assert (halved - expected).abs().max() < 0.2


def test_tiles_of_the_image_lie_channel_by_channel() -> None:
    image = torch.arange(3 * 4 * 6.0).view(1, 3, 4, 6)
    folded = _folded(image, 2)
    assert folded.shape == (1, 12, 2, 3)
    for channel, row, column in np.ndindex(3, 2, 2):
        tile = image[0, channel, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        assert torch.equal(folded[0, channel * 4 + row * 2 + column], tile)


def test_shifted_windows_do_not_join_opposite_sides() -> None:
    """Tokens carry their place before the roll; who see each other were within a window."""
    rows, columns, side, shift = 2, 3, 4, 2
    places = torch.cartesian_prod(torch.arange(rows * side), torch.arange(columns * side))
    rolled = places.view(rows * side, columns * side, 2).roll((-shift, -shift), (0, 1))
    windows = rolled.view(rows, side, columns, side, 2).transpose(1, 2).reshape(-1, side * side, 2)
    apart = (windows[:, :, None] - windows[:, None]).abs().amax(-1)
    assert torch.equal(_same_region(rows, columns, side, shift, places.device), apart < side)


@torch.no_grad()
def test_backbone_pads_odd_sides() -> None:
    features = seeded(SwinTransformer(8, (1, 2), (2, 2), 4))(torch.randn(2, 3, 28, 20))
    assert [tuple(each.shape) for each in features] == [(2, 8, 7, 5), (2, 16, 4, 3)]


def test_image_that_is_no_multiple_of_32_is_refused() -> None:
    with pytest.raises(ValueError, match="100x64 pixels: sides must be multiples of 32"):
        on_meta(lambda: BiRefNet(SMALL))(torch.zeros(1, 3, 100, 64))
