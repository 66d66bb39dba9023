"""Options that a pipeline has no use for: accepted, and said in a warning."""

from __future__ import annotations

import pytest

from models.image_to_mesh.options import (
    Direct3DS2Options,
    EmbeddedOptions,
    MeshOptions,
    TrellisOptions,
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (EmbeddedOptions(), []),
        (
            EmbeddedOptions(steps=4, guidance=2.0),
            [
                "steps=4 has no effect: the embedded pipeline samples nothing.",
                "guidance=2.0 has no effect: the embedded pipeline samples nothing.",
            ],
        ),
        (TrellisOptions(steps=4, compression="quantize", formats=("stl", "glb")), []),
        (
            TrellisOptions(compression="quantize", formats=("stl", "splat")),
            ["compression=quantize has no effect: formats has no glb."],
        ),
        (Direct3DS2Options(fine_steps=3), []),
        (
            Direct3DS2Options(fine_steps=3, resolution=512, compression="draco", formats=("ply",)),
            [
                "compression=draco has no effect: formats has no glb.",
                "fine_steps=3 has no effect: resolution is 512.",
            ],
        ),
    ],
)
def test_what_has_no_effect_is_said(options: MeshOptions, expected: list[str]) -> None:
    assert options.warnings() == expected
