"""TRELLIS's fused steps and flows on a GPU against the same in plain PyTorch and fp64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.image_to_mesh.trellis.slat_flow import SlatFlow
from models.image_to_mesh.trellis.ss_flow import SparseStructureFlow
from models.nn.attention import KeysValues, Segments
from models.nn.backends import use_backends
from models.nn.fused import Norm, Update, functional, linear_gelu, qk_rms_norm, reference
from models.nn.fused import residual_norm as fused_residual_norm
from models.nn.guidance import Guidance
from models.nn.precision import to_half
from models.nn.replay import Replayed
from models.nn.residency import Residency
from models.nn.samplers import Step, rescaled_times, sample
from models.nn.sparse_tensor import SparseTensor
from models.nn.velocity import DenseVelocity, KnownTimes, SparseVelocity, Velocity

pytestmark = pytest.mark.gpu

RELATIVE = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 2e-6}
"""A unit in the last place of what is rounded twice, the sum and its norm."""


@pytest.fixture(autouse=True)
def cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def normal(rng: np.random.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape)).to("cuda", dtype)


def relative(out: Tensor, exact: Tensor) -> float:
    assert out.shape == exact.shape
    assert bool(out.isfinite().all())
    return float((out.double() - exact).norm() / exact.norm())


def doubled(update: Update | None) -> Update | None:
    if update is None:
        return None
    return Update(
        *(None if x is None else x.double() for x in (update.h, update.gate, update.rest))
    )


def wide(norm: Norm | None) -> Norm | None:
    if norm is None:
        return None
    names = ("weight", "bias", "scale", "shift")
    values = {name: getattr(norm, name) for name in names}
    return replace(norm, **{k: None if x is None else x.double() for k, x in values.items()})


@pytest.mark.parametrize("dtype", RELATIVE, ids=str)
@pytest.mark.parametrize("lengths", [[300, 300, 300], [17, 500, 1], [70]], ids=str)
@pytest.mark.parametrize("channels", [1024, 768, 40])
@pytest.mark.parametrize(
    "case", ["norm", "gated", "modulated_each", "affine_silu", "settled", "sum_alone"]
)
@torch.no_grad()
def test_residual_and_norm(
    rng: np.random.Generator, case: str, channels: int, lengths: list[int], dtype: torch.dtype
) -> None:
    rows, items = Segments(lengths), len(lengths)
    n = rows.total
    x, h = normal(rng, n, channels, dtype=dtype), normal(rng, n, channels, dtype=dtype)
    each = normal(rng, items, 6 * channels, dtype=dtype).chunk(6, -1)
    shared = normal(rng, 1, 6 * channels, dtype=dtype).chunk(6, -1)
    weight, bias = normal(rng, channels), normal(rng, channels)
    first = rows.head(items - 1).total
    rest = normal(rng, 1, channels, dtype=dtype)
    update, norm = {
        "norm": (None, Norm(1e-6)),
        "gated": (Update(h, shared[0]), Norm(1e-6, scale=shared[1], shift=shared[2])),
        "modulated_each": (Update(h, each[3]), Norm(1e-6, scale=each[4], shift=each[5])),
        "affine_silu": (Update(h), Norm(1e-6, weight, bias, silu=True, rows=max(first, 1))),
        "settled": (Update(h[:first], rest=rest), Norm(1e-6, scale=each[1], shift=each[2])),
        "sum_alone": (Update(h, each[0]), None),
    }[case]
    total, y = fused_residual_norm(x, update, norm, rows)
    exact_total, exact_y = reference.residual_norm(x.double(), doubled(update), wide(norm), rows)
    assert total.dtype == y.dtype == dtype
    assert relative(total, exact_total) < RELATIVE[dtype]
    assert relative(y, exact_y) < RELATIVE[dtype]


@pytest.mark.parametrize("dtype", RELATIVE, ids=str)
@pytest.mark.parametrize(("heads", "width"), [(16, 64), (12, 64), (3, 40)])
@torch.no_grad()
def test_qk_norm(rng: np.random.Generator, heads: int, width: int, dtype: torch.dtype) -> None:
    qkv = normal(rng, 333, 3, heads, width, dtype=dtype)
    qkv[5] = 0
    gammas = normal(rng, heads, width), normal(rng, heads, width)
    exact = reference.qk_rms_norm(qkv.double(), *(gamma.double() for gamma in gammas))
    for out, part in zip(qk_rms_norm(qkv.clone(), *gammas), exact, strict=True):
        assert relative(out, part) < RELATIVE[dtype]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_gelu_is_the_tanh_form(rng: np.random.Generator, dtype: torch.dtype) -> None:
    x, weight = normal(rng, 333, 1024, dtype=dtype), normal(rng, 4096, 1024, dtype=dtype) / 32
    bias = normal(rng, 4096, dtype=dtype)
    exact = reference.linear_gelu(x.double(), weight.double(), bias.double())
    assert relative(linear_gelu(x, weight, bias), exact) < RELATIVE[dtype]


# -- flows -----------------------------------------------------------------------------------------

FLOW = {
    "in_channels": 8,
    "out_channels": 8,
    "model_channels": 128,
    "cond_channels": 64,
    "num_blocks": 3,
    "num_heads": 2,
    "qk_rms_norm": True,
}


def drawn(network: torch.nn.Module, rng: np.random.Generator) -> torch.nn.Module:
    torch.manual_seed(int(rng.integers(1 << 30)))
    for parameter in network.parameters():
        parameter.data.normal_(
            std=0.3 * parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3
        )
    return network.requires_grad_(False).eval()


@torch.no_grad()
def answers(flow: torch.nn.Module, x: Tensor | SparseTensor, cond: Tensor, fused: bool) -> Tensor:
    """A guided pair, the negative as one token, by our kernels or by plain PyTorch."""
    kept = functional.fusible
    functional.fusible = kept if fused else lambda x: False
    try:
        with use_backends(attention="triton" if fused else "sdpa"):
            t = torch.tensor([430.0, 430.0], device="cuda")
            contexts = flow.contexts([cond[0], cond.new_zeros(1, cond.shape[2])])
            out = flow(x, flow.modulations(t[:1]) if fused else t, contexts)
    finally:
        functional.fusible = kept
    return out if isinstance(out, Tensor) else out.feats


@pytest.mark.parametrize(
    ("dtype", "within"), [(torch.bfloat16, 4e-2), (torch.float16, 5e-3), (torch.float32, 1e-4)]
)
@pytest.mark.parametrize("kind", ["structure", "latent"])
def test_flow_by_our_kernels(
    rng: np.random.Generator, kind: str, dtype: torch.dtype, within: float
) -> None:
    """Against fp32 without them. A dozen roundings a block, each half a unit, add up."""
    cond = normal(rng, 1, 77, 64)
    x: Tensor | SparseTensor
    if kind == "structure":
        flow = SparseStructureFlow(resolution=8, patch_size=1, **FLOW)
        x = normal(rng, 1, 8, 8, 8, 8).expand(2, -1, -1, -1, -1).contiguous()
    else:
        flow = SlatFlow(resolution=16, io_block_channels=[32], **FLOW)
        coords = torch.nn.functional.pad((normal(rng, 16, 16, 16) > 1).nonzero().int(), (1, 0))
        one = SparseTensor(normal(rng, len(coords), 8), coords)
        x = SparseTensor.cat([one, one])
    flow = drawn(flow, rng).cuda()
    exact = answers(flow, x, cond, fused=False).double()
    assert relative(answers(to_half(flow, dtype), x, cond, fused=True), exact) < within


@torch.no_grad()
def test_times_known_beforehand_change_nothing(rng: np.random.Generator) -> None:
    flow = drawn(SparseStructureFlow(resolution=8, patch_size=1, **FLOW), rng).cuda()
    x, cond = normal(rng, 1, 8, 8, 8, 8), normal(rng, 1, 77, 64)
    known = KnownTimes(flow.modulations, [1.0, 0.4], torch.device("cuda"))
    (plain,) = DenseVelocity(flow)(x, 0.4, [flow.contexts(cond)])
    (found,) = DenseVelocity(flow, clock=known)(x, 0.4, [flow.contexts(cond)])
    assert relative(found, plain.double()) < 1e-5


TIMES = rescaled_times(10, 2.0)


def steps_of(velocity: Velocity, x: Tensor, flow: torch.nn.Module, cond: Tensor) -> list[Step]:
    steps: list[Step] = []
    sample(
        velocity,
        x,
        [flow.contexts(image[None]) for image in cond],
        times=TIMES,
        negative=flow.contexts(cond.new_zeros(1, 1, cond.shape[2])),
        guidance=Guidance(3.0, (0.5, 1.0)),
        on_step=steps.append,
    )
    return steps


@pytest.mark.parametrize("kind", ["structure", "latent"])
@torch.no_grad()
def test_recorded_passes_are_the_passes(rng: np.random.Generator, kind: str) -> None:
    """Two images in turn, two jobs, guided and not: what a step was given is never overwritten."""
    flow: torch.nn.Module
    if kind == "structure":
        flow = SparseStructureFlow(resolution=8, patch_size=1, **FLOW)
    else:
        flow = SlatFlow(resolution=16, io_block_channels=[32], **FLOW)
    flow = to_half(drawn(flow, rng).cuda(), torch.bfloat16)
    clock = KnownTimes(flow.modulations, TIMES[:-1], torch.device("cuda"))
    kept = Replayed(flow)
    for _ in range(2):
        cond = normal(rng, 2, 77, 64)
        if kind == "structure":
            x = normal(rng, 1, 8, 8, 8, 8)
            plain, fast = (DenseVelocity(f, batched=True, clock=clock) for f in (flow, kept))
        else:
            coords = (normal(rng, 16, 16, 16) > 1).nonzero().int()
            place = SparseTensor(
                normal(rng, len(coords), 8), torch.nn.functional.pad(coords, (1, 0))
            )
            x = place.feats
            plain, fast = (
                SparseVelocity(flow, place, batched=True, clock=clock, recorded=recorded)
                for recorded in (False, True)
            )
        pairs = zip(steps_of(plain, x, flow, cond), steps_of(fast, x, flow, cond), strict=True)
        for expected, found in pairs:
            assert torch.equal(found.velocity, expected.velocity)
            assert torch.equal(found.x_next, expected.x_next)


@torch.no_grad()
def test_a_pass_that_waits_for_the_device_spoils_nothing(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    """CUDA ends its recording: it runs as it is, memory is given back, others are recorded."""
    x = normal(rng, 5, 8)
    given = x, (x[:1],), (KeysValues(x, x, Segments([5])),)
    waits = Replayed(lambda x, time, condition: x * float(x.sum()))
    doubles = Replayed(lambda x, time, condition: 2 * x)
    for _ in range(3):
        assert torch.equal(waits(*given), x * float(x.sum()))
    assert caplog.text.count("is not recorded") == 1
    torch.cuda.empty_cache()
    for _ in range(3):
        assert torch.equal(doubles(*given), 2 * x)
    assert caplog.text.count("is not recorded") == 1


@torch.no_grad()
def test_an_offloaded_network_leaves_nothing_behind(rng: np.random.Generator) -> None:
    flow = drawn(SparseStructureFlow(resolution=8, patch_size=1, **FLOW), rng)
    before, state = (
        torch.cuda.memory_allocated(),
        {k: v.clone() for k, v in flow.state_dict().items()},
    )
    residency = Residency("cuda", offload=True)
    x, cond = normal(rng, 1, 8, 8, 8, 8), normal(rng, 1, 77, 64)
    held = torch.cuda.memory_allocated() - before
    results = []
    for _ in range(2):
        with residency.at_work(flow):
            assert all(p.is_cuda for p in flow.parameters())
            results.append(flow(x, torch.tensor([430.0], device="cuda"), cond).cpu())
    assert torch.equal(*results)
    assert torch.cuda.memory_allocated() - before == held
    assert all(torch.equal(v, state[k]) and not v.is_cuda for k, v in flow.state_dict().items())
