"""Attention: every backend, and every way to compute packed sequences, against fp64 products."""

from __future__ import annotations

import gc
import sys
import types
import warnings
import weakref

import numpy as np
import pytest
import torch

from models.context import Unavailable
from models.nn.attention import (
    CrossAttention,
    Segments,
    attend,
    attend_varlen,
    choice,
    flash,
    padded,
    reference,
    sdpa,
    xformers,
)
from models.nn.backends import use_backends

TOLERANCE = 2e-6
"""fp32 sums of 16 products and of at most 40 softmax terms, values up to 4: some 10 roundings."""

# 33 to 37 share one padded batch.
LENGTHS = {
    "many lengths": ([1, 7, 3, 35, 9, 2, 2, 33, 37, 5, 6], None),
    "cross": ([4, 33, 1, 37, 2, 2, 34, 5, 3], [5, 36, 12, 33, 3, 40, 37, 2, 6]),
    "few": ([11, 4, 25], [3, 1, 8]),
    "equal": ([6, 6, 6], [4, 4, 4]),
    "an empty sequence": ([5, 0, 3, 1, 2, 9, 4, 8, 7, 6], [2, 4, 1, 6, 3, 3, 3, 3, 3, 3]),
    "nothing between": ([5, 0, 3, 1, 2, 9, 4, 8, 7, 6], [2, 0, 1, 6, 3, 3, 3, 3, 3, 3]),
    "one": ([13], [29]),
}


def packed(
    rng: np.random.Generator, lengths: list[int], heads: int = 2, width: int = 16
) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal((sum(lengths), heads, width))).float()


@pytest.fixture(params=LENGTHS, ids=lambda name: name.replace(" ", "_"))
def problem(request: pytest.FixtureRequest, rng: np.random.Generator):
    """q, k, v in fp32, their segments, and the fp64 answer."""
    q_lengths, k_lengths = LENGTHS[request.param]
    k_lengths = k_lengths or q_lengths
    q, k, v = packed(rng, q_lengths), packed(rng, k_lengths), packed(rng, k_lengths)
    queries, keys = Segments(q_lengths), Segments(k_lengths)
    expected = reference.attend_varlen(q.double(), k.double(), v.double(), queries, keys)
    return q, k, v, queries, keys, expected


def error(out: torch.Tensor, expected: torch.Tensor) -> float:
    assert out.shape == expected.shape
    return float((out.double() - expected).abs().max())


def test_packed_sequences_attend_to_their_own_keys_alone(problem) -> None:
    q, k, v, queries, keys, expected = problem
    assert error(attend_varlen(q, k, v, queries, keys), expected) < TOLERANCE
    assert error(attend_varlen(q, k, v, queries.lengths, keys.lengths), expected) < TOLERANCE


def test_one_by_one(problem) -> None:
    q, k, v, queries, keys, expected = problem
    assert error(sdpa.one_by_one(q, k, v, queries, keys), expected) < TOLERANCE


def test_padded_batches(problem) -> None:
    q, k, v, queries, keys, expected = problem
    out = padded.attend_varlen(q, k, v, queries, keys, sdpa.attend)
    assert error(out, expected) < TOLERANCE


def test_jagged(problem) -> None:
    """On the CPU PyTorch warns that nested tensors are a prototype; on CUDA it does not."""
    q, k, v, queries, keys, expected = problem
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        out = sdpa.jagged(q, k, v, queries, keys)
    assert error(out, expected) < TOLERANCE


def test_dense_batch(rng: np.random.Generator) -> None:
    q, k, v = (torch.from_numpy(rng.standard_normal((3, n, 4, 8))).float() for n in (10, 21, 21))
    expected = reference.attend(q.double(), k.double(), v.double())
    assert error(attend(q, k, v), expected) < TOLERANCE


