"""The expert layer: what every backend and instruction set must compute, to which accuracy, and how exactly."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import pytest
import routing_kernels
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_isas import EXPERT_ISAS as ISAS
from kernel_isas import NORM_TOLERANCE, using
from torch import Tensor

ACTS = routing_kernels.ACTIVATIONS


class Case(NamedTuple):
    x: Tensor
    ids: Tensor
    weights: Tensor
    gate_up: Tensor
    down: Tensor

    def double(self) -> Case:
        return Case(*(t.double() if t.is_floating_point() else t for t in self))


def make(
    tokens: int, experts: int, top_k: int, hidden: int, width: int, dtype: torch.dtype, seed: int = 0
) -> Case:
    """Random inputs of unit scale; one id in six or so names no expert, and repeats happen."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(-1, experts + 1, (tokens, top_k), generator=random)
    gate_up = torch.randn(experts, 2 * width, hidden, generator=random) / hidden**0.5
    down = torch.randn(experts, hidden, width, generator=random) / width**0.5
    x = torch.randn(tokens, hidden, generator=random)
    return Case(
        x.to(dtype), ids, torch.rand(tokens, top_k, generator=random), gate_up.to(dtype), down.to(dtype)
    )


def on(isa: str, case: Case, act: str = "silu", stats: bool = False, threshold: float = 0.01):
    """The case on one instruction set, chosen as a user would: by the environment."""
    with using(isa):
        return routing_kernels.moe_experts(*case, act=act, stats=stats, threshold=threshold, backend="cpu")


def activation(name: str, z: float) -> float:
    if name == "relu":
        return max(z, 0.0)
    if name == "silu":
        return z / (1 + math.exp(-z))
    if name == "gelu":
        return z * 0.5 * (1 + math.erf(z / math.sqrt(2)))
    return 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def by_hand(case: Case, act: str, threshold: float):
    """The layer from its definition, one slot and one neuron at a time, in Python's own floats."""
    x, ids, weights, gate_up, down = (t.tolist() for t in case.double())
    width = len(down[0][0]) if down else 0
    y = [[0.0] * len(row) for row in x]
    counts = [0] * len(gate_up)
    statistics = {}
    for t, row in enumerate(x):
        for j, e in enumerate(ids[t]):
            if not 0 <= e < len(gate_up):
                continue
            counts[e] += 1
            project = [sum(w * v for w, v in zip(line, row, strict=True)) for line in gate_up[e]]
            neurons = [activation(act, g) * u for g, u in zip(project[:width], project[width:], strict=True)]
            output = [sum(w * a for w, a in zip(line, neurons, strict=True)) for line in down[e]]
            y[t] = [was + weights[t][j] * o for was, o in zip(y[t], output, strict=True)]
            statistics[t, j] = (
                math.hypot(*output),
                math.fsum(map(abs, neurons)),
                math.hypot(*neurons),
                sum(a == 0 for a in neurons),
                sum(abs(a) < threshold for a in neurons),
            )
    return y, counts, statistics


@st.composite
def shapes(draw) -> tuple[int, int, int, int, int]:
    experts = draw(st.integers(1, 6))
    return (
        draw(st.integers(0, 17)),
        experts,
        draw(st.integers(1, experts)),
        draw(st.integers(1, 70)),
        draw(st.integers(1, 40)),
    )


@settings(max_examples=25, deadline=None)
@given(shapes(), st.sampled_from(ACTS), st.integers(0, 2**31))
def test_reference_is_the_definition(shape, act, seed):
    tokens, experts, top_k, hidden, width = shape
    case = make(min(tokens, 5), experts, top_k, min(hidden, 12), min(width, 9), torch.float64, seed)
    out = routing_kernels.moe_experts(*case, act=act, stats=True, threshold=0.1, backend="reference")
    y, counts, statistics = by_hand(case, act, 0.1)
    torch.testing.assert_close(
        out.y, torch.tensor(y, dtype=torch.float64).reshape(case.x.shape), rtol=1e-9, atol=1e-12
    )
    assert out.counts.tolist() == counts
    for t in range(case.ids.shape[0]):
        for j in range(top_k):
            expected = statistics.get((t, j), (0, 0, 0, 0, 0))
            assert [field[t, j].item() for field in out[3:]] == pytest.approx(expected, rel=1e-6)


def added_up(case: Case) -> Tensor:
    """A bound [T] on what each output adds up, whose sums may cancel to nothing: |weight| x |gate| |up| x |down|, with every
    dot product taken over absolute values; |act(z)| is at most |z|."""
    x, ids, weights, gate_up, down = case.double()
    gate, up = torch.einsum("th,enh->ten", x.abs(), gate_up.abs()).chunk(2, dim=-1)
    each = (gate * up).norm(dim=-1) * down.flatten(1).norm(dim=1)
    used = (ids >= 0) & (ids < len(down))
    if not len(down):
        return torch.zeros(len(x), dtype=torch.float64)
    return (weights.abs() * each.gather(1, ids.clamp(0, len(down) - 1)) * used).sum(-1)


