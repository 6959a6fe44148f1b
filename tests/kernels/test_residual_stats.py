"""Statistics of the residual stream: the definition, every instruction set against it, and the workbench's formulas."""

from __future__ import annotations

import math

import pytest
import routing_kernels
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_isas import DTYPES, ISAS, using
from torch import Tensor

from workbench.signals import contribution

FIELDS = routing_kernels.ResidualStats._fields


def make(tokens: int, hidden: int, dtype: torch.dtype, scale: float = 1.0, seed: int = 0) -> list[Tensor]:
    """A stream and two parts, of which the parts are ``scale`` times as large; some tokens are zero vectors."""
    random = torch.Generator().manual_seed(seed)
    pre, attn, mlp = (torch.randn(tokens, hidden, generator=random) for _ in range(3))
    pre[torch.rand(tokens, generator=random) < 0.1] = 0
    attn[torch.rand(tokens, generator=random) < 0.1] = 0
    return [pre.to(dtype), (attn * scale).to(dtype), (mlp * scale).to(dtype)]


def by_hand(pre: list[float], attn: list[float], mlp: list[float]) -> list[float]:
    def norm(v: list[float]) -> float:
        return math.hypot(*v)

    def share(part: float, whole: float) -> float:
        return part / whole if whole > 0 else math.nan

    def cosine(a: list[float], b: list[float]) -> float:
        if norm(a) == 0 or norm(b) == 0:
            return math.nan
        return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norm(a) / norm(b)

    mid = [p + a for p, a in zip(pre, attn, strict=True)]
    change = [a + m for a, m in zip(attn, mlp, strict=True)]
    post = [p + d for p, d in zip(pre, change, strict=True)]
    sizes = [norm(v) for v in (pre, attn, mid, mlp, change)]
    shares = [share(sizes[1], sizes[0]), cosine(attn, pre), share(sizes[3], sizes[2]), cosine(mlp, mid)]
    return [*sizes, *shares, share(sizes[4], sizes[0]), 1 - cosine(pre, post)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4), st.integers(1, 20), st.integers(0, 2**31))
def test_reference_is_the_definition(tokens, hidden, seed):
    case = make(tokens, hidden, torch.float64, seed=seed)
    out = routing_kernels.residual_stats(*case, backend="reference")
    for t in range(tokens):
        expected = by_hand(*(part[t].tolist() for part in case))
        assert [field[t].item() for field in out] == pytest.approx(expected, rel=1e-6, abs=1e-7, nan_ok=True)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(1, 70),
    st.sampled_from(ISAS),
    st.sampled_from(DTYPES),
    st.sampled_from([1e-6, 1e-2, 1.0, 1e2]),
    st.integers(0, 2**31),
)
@example(3, 1, ISAS[0], torch.float16, 1.0, 16403)
def test_c_agrees_with_the_reference(tokens, hidden, isa, dtype, scale, seed):
    case = make(tokens, hidden, dtype, scale if dtype != torch.float16 else min(scale, 1.0), seed)
    with using(isa):
        out = routing_kernels.residual_stats(*case, backend="cpu")
    exact = routing_kernels.residual_stats(*(t.double() for t in case), backend="reference")
    pre, change = case[0].double(), case[1].double() + case[2].double()
    added = (change.square().sum(-1) / (pre + change).square().sum(-1)).nan_to_num(1.0).clamp(min=1.0)
    for name, ours, theirs in zip(FIELDS, out, exact, strict=True):
        assert ours.dtype == torch.float32 and ours.shape == (tokens,)
        # A cosine that cancels and an influence of nothing are held to the size of what was added up: an influence to that
        # of what the block added, beside what it left.
        floor = {"attn_cos": 1e-14, "mlp_cos": 1e-14, "influence": 1e-15}.get(name, 0.0)
        size = added if name == "influence" else torch.ones(tokens)
        torch.testing.assert_close(
            ours.double() / size, theirs.double() / size, rtol=2e-6, atol=floor, equal_nan=True, check_dtype=False,
            msg=name,
        )  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1.0])
