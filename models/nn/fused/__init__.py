"""The steps between a transformer's matrix products, each as one pass over memory.

    residual_norm    x + h * gate, and its norm: modulated, affine, with a SiLU behind it
    qk_rms_norm      queries and keys of a fused projection, normalised in place
    linear_gelu      a linear layer and its GELU (tanh form)

They know rows, not what a row stands for. On a GPU with Triton they are kernels (`triton_norms`),
elsewhere plain PyTorch (`reference`), which the kernels are held to.
"""

from models.nn.fused.functional import linear_gelu, qk_rms_norm, residual_norm
from models.nn.fused.steps import Norm, Update

__all__ = ["Norm", "Update", "linear_gelu", "qk_rms_norm", "residual_norm"]
