"""Every attention backend of a CUDA device against the fp64 reference; steps told as computed."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from models.nn.attention import (
    Segments,
    flash,
    padded,
    reference,
    sdpa,
    triton_backend,
    xformers,
)
from models.nn.attention.choice import installed
from models.nn.samplers import Step, rescaled_times, sample
from models.nn.velocity import DenseVelocity

pytestmark = pytest.mark.gpu

WIDTH = 64
BACKENDS = {"sdpa": sdpa, "triton": triton_backend, "flash": flash, "xformers": xformers}
ERROR = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 2e-5}
"""Half a unit in the last place of values up to 4, twice: weights and results are rounded. fp32
allows for the order of sums."""


@pytest.fixture(autouse=True)
def cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def normal(rng: np.random.Generator, rows: int, dtype: torch.dtype) -> Tensor:
    values = torch.from_numpy(rng.standard_normal((rows, 12, WIDTH)))
    return values.to("cuda", dtype)


def lengths(rng: np.random.Generator, kind: str) -> tuple[Segments, Segments]:
    many = rng.integers(1, 150, 300).tolist()
    if kind == "windows":
        rows = Segments(many)
        return rows, rows
    if kind == "cross":
        return Segments(many), Segments(rng.integers(1, 90, 300).tolist())
    return Segments([4096, 1800]), Segments([1374, 1])


def backend_or_skip(name: str, dtype: torch.dtype) -> ModuleType:
    backend = BACKENDS[name]
    reason = backend.obstacle(torch.device("cuda"), dtype, WIDTH)
    if not reason and name != "sdpa" and not installed(backend.PACKAGE):
        reason = f"{backend.PACKAGE} is not installed"
    if reason:
        pytest.skip(reason)
    return backend


@pytest.mark.parametrize("dtype", ERROR, ids=str)
@pytest.mark.parametrize("kind", ["windows", "cross", "few"])
@pytest.mark.parametrize("name", BACKENDS)
@torch.no_grad()
def test_packed(rng: np.random.Generator, name: str, kind: str, dtype: torch.dtype) -> None:
    backend = backend_or_skip(name, dtype)
    queries, keys = lengths(rng, kind)
    q, k, v = (normal(rng, rows.total, dtype) for rows in (queries, keys, keys))
    exact = reference.attend_varlen(q.double(), k.double(), v.double(), queries, keys)
    out = backend.attend_varlen(q, k, v, queries, keys)
    assert out.dtype == dtype
    assert (out.double() - exact).abs().max() < ERROR[dtype]
    if name == "sdpa":
        out = padded.attend_varlen(q, k, v, queries, keys, sdpa.attend)
        assert (out.double() - exact).abs().max() < ERROR[dtype]


@torch.inference_mode()
def test_many_sequences_in_inference_mode(rng: np.random.Generator) -> None:
    """Nested tensors do not work there; padded batches do."""
    queries, keys = lengths(rng, "windows")
    q = normal(rng, queries.total, torch.float16)
    exact = reference.attend_varlen(*[q.double()] * 3, queries, keys)
    assert (sdpa.attend_varlen(q, q, q, queries, keys).double() - exact).abs().max() < 2e-3


@pytest.mark.parametrize("dtype", ERROR, ids=str)
@pytest.mark.parametrize("name", BACKENDS)
@torch.no_grad()
def test_dense(rng: np.random.Generator, name: str, dtype: torch.dtype) -> None:
    backend = backend_or_skip(name, dtype)
    q, k, v = (normal(rng, 2 * rows, dtype).view(2, rows, 12, WIDTH) for rows in (700, 333, 333))
    exact = reference.attend(q.double(), k.double(), v.double())
    assert (backend.attend(q, k, v).double() - exact).abs().max() < ERROR[dtype]


@pytest.mark.parametrize(("length", "context"), [(700, 700), (513, 1374), (64, 1)])
@pytest.mark.parametrize("gain", [1.0, 3.0], ids=["within_reach", "beyond"])
@torch.no_grad()
def test_scores_with_a_bound(
    rng: np.random.Generator, gain: float, length: int, context: int
) -> None:
    """Behind a QK norm: a gain of 3 bounds scores by 72, beyond what one sweep has room for. The
    weight of a key that stands alone is rounded too, where the running maximum makes it one."""
    unit = torch.nn.functional.normalize
    q = gain * WIDTH**0.5 * unit(normal(rng, 2 * length, torch.float32), dim=-1)
    k = gain * WIDTH**0.5 * unit(normal(rng, 2 * context, torch.float32), dim=-1)
    k[context // 2] = q[length // 3]  # a score that reaches the bound
    q, k = (x.bfloat16().view(2, -1, 12, WIDTH) for x in (q, k))
    v = normal(rng, 2 * context, torch.bfloat16).view(2, context, 12, WIDTH)
    exact = reference.attend(q.double(), k.double(), v.double())
    out = triton_backend.attend(q, k, v, bound=gain**2 * WIDTH**0.5)
    assert (out.double() - exact).abs().max() < 2 * ERROR[torch.bfloat16]
    rows, columns = Segments([length] * 2), Segments([context] * 2)
    packed = (x.flatten(0, 1) for x in (q, k, v))
    again = triton_backend.attend_varlen(*packed, rows, columns, bound=gain**2 * WIDTH**0.5)
    assert torch.equal(again.view(out.shape), out)


@pytest.mark.parametrize("width", [8, 24, 48, 96, 128])
@torch.no_grad()
def test_heads_of_any_width(rng: np.random.Generator, width: int) -> None:
    shape = 2, 130, 3, width
    q, k, v = (torch.from_numpy(rng.standard_normal(shape)).cuda().half() for _ in range(3))
    exact = reference.attend(q.double(), k.double(), v.double())
    assert (triton_backend.attend(q, k, v).double() - exact).abs().max() < ERROR[torch.float16]


def test_a_report_comes_when_the_step_before_is_done() -> None:
    """A network of a long product: at each report at most the last step may still be under way."""
    weight = torch.randn(4096, 4096, device="cuda") / 64
    done: list[torch.cuda.Event] = []

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        for _ in range(20):
            x = (x @ weight).tanh()
        done.append(torch.cuda.Event())
        done[-1].record()
        return x

    def on_step(step: Step) -> None:
        assert len(done) == step.done
        assert all(event.query() for event in done[:-1])

    noise = torch.randn(4096, 4096, device="cuda")
    cond = torch.zeros(1, 1, 1, device="cuda")
    sample(DenseVelocity(network), noise, [cond], times=rescaled_times(6), on_step=on_step)
