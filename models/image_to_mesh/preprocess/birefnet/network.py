"""BiRefNet: an image at two sizes through one backbone, then a decoder that keeps looking back.

At each of its four scales the decoder sees the image again, folded into channels (the inward
reference of arXiv 2401.03407), and is weighted by where it expects fine detail (the outward one).
Parameters carry the names of the release, those of its training losses too; it knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.image_to_mesh.preprocess.birefnet.blocks import (
    DecoderBlock,
    DeformableBranch,
    ImageBlock,
    LateralBlock,
)
from models.image_to_mesh.preprocess.birefnet.deformable import Band
from models.image_to_mesh.preprocess.birefnet.swin import SwinBlock, SwinTransformer

COARSEST = 32
"""Pixels of the image to a token of the coarsest scale: sides are multiples of it."""


@dataclass(frozen=True)
class BiRefNetConfig:
    """The defaults are the release ZhengPeng7/BiRefNet: Swin-L, 220 M parameters.

    width, depths, heads, window: of the backbone. inner: channels within a decoder's block;
    branch: of a kernel of its pyramid; detail: of the outward reference.
    """

    width: int = 192
    depths: tuple[int, int, int, int] = (2, 2, 18, 2)
    heads: tuple[int, int, int, int] = (6, 12, 24, 48)
    window: int = 12
    inner: int = 64
    branch: int = 256
    detail: int = 16


RELEASE = BiRefNetConfig()
STAGES = (SwinBlock, DecoderBlock, DeformableBranch, Band, ImageBlock, LateralBlock)
"""Parts that begin one after another, and take all of the time among them."""


class BiRefNet(nn.Module):
    def __init__(self, config: BiRefNetConfig = RELEASE) -> None:
        super().__init__()
        self.bb = SwinTransformer(config.width, config.depths, config.heads, config.window)
        # Each scale twice: of the image, and of the image at half its size.
        widths = [2 * config.width << i for i in range(4)]
        self.squeeze_module = nn.Sequential(
            DecoderBlock(sum(widths), widths[3], config.inner, config.branch)
        )
        self.decoder = _Decoder(widths, config)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, H, W], ImageNet-normalised
        """[B, 1, H, W] logits: the object's where positive. H and W must be multiples of 32."""
        height, width = x.shape[2:]
        if height % COARSEST or width % COARSEST:
            raise ValueError(
                f"Image of {height}x{width} pixels: sides must be multiples of {COARSEST}."
            )
        whole = self.bb(x)
        halved = self.bb(_resized(x, (height // 2, width // 2)))
        scales = [
            torch.cat((large, _resized(small, large.shape[2:])), dim=1)
            for large, small in zip(whole, halved, strict=True)
        ]
        coarsest = scales[3].shape[2:]
        context = torch.cat([_resized(scale, coarsest) for scale in scales], dim=1)
        logits: Tensor = self.decoder(x, scales[:3], self.squeeze_module(context))
        return logits


class _Decoder(nn.Module):
    """From the coarsest scale, 4, to the finest, 1, then to the pixels. Numbers as in the names."""

    def __init__(self, widths: list[int], config: BiRefNetConfig) -> None:
        super().__init__()
        inner, detail = config.inner, config.detail
        out = {4: widths[2], 3: widths[1], 2: widths[0], 1: widths[0] // 2}
        image = {k: widths[min(k - 1, 3)] // 8 for k in (5, 4, 3, 2, 1)}
        for k in (5, 4, 3, 2):
            self.add_module(f"ipt_blk{k}", ImageBlock(3 * _folds(k) ** 2, image[k], inner))
        self.ipt_blk1 = ImageBlock(3, image[1], inner)
        for k, width in out.items():
            seen = widths[k - 1] + image[k + 1]
            self.add_module(f"decoder_block{k}", DecoderBlock(seen, width, inner, config.branch))
        self.conv_out1 = nn.Sequential(nn.Conv2d(out[1] + image[1], 1, 1))
        for k in (4, 3, 2):
            width = out[k]
            self.add_module(f"lateral_block{k}", LateralBlock(width, width))
            self.add_module(f"conv_ms_spvn_{k}", nn.Conv2d(width, 1, 1))  # of training
            self.add_module(
                f"gdt_convs_{k}",
                nn.Sequential(
                    nn.Conv2d(width, detail, 3, padding=1), nn.BatchNorm2d(detail), nn.ReLU()
                ),
            )
            self.add_module(f"gdt_convs_pred_{k}", nn.Sequential(nn.Conv2d(detail, 1, 1)))  # too
            self.add_module(f"gdt_convs_attn_{k}", nn.Sequential(nn.Conv2d(detail, 1, 1)))

    def forward(
        self,
        image: Tensor,  # [B, 3, H, W]
        finer: list[Tensor],  # of the scales 1, 2, 3: [B, C, H / 4, W / 4] and so on
        x: Tensor,  # of scale 4
    ) -> Tensor:  # [B, 1, H, W] logits
        for k in (4, 3, 2, 1):
            again = self._part("ipt_blk", k + 1)(_folded(image, _folds(k + 1)))
            x = self._part("decoder_block", k)(torch.cat((x, again), dim=1))
            if k > 1:
                fine = self._part("gdt_convs_attn_", k)(self._part("gdt_convs_", k)(x))
                x = _resized(x * fine.sigmoid(), finer[k - 2].shape[2:])
                x = x + self._part("lateral_block", k)(finer[k - 2])
        return self._logits(image, x)

    def _logits(self, image: Tensor, x: Tensor) -> Tensor:
        """conv_out1 of (x, resized to the image; ipt_blk1 of the image), with less of either.

        What is linear may change places: x is resized after its channels became one, and the two
        last convolutions of the image are one.
        """
        last, second = self.conv_out1, self.ipt_blk1.conv_out
        of_x, of_image = last.get_parameter("0.weight").split((x.shape[1], len(second.weight)), 1)
        kernel = torch.einsum("oc,cikl->oikl", of_image[:, :, 0, 0], second.weight)
        bias = last.get_parameter("0.bias") + of_image[:, :, 0, 0] @ second.get_parameter("bias")
        pixels = F.conv2d(self.ipt_blk1.conv1(image), kernel, bias, padding=1)
        return pixels + _resized(F.conv2d(x, of_x), image.shape[2:])

    def _part(self, name: str, k: int) -> nn.Module:
        return self.get_submodule(f"{name}{k}")


def _folds(k: int) -> int:
    """Into how many parts `ipt_blk<k>` folds each side of the image: the pixels of its token."""
    return 1 << k


def _folded(image: Tensor, parts: int) -> Tensor:  # [B, 3, H, W]
    """[B, 3 * parts^2, H / parts, W / parts]: tiles of the image over one another.

    Channel-major, then the tile's row and column, as in the code published with the weights; the
    authors' code of before November 2024 goes by column, row, channel.
    """
    tiles = image.unflatten(3, (parts, -1)).unflatten(2, (parts, -1))  # [B, 3, p, h, p, w]
    folded: Tensor = tiles.permute(0, 1, 2, 4, 3, 5).flatten(1, 3)
    return folded


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, corner on corner, as everywhere in this network."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
