"""The options that every image-to-mesh pipeline has, defined once: range, meaning, default.

Knows no pipeline. One that wants another default assigns it: `faces: Faces = 30_000`; the range
and the words stay.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MeshFormat = Literal["glb", "obj", "ply", "stl"]
FORMATS_TEXT = (
    "Files to write; the first is the main result. obj comes as a ZIP of .obj, .mtl and texture; "
    "ply carries vertex colours; stl is shape alone."
)

Faces = Annotated[int, Field(ge=500, le=500_000, description="Face budget of the simplified mesh.")]
TextureSize = Annotated[
    Literal[1024, 2048, 4096], Field(description="Side of the square texture, pixels.")
]
TextureFormat = Annotated[
    Literal["jpeg", "png", "webp"],
    Field(
        description="Texture inside the file: jpeg (quality 92, full chroma), lossless png, or "
        "webp (EXT_texture_webp: smaller, and not every viewer reads it)."
    ),
]
Seed = Annotated[
    int,
    Field(
        ge=0,
        le=2**31 - 1,
        description="Seed of every random choice; with a network another seed imagines another "
        "object.",
    ),
]
MaskMethod = Literal["auto", "birefnet", "classic"]
Mask = Annotated[
    MaskMethod,
    Field(
        description="How an object is cut out of an image without transparency: birefnet is a "
        "network for any background (weights: birefnet), classic knows plain backgrounds; auto "
        "takes the network where it is here, on a CPU only if classic is not sure.",
    ),
]
Steps = Annotated[
    int | None,
    Field(
        ge=1,
        le=100,
        description="Steps of each sampler of a network: more take longer and stray less; default: "
        "the checkpoint's.",
    ),
]
Guidance = Annotated[
    float | None,
    Field(
        ge=0,
        le=20,
        description="How strictly a network follows the image; default: the checkpoint's.",
    ),
]


class MeshOptions(BaseModel):
    """What may be asked of any image-to-mesh pipeline, whichever is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: Annotated[tuple[MeshFormat, ...], Field(min_length=1, description=FORMATS_TEXT)] = (
        "glb",
    )
    faces: Faces = 20_000
    texture_size: TextureSize = 1024
    texture_format: TextureFormat = "jpeg"
    mask: Mask = "auto"
    steps: Steps = None
    guidance: Guidance = None
    seed: Seed = 0

    def without_effect(self) -> dict[str, str]:
        """Options that were given although nothing here has a use for them, and why."""
        return {}

    def warnings(self) -> list[str]:
        """Of options without effect. They are accepted, so that one request fits every pipeline."""
        return [
            f"{name}={getattr(self, name)} has no effect: {reason}."
            for name, reason in self.without_effect().items()
        ]


class NetworkOptions(MeshOptions):
    """What networks have beyond that: a finer mesh to start from, so larger budgets."""

    faces: Faces = 30_000
    texture_size: TextureSize = 2048
    normal_map: Annotated[
        bool,
        Field(
            description="A texture that keeps the shape's detail where faces are too few for it."
        ),
    ] = True
    compression: Annotated[
        Literal["none", "quantize", "meshopt", "draco"],
        Field(
            description="Of the .glb's geometry: none; quantize: half the bytes, and viewers read "
            "it as it is; meshopt: half of that, and the viewer needs a small, fast decoder; "
            "draco: smallest, and the viewer needs a larger one."
        ),
    ] = "none"

    def without_effect(self) -> dict[str, str]:
        """Compression is of one format."""
        if self.compression == "none" or "glb" in self.formats:
            return {}
        return {"compression": "formats has no glb"}


class GaussianOptions(NetworkOptions):
    """Of networks that decode Gaussians beside a surface."""

    formats: Annotated[
        tuple[Literal["glb", "obj", "ply", "stl", "splat"], ...],
        Field(
            min_length=1,
            description=f"{FORMATS_TEXT} splat: 3-D Gaussians as .ply, not a mesh.",
        ),
    ] = ("glb",)  # type: ignore[assignment]  # a wider choice; frozen, so nobody assigns to it