def test_the_reference_is_the_formula() -> None:
    """Two keys, scores ln 3 and 0: weights 3/4 and 1/4."""
    width = 4
    q = torch.zeros(1, 1, 1, width)
    q[..., 0] = np.log(3) * 2  # over sqrt(4)
    k = torch.zeros(1, 2, 1, width)
    k[0, 0, 0, 0] = 1
    v = torch.tensor([[[[8.0] * width], [[4.0] * width]]])
    assert torch.allclose(reference.attend(q, k, v), torch.full((1, 1, 1, width), 7.0))


def test_padding_stays_below_a_fifth(rng: np.random.Generator) -> None:
    lengths = rng.integers(1, 200, 300).tolist()
    rows = Segments(lengths)
    plan = padded.make_plan(rows, rows, torch.device("cpu"))
    computed = sum(batch.q_rows.numel() for batch in plan.batches)
    assert rows.total <= computed < 1.2 * rows.total


def test_layers_share_the_offsets_of_one_context(rng: np.random.Generator) -> None:
    layers = [CrossAttention(8, 6, 2) for _ in range(2)]
    context = torch.from_numpy(rng.normal(size=(2, 3, 6))).float()
    a, b = (layer.keys_values(context).rows for layer in layers)
    assert a is b and a.lengths == (3, 3)
    assert Segments.shared([3, 1]) is not a


def test_shared_segments_live_as_long_as_they_are_used() -> None:
    used = weakref.ref(Segments.shared([7, 1, 2]))
    gc.collect()
    assert used() is None


def test_plans_and_offsets_are_made_once() -> None:
    rows, cpu = Segments([3, 1, 4]), torch.device("cpu")
    assert padded.plan_for(rows, rows, cpu) is padded.plan_for(rows, rows, cpu)
    assert rows.offsets(cpu) is rows.offsets(cpu)
    assert rows.offsets(cpu).tolist() == [0, 3, 4, 8]
    assert rows.offsets(cpu).dtype == torch.int32


@pytest.mark.parametrize(
    ("q_lengths", "k_lengths", "words"),
    [
        ([4, 5], [5, 5], "q has 10 rows, its lengths sum to 9"),
        ([5, 5], [5, 6], "k and v have 10 and 10 rows, their lengths sum to 11"),
        ([5, 5], [10], "2 sequences of queries face 1 of keys"),
        ([3, 7], [10, 0], "Sequence 1 has 7 queries and no keys"),
        ([-1, 11], [5, 5], "none may be negative"),
    ],
)
def test_lengths_that_do_not_fit(q_lengths: list[int], k_lengths: list[int], words: str) -> None:
    q = torch.zeros(10, 1, 8)
    with pytest.raises(ValueError, match=words):
        attend_varlen(q, q, q, q_lengths, k_lengths)


# -- packages that are not here: fakes that compute what the real ones document ------------------


@pytest.fixture
def fake_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    def varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        lengths, widths = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
        assert (max(lengths), max(widths)) == (max_seqlen_q, max_seqlen_k)
        return reference.attend_varlen(q, k, v, Segments(lengths), Segments(widths))

    module = types.ModuleType("flash_attn")
    module.flash_attn_func = reference.attend  # type: ignore[attr-defined]
    module.flash_attn_varlen_func = varlen  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)


@pytest.fixture
def fake_xformers(monkeypatch: pytest.MonkeyPatch) -> None:
    class BlockDiagonalMask:
        @classmethod
        def from_seqlens(cls, q_seqlen, kv_seqlen=None, *, device=None):
            mask = cls()
            mask.queries, mask.keys = Segments(q_seqlen), Segments(kv_seqlen)
            return mask

    def attention(query, key, value, attn_bias=None):
        if attn_bias is None:
            return reference.attend(query, key, value)
        rows = (query[0], key[0], value[0], attn_bias.queries, attn_bias.keys)
        return reference.attend_varlen(*rows)[None]

    module = types.ModuleType("xformers.ops")
    module.memory_efficient_attention = attention  # type: ignore[attr-defined]
    module.fmha = types.SimpleNamespace(  # type: ignore[attr-defined]
        BlockDiagonalMask=BlockDiagonalMask
    )
    monkeypatch.setitem(sys.modules, "xformers", types.ModuleType("xformers"))
    monkeypatch.setitem(sys.modules, "xformers.ops", module)


