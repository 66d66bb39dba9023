"""How checkpoints store the weight of a sparse convolution, and ours: [Cout, KX, KY, KZ, Cin].

It knows names and axes, no tensors of features. Ours means out = sum over k of weight[:, k] @ in.

| layout | parameter | shape | kernel of one voxel |
|---|---|---|---|
| spconv 2.x | `weight` | [Cout, KX, KY, KZ, Cin], as ours | *read as* [Cin, Cout] |
| FlexGEMM | `weight` | [Cout, KX, KY, KZ, Cin], as ours | as ours |
| torchsparse | `kernel` | [V, Cin, Cout]; x fastest if V is odd, else z fastest | [Cin, Cout] |

**The trap.** For a kernel of one voxel spconv (2.3.8, `conv.py`) computes `x @ weight.view(Cin,
Cout)`: it reads memory laid out as [Cout, Cin] as if it were [Cin, Cout], which is no transpose.
Networks trained with it, the skip connections of TRELLIS's mesh decoder among them, have learned
that. A transpose loads, fits, and gives noise.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from models.nn.sparse_conv.kernel_map import Size

Layout = Literal["spconv", "flexgemm", "torchsparse"]


def parameter_name(layout: Layout) -> str:
    """What the state dict calls the weight."""
    return "kernel" if layout == "torchsparse" else "weight"


def stored_shape(layout: Layout, channels_out: int, size: Size, channels_in: int) -> list[int]:
    """The shape of the weight in a state dict."""
    volume = size[0] * size[1] * size[2]
    if layout != "torchsparse":
        return [channels_out, *size, channels_in]
    return [channels_in, channels_out] if volume == 1 else [volume, channels_in, channels_out]


def from_stored(
    stored: Tensor,  # `stored_shape`
    layout: Layout,
    size: Size,
) -> Tensor:  # [Cout, KX, KY, KZ, Cin]; a view where the memory allows
    """The weight of a checkpoint as the engine takes it."""
    if layout == "torchsparse":
        channels_in, channels_out = stored.shape[-2:]
        if _x_fastest(size):
            grid = stored.reshape(*size[::-1], channels_in, channels_out)
            return grid.permute(4, 2, 1, 0, 3)
        return stored.reshape(*size, channels_in, channels_out).permute(4, 0, 1, 2, 3)
    if layout == "spconv" and size == (1, 1, 1):
        channels_out, channels_in = stored.shape[0], stored.shape[-1]
        read = stored.reshape(channels_in, channels_out)
        return read.T.reshape(channels_out, 1, 1, 1, channels_in)
    return stored


def to_stored(
    weight: Tensor,  # [Cout, KX, KY, KZ, Cin]
    layout: Layout,
) -> Tensor:  # `stored_shape`, contiguous
    """The engine's weight as a checkpoint stores it: undoes `from_stored`."""
    channels_out, channels_in = weight.shape[0], weight.shape[-1]
    size: Size = (weight.shape[1], weight.shape[2], weight.shape[3])
    if layout == "torchsparse":
        order = (3, 2, 1, 4, 0) if _x_fastest(size) else (1, 2, 3, 4, 0)
        shape = stored_shape(layout, channels_out, size, channels_in)
        return weight.permute(*order).reshape(shape).contiguous()
    if layout == "spconv" and size == (1, 1, 1):
        read = weight.reshape(channels_out, channels_in).T
        return read.reshape(channels_out, 1, 1, 1, channels_in).contiguous()
    return weight.contiguous()


def _x_fastest(size: Size) -> bool:
    """torchsparse numbers odd kernels as MinkowskiEngine does, even ones the other way round."""
    return size[0] * size[1] * size[2] % 2 == 1
