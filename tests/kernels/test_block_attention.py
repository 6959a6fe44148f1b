"""Block-sparse attention: against a dense masked softmax, on every instruction set, with what it leaves unread."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import routing_kernels
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_isas import DTYPES, ISAS, NORM_TOLERANCE, using
from routing_kernels import block_attention, block_rows
from torch import Tensor

Case = dict[str, Any]


def make(
    batch: int, heads: int, group: int, queries: int, keys: int, depth: int, values: int, dtype: torch.dtype, seed: int,
    block: int = 16, share: float = 0.5, causal: bool = True, options: bool = True,
) -> Case:  # fmt: skip
    """Random attention over random blocks, and half the time each of lengths, starts, sinks, extra columns, a window and
    a cap."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    def maybe(value: Tensor) -> Tensor | None:
        return value if options and torch.rand((), generator=random) < 0.5 else None

    kept = torch.rand(heads, -(-queries // block), -(-keys // block), generator=random) < share
    ptr, col = block_rows(kept)
    return {
        "q": normal(batch, heads, queries, depth).to(dtype),
        "k": normal(batch, heads // group, keys, depth).to(dtype),
        "v": normal(batch, heads // group, keys, values).to(dtype),
        "ptr": ptr,
        "col": col,
        "block": block,
        "causal": causal,
        "lengths": maybe(torch.randint(0, keys + 1, (batch,), generator=random)),
        "sinks": maybe(normal(heads)),
        "extra": maybe(normal(keys, 3)),
        "starts": maybe(torch.randint(0, keys + 1, (batch,), generator=random)),
        "window": int(torch.randint(1, keys + 1, (), generator=random)) if maybe(normal()) is not None else 0,
        "softcap": 0.7 if maybe(normal()) is not None else 0.0,
    }


def double(case: Case) -> Case:
    return {n: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for n, t in case.items()}


def by_hand(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """One query and one key at a time, in float64: o, sketch, lse, block_mass, blocks executed."""
    q, k, v = (case[name].double() for name in "qkv")
    (batch, heads, queries, depth), keys, block = q.shape, k.shape[2], case["block"]
    edges = case["ptr"].tolist()
    extra = case["extra"].double() if case["extra"] is not None else torch.zeros(keys, 0).double()
    o, sketch = q.new_zeros(*q.shape[:3], v.shape[3]), q.new_zeros(*q.shape[:3], extra.shape[1])
    lse, mass = q.new_full(q.shape[:3], -math.inf), q.new_zeros(batch, len(case["col"]))
    executed = set()
    for b in range(batch):
        for h in range(heads):
            g = h // (heads // k.shape[1])
            for i in range(queries):
                first, last = edges[h][i // block], edges[h][i // block + 1]
                seen = []
                for e in range(first, last):
                    for j in range(case["col"][e] * block, min(int(case["col"][e] + 1) * block, keys)):
                        ago = i + keys - queries - j
                        far = (case["causal"] and ago < 0) or (case["window"] and ago >= case["window"])
                        late = case["lengths"] is not None and j >= case["lengths"][b]
                        early = case["starts"] is not None and j < case["starts"][b]
                        if not (far or late or early):
                            seen.append((e, j))
                            executed.add((b, e))
                scores = [(q[b, h, i] @ k[b, g, j]).item() / math.sqrt(depth) for _, j in seen]
                if case["softcap"]:
                    scores = [case["softcap"] * math.tanh(s / case["softcap"]) for s in scores]
                if case["sinks"] is not None:
                    scores.append(case["sinks"][h].item())
                if not scores:
                    continue
                top = max(scores)
                total = math.fsum(math.exp(s - top) for s in scores)
                lse[b, h, i] = top + math.log(total)
                for s, (e, j) in zip(scores, seen, strict=False):
                    p = math.exp(s - top) / total
                    o[b, h, i] += p * v[b, g, j]
                    sketch[b, h, i] += p * extra[j]
                    mass[b, e] += p
    return o, sketch, lse, mass, len(executed)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 2), st.sampled_from([(1, 1), (2, 2), (4, 2)]), st.integers(0, 35), st.integers(1, 35),
    st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_reference_is_the_definition(batch, heads, queries, keys, causal, seed):
    case = make(batch, *heads, queries, keys, 3, 2, torch.float64, seed, causal=causal)
    out = block_attention(**case, stats=True, backend="reference")
    o, sketch, lse, mass, executed = by_hand(case)
    assert out.executed == executed
    torch.testing.assert_close(out.o, o, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(out.sketch, sketch.float() if case["extra"] is not None else torch.empty(0))
    torch.testing.assert_close(out.lse, lse.float())
    torch.testing.assert_close(out.block_mass, mass.float())


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2), st.sampled_from([(1, 1), (3, 3), (4, 2)]), st.integers(0, 150), st.integers(1, 150),
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([16, 32, 64, 128]), st.sampled_from([0.1, 0.5, 1.0]),
    st.booleans(), st.sampled_from(ISAS), st.sampled_from(DTYPES), st.integers(0, 2**31),
)  # fmt: skip
def test_c_agrees_with_the_reference_in_float64(
    batch, heads, queries, keys, depth, values, block, share, causal, isa, dtype, seed
):
    case = make(batch, *heads, queries, keys, depth, values, dtype, seed, block, share, causal)
    with using(isa):
        out = block_attention(**case, stats=True, backend="cpu")
        plain = block_attention(**case, backend="cpu")
    exact = block_attention(**double(case), stats=True, backend="reference")
    assert out.o.dtype == dtype and out.o.shape == exact.o.shape
    size = case["v"].double().abs().amax(2, keepdim=True).norm(dim=-1).repeat_interleave(heads[1], 1)
    assert ((out.o.double() - exact.o).norm(dim=-1) <= NORM_TOLERANCE[dtype] * (size + 1e-6)).all()
    torch.testing.assert_close(out.lse, exact.lse, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(out.block_mass, exact.block_mass, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.sketch, exact.sketch, rtol=1e-4, atol=2e-5)
    # The same bits without statistics, and statistics have no size then.
    assert torch.equal(out.o, plain.o) and torch.equal(out.sketch, plain.sketch)
    assert out.executed == plain.executed == exact.executed
    assert plain.lse.numel() == plain.block_mass.numel() == 0


@pytest.mark.parametrize("isa", ISAS)
def test_masses_add_up(isa):
    case = make(2, 3, 1, 100, 100, 8, 8, torch.float32, 0, share=0.15, options=False)
    with using(isa):
        out = block_attention(**case, stats=True, backend="cpu")
    seen = out.lse.isfinite()
    rows = case["ptr"].diff(dim=1).flatten()
    where = torch.repeat_interleave(torch.arange(len(rows)), rows)
    found = torch.zeros(2, len(rows)).index_add(1, where, out.block_mass)
    expected = F.pad(seen.float(), (0, 12)).unflatten(2, (7, 16)).sum(3).flatten(1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not out.o[~seen].any() and (~seen).any()


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_does_not_see_the_batch(isa):
    case = make(3, 4, 2, 70, 70, 24, 24, torch.float32, 2)
    with using(isa):
        together = block_attention(**case, stats=True, backend="cpu")
        for b in range(3):
            alone = {
                n: t[b : b + 1] if n in ("q", "k", "v", "lengths", "starts") and t is not None else t
                for n, t in case.items()
            }
            out = block_attention(**alone, stats=True, backend="cpu")
            assert torch.equal(out.o, together.o[b : b + 1]) and torch.equal(out.lse, together.lse[b : b + 1])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_block_kept_is_dense_attention(dtype, isa):
    for causal in (True, False):
        case = make(2, 4, 2, 100, 100, 16, 16, dtype, 3, share=2.0, causal=causal, options=False)
        with using(isa):
            out = block_attention(**case, stats=True, backend="cpu")
        dense = F.scaled_dot_product_attention(
            case["q"], case["k"], case["v"], is_causal=causal, enable_gqa=True
        )
        long_vectors = isa in ("avx512", "amx")
        if dtype == torch.float32 and not long_vectors:  # torch's own, which is the faster one there
            assert torch.equal(out.o, dense)
        assert (out.o - dense).norm() <= NORM_TOLERANCE[dtype] * dense.norm()
        torch.testing.assert_close(out.block_mass.sum(), torch.tensor(2 * 4 * 100.0))


@pytest.mark.parametrize("isa", ISAS)
def test_blocks_that_are_not_kept_or_not_seen_are_not_read(isa):
    case = make(1, 2, 1, 64, 64, 8, 8, torch.float32, 0, options=False)
    kept = torch.ones(2, 4, 4, dtype=torch.bool)
    kept[:, :, 1] = False
    case["ptr"], case["col"] = block_rows(kept)
    case["lengths"] = torch.tensor([48])
    with using(isa):
        clean = block_attention(**case, backend="cpu").o
        for name in ("k", "v"):
            case[name][:, :, 16:32] = case[name][:, :, 48:] = math.nan
        assert torch.equal(block_attention(**case, backend="cpu").o, clean) and clean.isfinite().all()
        case["q"][0, 1, 20] = math.nan
        broken = block_attention(**case, backend="cpu").o
        assert broken[0, 1, 20].isnan().all() and broken.isnan().sum() == 8


def test_blocks_that_are_not_kept_cost_no_arithmetic():
    def cost(share: float) -> float:
        case = make(1, 2, 1, 1024, 1024, 64, 64, torch.bfloat16, 0, block=64, share=share, options=False)
        times = []
        for _ in range(5):
            start = time.thread_time()
            block_attention(**case, backend="cpu")
            times.append(time.thread_time() - start)
        return min(times)

    assert cost(0.1) < cost(2.0) / 2


def test_strides_and_extreme_scores():
    case = make(2, 2, 1, 40, 40, 8, 8, torch.float32, 1, options=False)
    turned = {**case, **{n: case[n].transpose(1, 2).contiguous().transpose(1, 2) for n in "qkv"}}
    assert torch.equal(block_attention(**turned).o, block_attention(**case).o)
    case["q"] *= 1e4
    out, exact = block_attention(**case, backend="cpu"), block_attention(**double(case), backend="reference")
    torch.testing.assert_close(out.o.double(), exact.o, rtol=1e-2, atol=1e-2)


def small(gradient: bool, dtype: torch.dtype = torch.float32) -> Case:
    case = make(2, 4, 2, 20, 20, 3, 2, dtype, 5, options=False)
    random = torch.Generator().manual_seed(0)
    case["sinks"], case["lengths"] = torch.randn(4, generator=random).to(dtype), torch.tensor([20, 13])
    case["window"], case["softcap"], case["starts"] = 9, 1.5, torch.tensor([0, 2])
    for name in ("q", "k", "v", "sinks"):
        case[name].requires_grad_(gradient)
    return case


def positional(case: Case) -> list[Any]:
    names = ("q", "k", "v", "ptr", "col", "block", "scale", "causal", "lengths", "sinks")
    return [{**case, "scale": 0.5}[name] for name in names]


def limits(case: Case) -> list[Any]:
    return [case[name] for name in ("window", "softcap", "starts")]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_opcheck(backend):
    ops = torch.ops.routing_kernels
    torch.library.opcheck(
        ops.block_attention.default, (*positional(small(True)), None, *limits(small(True)), False, backend)
    )
    inference = (*positional(small(False)), torch.ones(20, 2), *limits(small(False)), True, backend)
    torch.library.opcheck(ops.block_attention_inference.default, inference)
    gradient = (
        torch.ones(2, 4, 20, 2),
        *positional(small(False)),
        *limits(small(False)),
        [True, False, True, True],
    )
    torch.library.opcheck(ops.block_attention_backward.default, gradient)


@pytest.mark.slow
def test_gradient_against_finite_differences():
    case = small(True, torch.float64)
    leaves = [case[name] for name in ("q", "k", "v", "sinks")]

    def attend(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> Tensor:
        return block_attention(**{**case, "q": q, "k": k, "v": v, "sinks": sinks}).o

    assert torch.autograd.gradcheck(attend, leaves, fast_mode=True)


@pytest.mark.slow
def test_gradient_of_the_c_backend_against_dense_attention():
    case = make(2, 4, 2, 40, 40, 8, 8, torch.float32, 3, share=2.0, options=False)
    leaves = [case[name].requires_grad_() for name in "qkv"]
    ours = torch.autograd.grad(block_attention(**case, backend="cpu").o.square().sum(), leaves)
    dense = F.scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True)
    for found, expected in zip(ours, torch.autograd.grad(dense.square().sum(), leaves), strict=True):
        assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.slow
def test_compiles_without_a_graph_break():
    case = small(True)

    def attend(q: Tensor) -> Tensor:
        out = block_attention(**{**case, "q": q}, stats=True)
        return out.o.square().sum() + out.block_mass.sum()

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    found, expected = compiled(case["q"]), attend(case["q"])
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(y, case["q"])[0] for y in (found, expected)))


GOOD = make(2, 4, 2, 40, 40, 4, 4, torch.float32, 0, options=False)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"block": 48}, "no blocks of 48. Use one of 16, 32, 64, 128"),
        ({"q": GOOD["q"][0]}, "shapes do not fit"),
        ({"q": GOOD["q"][:, :3]}, "shapes do not fit"),
        ({"v": GOOD["v"][:, :, :9]}, "shapes do not fit"),
        ({"ptr": GOOD["ptr"][:, :2]}, "shapes do not fit"),
        ({"k": GOOD["k"].double()}, "Give all three one dtype"),
        ({"col": GOOD["col"].int()}, "ptr and col are torch.int64 and torch.int32"),
        ({"lengths": torch.zeros(3, dtype=torch.int64)}, "lengths has shape"),
        ({"sinks": torch.zeros(4, dtype=torch.int64)}, "sinks is torch.int64"),
        ({"extra": torch.zeros(39, 2)}, "extra has shape"),
        ({"starts": torch.zeros(2)}, "starts is torch.float32"),
        ({"window": -1}, "The window is -1"),
        ({"softcap": math.nan}, "the softcap nan"),
        ({"extra": torch.zeros(40, 2, device="meta")}, "different devices"),
        ({"ptr": GOOD["ptr"] + 1}, "do not describe rows of blocks"),
        ({"ptr": GOOD["ptr"].flip(1)}, "do not describe rows of blocks"),
        ({"col": GOOD["col"][:-1]}, "do not describe rows of blocks"),
        ({"col": GOOD["col"] + 1}, "do not describe rows of blocks"),
        ({"col": GOOD["col"] * 0 - 1}, "do not describe rows of blocks"),
        ({"col": GOOD["col"] * 0}, "do not describe rows of blocks"),
    ],
)
def test_bad_arguments_are_refused(wrong, problem, backend):
    with pytest.raises(routing_kernels.ArgumentError, match=problem):
        block_attention(**{**GOOD, **wrong}, backend=backend)
    with pytest.raises(routing_kernels.ArgumentError, match="Give booleans"):
        block_rows(torch.ones(2, 2))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("plain", [True, False])