@settings(max_examples=120, deadline=None)
@given(
    shapes(),
    st.sampled_from(ISAS),
    st.sampled_from(list(NORM_TOLERANCE)),
    st.sampled_from(ACTS),
    st.integers(0, 2**31),
)
def test_c_agrees_with_the_reference_in_float64(shape, isa, dtype, act, seed):
    case = make(*shape, dtype, seed)
    out = on(isa, case, act, stats=True, threshold=0.05)
    exact = routing_kernels.moe_experts(
        *case.double(), act=act, stats=True, threshold=0.05, backend="reference"
    )

    assert out.y.dtype == dtype and out.y.shape == case.x.shape
    added = added_up(case)
    error = (out.y.double() - exact.y).norm(dim=-1)
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # the grid of subnormal results
    assert (error <= NORM_TOLERANCE[dtype] * added + smallest * case.x.shape[1] ** 0.5).all()

    assert torch.equal(out.counts, exact.counts) and torch.equal(out.dropped, exact.dropped)
    assert out.counts.sum() + out.dropped == case.ids.numel()
    for name in ("slot_norm", "hidden_l1", "hidden_l2"):
        torch.testing.assert_close(getattr(out, name), getattr(exact, name), rtol=1e-4, atol=1e-6)
    # A neuron within rounding of the threshold may fall on either side of it.
    looser = [
        routing_kernels.moe_experts(
            *case.double(), act=act, stats=True, threshold=edge, backend="reference"
        ).hidden_below
        for edge in (0.05 - 1e-5, 0.05 + 1e-5)
    ]
    assert (looser[0] <= out.hidden_below).all() and (out.hidden_below <= looser[1]).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", NORM_TOLERANCE)
def test_statistics_of_whole_numbers_are_exact(isa, dtype):
    """Small integers through relu leave nothing to round, so every statistic can be demanded to the last bit."""
    random = torch.Generator().manual_seed(3)
    case = make(9, 4, 3, 21, 13, dtype)
    whole = Case(*(torch.randint(-2, 3, t.shape, generator=random).to(t.dtype) for t in case))
    whole = whole._replace(ids=case.ids)
    out = on(isa, whole, "relu", stats=True, threshold=2.0)
    _, counts, statistics = by_hand(whole, "relu", 2.0)
    assert out.counts.tolist() == counts
    assert sum(s[3] for s in statistics.values()) > 0
    for t in range(9):
        for j in range(3):
            slot, l1, l2, zero, below = statistics.get((t, j), (0, 0, 0, 0, 0))
            assert out.hidden_l1[t, j] == l1
            assert (out.hidden_zero[t, j], out.hidden_below[t, j]) == (zero, below)
            assert out.slot_norm[t, j] == pytest.approx(slot, rel=1e-7)
            assert out.hidden_l2[t, j] == pytest.approx(l2, rel=1e-7)


@settings(max_examples=40, deadline=None)
@given(shapes(), st.sampled_from(ISAS), st.sampled_from(list(NORM_TOLERANCE)), st.integers(0, 2**31))
def test_y_has_the_same_bits_whatever_else_is_asked(shape, isa, dtype, seed):
    """Statistics, repetition, and the other tokens of the call change nothing."""
    case = make(*shape, dtype, seed)
    y = on(isa, case).y
    assert torch.equal(y, on(isa, case, stats=True).y)
    assert torch.equal(y, on(isa, case).y)
    for t in range(shape[0]):
        alone = case._replace(x=case.x[t : t + 1], ids=case.ids[t : t + 1], weights=case.weights[t : t + 1])
        assert torch.equal(y[t : t + 1], on(isa, alone).y)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", NORM_TOLERANCE)
@pytest.mark.parametrize(("hidden", "width"), [(255, 256), (256, 259), (603, 513)])
def test_long_rows_have_the_bits_of_each_token_alone(hidden, width, dtype, isa):
    """A lone token goes through long rows in another way than several do."""
    case = make(5, 2, 2, hidden, width, dtype)._replace(ids=torch.tensor([[0, 1]]).repeat(5, 1))
    y = on(isa, case).y
    exact = routing_kernels.moe_experts(*case.double(), backend="reference").y
    assert ((y.double() - exact).norm(dim=-1) <= NORM_TOLERANCE[dtype] * added_up(case)).all()
    for t in range(5):
        alone = case._replace(x=case.x[t : t + 1], ids=case.ids[t : t + 1], weights=case.weights[t : t + 1])
        assert torch.equal(y[t : t + 1], on(isa, alone).y)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_statistics_have_no_size_when_off(backend):
    out = routing_kernels.moe_experts(*make(3, 4, 2, 8, 8, torch.float32), backend=backend)
    assert all(field.numel() == 0 for field in out[3:])
    assert out.counts.shape == (4,) and out.dropped.shape == ()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", NORM_TOLERANCE)