@pytest.mark.usefixtures("fake_flash")
def test_flash_is_called_as_it_documents(problem) -> None:
    q, k, v, queries, keys, expected = problem
    assert error(flash.attend_varlen(q, k, v, queries, keys), expected) < 10 * TOLERANCE
    assert torch.equal(flash.attend(q[None], q[None], q[None]), reference.attend(*[q[None]] * 3))


@pytest.mark.usefixtures("fake_xformers")
def test_xformers_is_called_as_it_documents(problem) -> None:
    q, k, v, queries, keys, expected = problem
    assert error(xformers.attend_varlen(q, k, v, queries, keys), expected) < 10 * TOLERANCE
    both = xformers.attend(q[None], q[None], q[None])
    assert torch.equal(both, reference.attend(*[q[None]] * 3))


class Able(types.ModuleType):
    """A backend without obstacles, whose package is installed or not."""

    def __init__(self, package: str, obstacle: str = "") -> None:
        super().__init__(package)
        self.PACKAGE, self.words = package, obstacle

    def obstacle(self, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
        return self.words


def test_auto_takes_the_first_package_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.zeros(1, 1, 8)
    second = Able("json")
    monkeypatch.setattr(choice, "OPTIONAL", {"flash": Able("no_such_package"), "xformers": second})
    with use_backends(attention="auto"):
        assert choice.varlen_backend(q) is second
        assert choice.dense_backend(q) is sdpa
    with use_backends(attention="xformers"):
        assert choice.varlen_backend(q) is second
        assert choice.dense_backend(q) is second
    with use_backends(attention="sdpa"):
        assert choice.varlen_backend(q) is sdpa


def test_what_a_backend_cannot_compute_pytorch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.zeros(1, 1, 8)
    able = {"flash": Able("json", "not on this device"), "xformers": Able("json", "nor here")}
    monkeypatch.setattr(choice, "OPTIONAL", able)
    for asked in ("auto", "flash", "xformers"):
        with use_backends(attention=asked):
            assert choice.varlen_backend(q) is sdpa
            assert choice.dense_backend(q) is sdpa


def test_a_package_asked_for_and_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "OPTIONAL", {"flash": Able("no_such_package.ops")})
    with use_backends(attention="flash"), pytest.raises(Unavailable) as caught:
        choice.varlen_backend(torch.zeros(1, 1, 8))
    assert caught.value.code == "attention_backend_missing"
    assert "no_such_package cannot be imported" in caught.value.message


@pytest.mark.parametrize(
    ("backend", "capability", "dtype", "width", "able"),
    [
        (flash, (8, 0), torch.float16, 64, True),
        (flash, (12, 0), torch.bfloat16, 64, True),
        (flash, (7, 5), torch.float16, 64, False),
        (flash, (8, 6), torch.float32, 64, False),
        (flash, (8, 6), torch.float16, 60, False),
        (flash, (8, 6), torch.float16, 512, False),
        (xformers, (7, 5), torch.float16, 64, True),
        (xformers, (7, 5), torch.float32, 64, True),
        (xformers, (7, 5), torch.bfloat16, 64, False),
        (xformers, (9, 0), torch.bfloat16, 64, True),
        (xformers, (12, 0), torch.float16, 64, False),
        (xformers, (8, 6), torch.float64, 64, False),
    ],
)
def test_obstacles(
    monkeypatch: pytest.MonkeyPatch,
    backend: types.ModuleType,
    capability: tuple[int, int],
    dtype: torch.dtype,
    width: int,
    able: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert (not backend.obstacle(torch.device("cuda"), dtype, width)) is able
    assert backend.obstacle(torch.device("cpu"), dtype, width)
