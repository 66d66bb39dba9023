"""The literal table of weights: repository, commit, files, licence, the pipelines that need them.

Knows neither folders nor networks. A commit names its files' bytes, so an entry never changes by
itself; a newer release is a new row here.

Where the figures come from: names and sizes from the repositories' file lists as published, commits
and hashes from public records of several projects that agree with one another. What only one record
says, or none, is left empty. The hub's own hash is checked at every download in any case, and what
arrived is written into a lock file beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from models.context import Unavailable


@dataclass(frozen=True)
class WeightFile:
    """One file of an entry.

    name:        its path in the repository and in our folder: .safetensors or .json
    size_bytes:  None where it is not known before the hub is asked
    sha256:      of its content; empty where not known
    pickled_as:  the pickle that was published in its place; `pull` makes this file of it
    """

    name: str
    size_bytes: int | None = None
    sha256: str = ""
    pickled_as: str = ""


@dataclass(frozen=True)
class Licence:
    """permissive: commercial use, changes and redistribution are all allowed. word: the short name
    under which one that is not must be accepted."""

    name: str
    link: str
    permissive: bool
    word: str = ""

    @property
    def key(self) -> str:
        return self.word or self.name.lower().replace(" ", "-")


@dataclass(frozen=True)
class WeightEntry:
    """One set of weights. pipelines: their names in our table.

    revision: the commit, 40 hex digits; empty where no public record names one: `pull` takes the
              newest, and the lock it writes says which that was
    optional: the pipelines run without it, and do better with it
    """

    name: str
    summary: str
    repo: str
    revision: str
    licence: Licence
    files: tuple[WeightFile, ...]
    pipelines: tuple[str, ...]
    optional: bool = False

    @property
    def pickled(self) -> bool:
        return any(file.pickled_as for file in self.files)

    @property
    def known_bytes(self) -> int:
        """The sum of the sizes that are known before the hub is asked."""
        return sum(file.size_bytes or 0 for file in self.files)


MIT = "MIT"
APACHE = "Apache-2.0"
VGGT = Licence(
    "VGGT licence",
    "https://github.com/facebookresearch/vggt/blob/main/LICENSE.txt",
    False,
    "vggt",
)

DIRECT3D_S2 = ("model_dense", "model_sparse_512", "model_sparse_1024", "model_refiner")

CATALOGUE: tuple[WeightEntry, ...] = (
    WeightEntry(
        name="trellis-image-large",
        summary="TRELLIS, image to structured latents to mesh and Gaussians; 1.35 G parameters.",
        repo="microsoft/TRELLIS-image-large",
        revision="25e0d31ffbebe4b5a97464dd851910efc3002d96",
        licence=Licence(MIT, "https://huggingface.co/microsoft/TRELLIS-image-large", True),
        files=(
            WeightFile("pipeline.json"),
            WeightFile("ckpts/ss_flow_img_dit_L_16l8_fp16.json"),
            WeightFile(
                "ckpts/ss_flow_img_dit_L_16l8_fp16.safetensors",
                1_130_770_840,
                "96dc6bfd4136fd950af564dd16b4ae533c9ba6af8f26c670646b2a9f2789b1db",
            ),
            WeightFile("ckpts/ss_dec_conv3d_16l8_fp16.json"),
            WeightFile(
                "ckpts/ss_dec_conv3d_16l8_fp16.safetensors",
                147_591_972,
                "1c76d4a40519aa2d711cc263a8404105231ac26db31d946bed48b84fee79009a",
            ),
            WeightFile("ckpts/slat_flow_img_dit_L_64l8p2_fp16.json"),
            WeightFile(
                "ckpts/slat_flow_img_dit_L_64l8p2_fp16.safetensors",
                1_203_755_136,
                "693fb2a58ad497bd222007301eeec49d14d60f8c12d2f2f00c221fa747b4c66c",
            ),
            WeightFile("ckpts/slat_dec_mesh_swin8_B_64l8m256c_fp16.json"),
            WeightFile(
                "ckpts/slat_dec_mesh_swin8_B_64l8m256c_fp16.safetensors",
                181_903_412,
                "3e87aba94b5786407eb06d0502c1ed0885a0027a3f2b8537bfe15b0a92c01859",
            ),
            WeightFile("ckpts/slat_dec_gs_swin8_B_64l8gs32_fp16.json"),
            WeightFile("ckpts/slat_dec_gs_swin8_B_64l8gs32_fp16.safetensors", 171_450_952),
        ),
        pipelines=("trellis",),
    ),
    # facebookresearch releases `dinov2_vitl14_reg` as a pickle (dinov2_vitl14_reg4_pretrain.pth).
    # As safetensors the same weights are in Meta's repository on the hub, under the names of the
    # transformers library (query, key and value apart), and in timm's (fused, other names).
    WeightEntry(
        name="dinov2-large-registers",
        summary="DINOv2 ViT-L/14 with four registers: the image encoder of TRELLIS and others.",
        repo="facebook/dinov2-with-registers-large",
        revision="e4c89a4e05589de9b3e188688a303d0f3c04d0f3",
        licence=Licence(
            APACHE, "https://huggingface.co/facebook/dinov2-with-registers-large", True
        ),
        files=(
            WeightFile(
                "config.json",
                sha256="03eee42f646659a9480f8911a81fdd81efeedd7ff39083c8e36398068daf72f5",
            ),
            WeightFile(
                "model.safetensors",
                sha256="edccedab2c4e164e80833096de89a32a6e8d7365870499a066a61dbc8894b42b",
            ),
        ),
        pipelines=("trellis", "reconviagen", "direct3d_s2", "direct3d_s2_v1_0"),
    ),
    WeightEntry(
        name="birefnet",
        summary="BiRefNet, background removal for pictures without transparency.",
        repo="ZhengPeng7/BiRefNet",
        revision="e2bf8e4460fc8fa32bba5ea4d94b3233d367b0e4",
        licence=Licence(MIT, "https://huggingface.co/ZhengPeng7/BiRefNet", True),
        files=(
            WeightFile("config.json"),
            WeightFile(
                "model.safetensors",
                444_473_596,
                "9ab37426bf4de0567af6b5d21b16151357149139362e6e8992021b8ce356a154",
            ),
        ),
        pipelines=("embedded", "trellis", "reconviagen", "direct3d_s2", "direct3d_s2_v1_0"),
        optional=True,
    ),
    # The code of ReconViaGen is MIT. Its networks are conditioned on, and trained with, features of
    # a fine-tuned VGGT, whose own licence binds what derives from it.
    WeightEntry(
        name="reconviagen-v0-2",
        summary="ReconViaGen v0.2: TRELLIS flows conditioned on several views through VGGT.",
        repo="Stable-X/trellis-vggt-v0-2",
        revision="647659a5ad5fbf67e22793e7b5e2cee4b30c5d13",
        licence=VGGT,
        files=(
            WeightFile("pipeline.json"),
            WeightFile("ckpts/ss_vggt_cond.json"),
            WeightFile("ckpts/ss_vggt_cond.safetensors"),
            WeightFile("ckpts/ss_flow_img_dit_L_16l8_fp16.json"),
            WeightFile("ckpts/ss_flow_img_dit_L_16l8_fp16.safetensors"),
            WeightFile("ckpts/ss_dec_conv3d_16l8_fp16.json"),
            WeightFile("ckpts/ss_dec_conv3d_16l8_fp16.safetensors"),
            WeightFile("ckpts/slat_vggt_cond.json"),
            WeightFile("ckpts/slat_vggt_cond.safetensors"),
            WeightFile("ckpts/slat_flow_img_dit_L_64l8p2_fp16.json"),
            WeightFile("ckpts/slat_flow_img_dit_L_64l8p2_fp16.safetensors"),
            WeightFile("ckpts/slat_dec_mesh_swin8_B_64l8m256c_fp16.json"),
            WeightFile("ckpts/slat_dec_mesh_swin8_B_64l8m256c_fp16.safetensors"),
            WeightFile("ckpts/slat_dec_gs_swin8_B_64l8gs32_fp16.json"),
            WeightFile("ckpts/slat_dec_gs_swin8_B_64l8gs32_fp16.safetensors"),
        ),
        pipelines=("reconviagen",),
    ),
    # Its page states no licence. It is VGGT-1B trained on, and so bound by VGGT's, which allows no
    # commercial use; heads for points, depth and tracks come with it and are left unread.
    WeightEntry(
        name="vggt-object-v0-1",
        summary="VGGT, trained on single objects: what ReconViaGen looks at photos with; 1.26 G "
        "parameters.",
        repo="Stable-X/vggt-object-v0-1",
        revision="",
        licence=VGGT,
        files=(WeightFile("config.json"), WeightFile("model.safetensors")),
        pipelines=("reconviagen",),
    ),
    *(
        WeightEntry(
            name=f"direct3d-s2-v{version}",
            summary=summary,
            repo="wushuang98/Direct3D-S2",
            revision="8b04a8eddb7a56a0f4e89fe5f5b840c7d5610c00",
            licence=Licence(MIT, "https://huggingface.co/wushuang98/Direct3D-S2", True),
            files=tuple(
                WeightFile(
                    f"direct3d-s2-v-{version}/{stem}.safetensors",
                    pickled_as=f"direct3d-s2-v-{version}/{stem}.ckpt",
                )
                for stem in stems
            ),
            pipelines=(pipeline,),
        )
        for version, pipeline, summary, stems in (
            (
                "1-1",
                "direct3d_s2",
                "Direct3D-S2 v1.1: one image to geometry at 512 and 1024; 2.5 G parameters.",
                (*DIRECT3D_S2, "model_refiner_1024"),
            ),
            # No public record says whether v1.0 has a refiner for 1024; it is used where it lies
            # beside the others.
            (
                "1-0",
                "direct3d_s2_v1_0",
                "Direct3D-S2 v1.0: the earlier attention, slower than v1.1.",
                DIRECT3D_S2,
            ),
        )
    ),
)


def find_entries(
    words: Iterable[str], table: Sequence[WeightEntry] = CATALOGUE
) -> tuple[WeightEntry, ...]:
    """The entries of these names; a pipeline's name stands for all that the pipeline needs.

    Raises Unavailable for a word that is neither, with what was probably meant.
    """
    by_name = {entry.name: (entry,) for entry in table}
    by_pipeline = {
        pipeline: tuple(entry for entry in table if pipeline in entry.pipelines)
        for pipeline in sorted({name for entry in table for name in entry.pipelines})
    }
    known = by_pipeline | by_name
    found: dict[str, WeightEntry] = {}
    for word in words:
        if word not in known:
            close = get_close_matches(word, known, n=1)
            meant = f"Did you mean {close[0]}? " if close else ""
            raise Unavailable(
                f"There are no weights named {word!r}.",
                code="weights_unknown",
                next_step=f"{meant}`meshpress models list` shows all names.",
            )
        found.update((entry.name, entry) for entry in known[word])
    return tuple(found.values())