def test_more_tokens_on_one_expert_than_any_tile_holds(isa, dtype):
    case = make(131, 3, 2, 48, 35, dtype)
    case = case._replace(ids=torch.tensor([[1, 1]]).repeat(131, 1))  # the same expert twice is legal
    out = on(isa, case, stats=True)
    exact = routing_kernels.moe_experts(*case.double(), backend="reference")
    assert out.counts.tolist() == [0, 262, 0]
    assert (out.y.double() - exact.y).norm() <= NORM_TOLERANCE[dtype] * exact.y.norm()
    assert torch.equal(out.slot_norm[:, 0], out.slot_norm[:, 1])


def test_inputs_longer_than_the_scratch_go_through_in_stretches():
    tokens = 800_000
    x = torch.linspace(0, 2, tokens)[:, None]
    ids = torch.arange(tokens)[:, None] % 3  # 0 and 1 are experts, 2 is dropped
    gate_up = torch.tensor([[[1.0], [1.0]], [[2.0], [1.0]]])
    out = routing_kernels.moe_experts(
        x, ids, torch.ones(tokens, 1), gate_up, torch.ones(2, 1, 1), act="relu", stats=True, backend="cpu"
    )
    expected = x[:, 0] ** 2 * torch.tensor([1.0, 2.0, 0.0])[ids[:, 0]]
    assert torch.equal(out.y[:, 0], expected)
    assert torch.equal(out.slot_norm[:, 0], expected)
    assert out.counts.tolist() == [266_667, 266_667] and out.dropped == 266_666


@pytest.mark.parametrize("isa", ISAS)
def test_strided_inputs(isa):
    case = make(10, 6, 3, 24, 17, torch.float32)
    odd = Case(
        case.x.T.contiguous().T,
        case.ids.T.contiguous().T,
        case.weights.repeat_interleave(2, dim=1)[:, ::2],
        torch.cat([case.gate_up, case.gate_up], dim=2)[:, :, :24],
        case.down.repeat_interleave(2, dim=0)[::2],
    )
    assert not any(t.is_contiguous() for t in odd)
    assert torch.equal(on(isa, odd).y, on(isa, case).y)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_dropped_slot_reads_nothing_and_adds_nothing(backend):
    case = make(6, 4, 2, 20, 11, torch.float32)
    case = case._replace(ids=torch.tensor([[0, 1]]).repeat(6, 1))
    fewer = case._replace(ids=case.ids[:, :1], weights=case.weights[:, :1])
    kept = routing_kernels.moe_experts(*fewer, stats=True, backend=backend)
    for nobody in (-1, 4, -(2**62), 2**62):
        dropping = case._replace(ids=case.ids.clone(), weights=case.weights.clone())
        dropping.ids[:, 1] = nobody
        dropping.weights[:, 1] = math.nan
        out = routing_kernels.moe_experts(*dropping, stats=True, backend=backend)
        assert torch.equal(out.y, kept.y)
        assert out.dropped == 6 and out.counts.tolist() == [6, 0, 0, 0]
        assert torch.equal(out.slot_norm, torch.cat([kept.slot_norm, torch.zeros(6, 1)], dim=1))
        assert not any(field[:, 1].any() for field in out[3:])