def test_a_head_that_keeps_no_block_is_not_read_and_changes_no_bit_of_the_others(
    isa: str, dtype: torch.dtype, group: int, plain: bool
) -> None:
    """What is not read may be anything: the head's queries, and the keys that no other head reads, are not numbers."""
    with using(isa):
        case = make(2, 4, group, 70, 70, 8, 8, dtype, 3, share=1.1, options=False)
        if not plain:
            case |= {"window": 40, "lengths": torch.tensor([70, 33])}
        whole = block_attention(**case, backend="cpu")
        live = (
            torch.tensor([True, False, True, False])
            if group == 1
            else torch.tensor([True, True, True, False])
        )
        live = torch.tensor([True, False, False, False]) if group == 2 and not plain else live
        rows = torch.ones(4, 5, 5, dtype=torch.bool).tril() & live[:, None, None]
        case["ptr"], case["col"] = block_rows(rows)
        case["q"] = case["q"].masked_fill(~live[:, None, None], torch.nan)
        unread = ~live.unflatten(0, (-1, group)).any(1)
        for name in "kv":
            case[name] = case[name].masked_fill(unread[:, None, None], torch.nan)
        found = block_attention(**case, backend="cpu")
        assert torch.equal(found.o[:, live], whole.o[:, live]) and not found.o[:, ~live].any()
        assert int(found.executed) * 4 == int(whole.executed) * int(live.sum()) > 0
        stats = block_attention(**case, backend="cpu", stats=True)
        assert torch.equal(stats.o, found.o) and bool((stats.lse[:, ~live] == -math.inf).all())
