"""What a pass between two products is given: the update of the rows, and the norm behind it.

Both are plain records: they know neither kernels nor modules.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Update:
    """x + h * gate, of each row.

    h:    [H, C], of the first H rows
    rest: [J, C]: what is added to the other rows, all of an item the same; its items are the last J
    gate: [I, C] of the items, or [1, C] of all; None: one
    """

    h: Tensor
    gate: Tensor | None = None
    rest: Tensor | None = None


@dataclass(frozen=True)
class Norm:
    """Layer normalisation of rows [N, C], then `weight` and `bias` or `scale` and `shift`.

    weight, bias: fp32 [C]: y * weight + bias
    scale, shift: [I, C] of the items, or [1, C] of all: y * (1 + scale) + shift
    silu:  behind it
    stepwise: y, 1 + scale, their product and the sum are each rounded to the dtype of the rows, as
           single operations would; otherwise an implementation may round once, at the end
    rows:  how many are wanted, the first ones; None: all
    """

    eps: float
    weight: Tensor | None = None
    bias: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    silu: bool = False
    stepwise: bool = False
    rows: int | None = None
