"""What PyTorch holds of a GPU's memory, for tests that nothing is left behind."""

from __future__ import annotations

import torch


def memory() -> tuple[int, int]:
    """Bytes that tensors hold, and that the allocator keeps from others."""
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