def test_it_says_what_the_workbench_says(isa, scale):
    case = make(40, 96, torch.float32, scale)
    with using(isa):
        out = routing_kernels.residual_stats(*(t.reshape(4, 10, 96) for t in case), backend="cpu")
    pre, attn, mlp = (t.double() for t in case)
    said = contribution.block(pre, attn, pre + attn, mlp, pre + attn + mlp)
    for name, theirs in said._asdict().items():
        ours = getattr(out, name)
        assert ours.shape == (4, 10)
        torch.testing.assert_close(ours.flatten().double(), theirs, rtol=1e-6, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize("isa", ISAS)
def test_a_small_turn_keeps_its_digits(isa):
    """A change of 1e-7 at a right angle turns by 5e-15, which 1 - cos in float32 or even summed in it cannot show."""
    pre = torch.tensor([[3.0, 4.0] + [0.0] * 17])
    change = torch.tensor([[-4e-7, 3e-7] + [0.0] * 17])
    with using(isa):
        out = routing_kernels.residual_stats(pre, change, torch.zeros_like(pre), backend="cpu")
    assert out.influence.item() == pytest.approx(0.5e-14, rel=1e-4)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_ends_of_the_range(backend):
    opposite = torch.tensor([[1.0, 2.0, 3.0]])
    zero = torch.zeros(1, 3)
    out = routing_kernels.residual_stats(opposite, zero, -2 * opposite, backend=backend)
    assert out.influence.item() == pytest.approx(2.0) and out.mlp_cos.item() == pytest.approx(-1.0)
    assert out.attn.item() == 0 and out.attn_norm.item() == 0 and out.attn_cos.isnan()
    gone = routing_kernels.residual_stats(opposite, -opposite, zero, backend=backend)
    assert gone.mid.item() == 0 and gone.mlp_norm.isnan() and gone.influence.isnan()
    assert gone.block_norm.item() == 1
    tiny = routing_kernels.residual_stats(opposite * 1e-30, opposite * 1e-30, zero, backend=backend)
    assert tiny.attn_norm.item() == 1 and tiny.attn_cos.item() == pytest.approx(1.0)
    broken = routing_kernels.residual_stats(opposite, zero, opposite * math.nan, backend=backend)
    assert broken.mlp.isnan() and broken.influence.isnan() and broken.pre.isfinite()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_token_does_not_see_the_others(isa, dtype):
    case = make(11, 83, dtype)
    with using(isa):
        together = torch.stack(routing_kernels.residual_stats(*case, backend="cpu"))
        for t in range(11):
            alone = routing_kernels.residual_stats(*(part[t] for part in case), backend="cpu")
            assert alone.pre.shape == ()
            assert torch.equal(together[:, t].nan_to_num(7.0), torch.stack(alone).nan_to_num(7.0))


@pytest.mark.slow
def test_strides_gradient_and_compiler():
    case = [t.requires_grad_() for t in make(6, 10, torch.float32)]
    turned = [t.detach().T.contiguous().T for t in case]
    expected = routing_kernels.residual_stats(*case)
    assert not any(field.requires_grad for field in expected)
    for ours, theirs in zip(routing_kernels.residual_stats(*turned), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    compiled = torch.compile(routing_kernels.residual_stats, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(compiled(*turned), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_opcheck(backend):
    parts = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)).unbind()  # opcheck takes no NaN
    torch.library.opcheck(torch.ops.routing_kernels.residual_stats.default, (*parts, backend))


PART = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ((PART, PART, PART[:1]), "shapes do not fit"),
        ((PART[:, :0],) * 3, "H at least 1"),
        ((PART, PART, PART.double()), "Give all three one dtype"),
        ((PART.int(),) * 3, "Give all three one dtype"),
        ((PART, PART, PART.to("meta")), "different devices"),
    ],
)
def test_bad_arguments_are_refused(case, problem):
    with pytest.raises(routing_kernels.ArgumentError, match=problem):
        routing_kernels.residual_stats(*case)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_rows_are_the_fields_of_all_tokens(backend):
    case = [t.reshape(4, 10, 96) for t in make(40, 96, torch.float32)]
    out = routing_kernels.residual_rows(*case, backend=backend)
    whole = routing_kernels.residual_stats(*case, backend=backend)
    assert out.shape == (len(FIELDS), 40) and out.dtype == torch.float32
    expected = torch.stack([field.flatten() for field in whole])
    torch.testing.assert_close(out, expected, rtol=0.0, atol=0.0, equal_nan=True)
    assert not routing_kernels.residual_rows(
        *(t.requires_grad_() for t in case), backend=backend
    ).requires_grad