def test_a_dropped_slot_costs_no_arithmetic():
    case = make(64, 8, 4, 256, 256, torch.float32)
    executing = case._replace(ids=case.ids.clamp(0, 7))
    dropping = case._replace(ids=torch.full_like(case.ids, -1))

    def cost(these: Case) -> float:
        times = []
        for _ in range(7):
            start = time.thread_time()
            routing_kernels.moe_experts(*these, backend="cpu")
            times.append(time.thread_time() - start)
        return min(times)

    assert cost(dropping) < cost(executing) / 5


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", NORM_TOLERANCE)
def test_nan_stays_visible_and_stays_where_it_is(isa, act, dtype):
    case = make(5, 3, 2, 19, 10, dtype)
    case = case._replace(ids=torch.tensor([[0, 1]]).repeat(5, 1))
    case.x[2, 7] = math.nan
    out = on(isa, case, act, stats=True)
    assert out.y[2].isnan().all() and out.slot_norm[2].isnan().all()
    rest = [0, 1, 3, 4]
    assert out.y[rest].isfinite().all() and out.slot_norm[rest].isfinite().all()
    case.down[1, 4, 3] = math.nan
    assert on(isa, case, act).y[rest].isnan().nonzero()[:, 1].tolist() == [4] * 4


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("act", ACTS)
def test_activation_over_its_whole_range(isa, act):
    """A layer of identities shows the activation itself, from where it vanishes to where it overflows."""
    gates = torch.cat(
        [torch.linspace(-120, 120, 4001), torch.linspace(-12, 12, 4001), torch.tensor([0.0, -0.0, 1e30])]
    )
    x = torch.stack([gates, torch.ones_like(gates)], dim=1)
    gate_up = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    down = torch.tensor([[[1.0], [0.0]]])
    case = Case(x, torch.zeros(len(x), 1, dtype=torch.int64), torch.ones(len(x), 1), gate_up, down)
    found = on(isa, case, act).y[:, 0]
    exact = routing_kernels.moe_experts(*case.double(), act=act, backend="reference").y[:, 0]
    torch.testing.assert_close(found.double(), exact, rtol=3e-6, atol=1e-9)


@pytest.mark.parametrize("isa", ISAS)
def test_half_precision_covers_every_value(isa):
    """All 65,536 halves through one relu neuron of weight one: widening and narrowing must be exact. Tiles take what is
    below the normal numbers for 0, as their instructions do."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        x = bits.view(dtype)[:, None]
        one = torch.ones(1, 1, 1, dtype=dtype)
        case = Case(
            torch.cat([x, torch.ones_like(x)], dim=1),
            torch.zeros(65536, 1, dtype=torch.int64),
            torch.ones(65536, 1),
            torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=dtype),
            torch.cat([one, one], dim=1),
        )
        y = on(isa, case, "relu").y[:, 0]
        expected = x[:, 0].relu()
        if isa.startswith("amx") and dtype == torch.bfloat16:
            expected = torch.where(expected < torch.finfo(dtype).smallest_normal, 0, expected)
        finite = x[:, 0].isfinite()
        assert torch.equal(y[finite], expected[finite])
        assert y[x[:, 0].isnan()].isnan().all()


@pytest.mark.parametrize("isa", ISAS)
def test_narrowing_rounds_to_nearest_even(isa):
    """The weight is float32, so y = weight shows the rounding of any float32 into the narrow types."""
    random = torch.Generator().manual_seed(0)
    exponent = torch.randint(-30, 20, (4096, 1), generator=random)
    weights = torch.randn(4096, 1, generator=random) * 2.0**exponent
    ties = torch.tensor(
        [[1 + 2**-11], [1 + 3 * 2**-11], [1 + 2**-8], [1 + 3 * 2**-8], [2**-25], [3 * 2**-25], [65520.0]]
    )
    weights = torch.cat(
        [weights, ties, -ties, torch.tensor([[0.0], [math.inf], [65519.0], [2**-14 - 2**-26]])]
    )
    for dtype in (torch.float16, torch.bfloat16):
        ones = torch.ones(len(weights), 1, dtype=dtype)
        one = torch.ones(1, 1, 1, dtype=dtype)
        ids = torch.zeros(len(weights), 1, dtype=torch.int64)
        y = on(isa, Case(ones, ids, weights, one.repeat(1, 2, 1), one), "relu").y
        assert torch.equal(y, weights.to(dtype))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_no_tokens_and_no_experts(backend):
    none = make(0, 4, 2, 8, 6, torch.float32)
    out = routing_kernels.moe_experts(*none, stats=True, backend=backend)
    assert out.y.shape == (0, 8) and out.counts.tolist() == [0] * 4 and out.dropped == 0
    bare = make(3, 4, 2, 8, 6, torch.float32)
    out = routing_kernels.moe_experts(
        *bare._replace(gate_up=bare.gate_up[:0], down=bare.down[:0]), backend=backend
    )
    assert not out.y.any() and out.dropped == 6


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_rows_are_the_statistics_side_by_side(backend):
    case = make(13, 4, 2, 24, 16, torch.float32)
    whole = routing_kernels.moe_experts(*case, stats=True, threshold=0.1, backend=backend)
    rows = routing_kernels.expert_rows(*case, stats=True, threshold=0.1, backend=backend)
    assert rows.norms.shape == (3, 13, 2) and rows.tallies.shape == (2, 13, 2)
    for mine, theirs in zip((*rows[:3], *rows.norms, *rows.tallies), whole, strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    for mine, theirs in zip(whole.rows(), rows, strict=True):
        assert torch.equal(mine, theirs)
    plain = routing_kernels.expert_rows(*case, backend=backend)
    assert torch.equal(plain.y, rows.y) and not plain.norms.numel() and not plain.tallies.numel()
