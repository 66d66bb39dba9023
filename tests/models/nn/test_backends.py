"""Choice of backends: names, environment, nesting."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from models.nn.backends import (
    Backends,
    current_backends,
    from_environment,
    own_kernels,
    use_backends,
)
from models.nn.fused.functional import fusible
from models.nn.spatial_sparse_attention.functional import by_triton


def test_names_are_checked() -> None:
    with pytest.raises(
        ValueError, match="sparse backend is 'cuda', not one of auto, torch, triton"
    ):
        Backends(sparse="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="attention backend is 'fast'"):
        from_environment({"MESHPRESS_ATTENTION_BACKEND": "fast"})


def test_environment_speaks_as_the_guard_does() -> None:
    environment = {"MESHPRESS_ATTENTION_BACKEND": "flash-attn", "MESHPRESS_DTYPE": "float16"}
    assert from_environment(environment) == Backends("auto", "flash", "float16")


def test_inner_blocks_change_only_what_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHPRESS_SPARSE_BACKEND", "torch")
    outside = current_backends()
    assert outside.sparse == "torch"
    with use_backends(attention="sdpa"):
        with use_backends(sparse="triton") as inner:
            assert current_backends() is inner
            assert (inner.sparse, inner.attention) == ("triton", "sdpa")
        assert current_backends().sparse == "torch"
        with use_backends(Backends(dtype="float32")):
            assert current_backends() == Backends(dtype="float32")
    assert current_backends() == outside


def test_left_by_an_error_too() -> None:
    with pytest.raises(KeyError), use_backends(sparse="spconv"):
        raise KeyError
    assert current_backends().sparse != "spconv"


@pytest.mark.parametrize("sparse", ["auto", "triton", "spconv", "torch"])
def test_no_kernel_of_ours_runs_where_another_sparse_backend_is_named(
    monkeypatch: pytest.MonkeyPatch, sparse: str
) -> None:
    """The guard names another where Triton does not serve the GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    x = SimpleNamespace(
        is_cuda=True,
        dtype=torch.float16,
        device=torch.device("cuda"),
        shape=(5, 32, 32),
        is_contiguous=lambda: True,
        requires_grad=False,
    )
    expected = sparse in ("auto", "triton") and find_spec("triton") is not None
    with use_backends(sparse=sparse):  # type: ignore[arg-type]
        assert own_kernels() is fusible(x) is by_triton(x, 2) is expected
