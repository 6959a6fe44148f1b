"""Linear layers of chosen experts, and experts composed of them: definition, instruction sets, gradients, compiler."""

from __future__ import annotations

from typing import Any

import pytest
import routing_kernels
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_isas import DTYPES, ISAS, NORM_TOLERANCE, using
from routing_kernels import (
    ExpertLinear,
    MaskedExpertLinear,
    composed_experts,
    expert_linear,
    moe_experts,
    pack_masked,
)
from torch import Tensor


def make(
    tokens: int,
    top_k: int,
    experts: int,
    depth: int,
    outputs: int,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x [T, k, K], ids with some that name nobody, weight [E, N, K], bias."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, top_k, depth, generator=random)
    ids = torch.randint(-1, experts + 1, (tokens, top_k), generator=random)
    weight = torch.randn(experts, outputs, depth, generator=random)
    return x.to(dtype), ids, weight.to(dtype), torch.randn(experts, outputs, generator=random).to(dtype)


def by_hand(x: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = x.new_zeros((*ids.shape, weight.shape[1]), dtype=torch.float64)
    for t, j in torch.cartesian_prod(*map(torch.arange, ids.shape)).tolist():
        e = int(ids[t, j])
        if 0 <= e < len(weight):
            row = x[t, j] if x.dim() == 3 else x[t]
            y[t, j] = weight[e].double() @ row.double() + (0 if bias is None else bias[e].double())
    return y


@settings(max_examples=25)
@given(
    shape=st.tuples(
        st.integers(0, 40), st.integers(1, 4), st.integers(1, 5), st.integers(1, 90), st.integers(1, 70)
    ),
    isa=st.sampled_from(ISAS),
    dtype=st.sampled_from(DTYPES),
    sharing=st.booleans(),
    transposed=st.booleans(),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_the_product_of_each_slot(shape, isa, dtype, sharing, transposed, biased, seed) -> None:
    x, ids, weight, bias = make(*shape, dtype, seed)
    x, bias = x[:, 0] if sharing else x, bias if biased else None
    want = by_hand(x, ids, weight, bias)
    held = weight.transpose(1, 2).contiguous() if transposed else weight
    with using(isa):
        y = expert_linear(x, ids, held, bias, transposed, backend="cpu")
        if len(ids):  # a slot does not see the others
            alone = expert_linear(x[-1:], ids[-1:], held, bias, transposed, backend="cpu")
            assert torch.equal(alone, y[-1:])
    assert y.dtype == dtype and y.shape == want.shape
    assert (y.double() - want).norm() <= NORM_TOLERANCE[dtype] * want.norm()
    assert not y[(ids < 0) | (ids >= len(weight))].any()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("transposed", [False, True])
def test_two_threads_give_the_bits_of_one_and_long_rows_go_through(isa, transposed) -> None:
    x, ids, weight, bias = make(70, 2, 3, 600, 1500)
    held = weight.transpose(1, 2).contiguous() if transposed else weight
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            with using(isa):
                found.append(expert_linear(x, ids, held, bias, transposed, backend="cpu"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
    want = by_hand(x, ids, weight, bias)
    assert (found[0].double() - want).norm() <= 1e-5 * want.norm()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_slots_of_one_expert_have_the_bits_of_each_alone(isa, dtype) -> None:
    """Rows held transposed are added for several slots at once from some number on, and one by one below it."""
    x, _, weight, bias = make(27, 1, 2, 131, 75, dtype)
    held = weight.transpose(1, 2).contiguous()
    with using(isa):
        alone = torch.cat(
            [
                expert_linear(one[None], torch.ones(1, 1, dtype=torch.int64), held, bias, True, "cpu")
                for one in x
            ]
        )
        for count in (2, 7, 8, 9, 13, 14, 27):
            ids = torch.ones(count, 1, dtype=torch.int64)
            assert torch.equal(expert_linear(x[:count], ids, held, bias, True, "cpu"), alone[:count])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [255, 256, 603])
def test_long_rows_have_the_bits_of_each_slot_alone(depth, dtype, isa) -> None:
    x, _, weight, bias = make(5, 1, 2, depth, 39, dtype)
    ids = torch.ones(5, 1, dtype=torch.int64)
    with using(isa):
        alone = [expert_linear(x[t : t + 1], ids[:1], weight, bias, backend="cpu") for t in range(5)]
        together = expert_linear(x, ids, weight, bias, backend="cpu")
    assert torch.equal(together, torch.cat(alone))
    want = x[:, 0].double() @ weight[1].double().T + bias[1].double()
    error = (together[:, 0].double() - want).norm(dim=1)
    assert (error <= 4 * NORM_TOLERANCE[dtype] * want.norm(dim=1)).all()


def swiglu(rows: Tensor) -> Tensor:
    gate, up = rows.chunk(2, dim=-1)
    return F.silu(gate) * up


def composed(x: Tensor, ids: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor, **options: Any) -> Any:
    first, second = ExpertLinear(gate_up), ExpertLinear(down)
    return composed_experts(x, ids, weights, first, second, swiglu, **options)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_composed_of_the_same_parts_it_is_the_fused_layer(backend) -> None:
    x, ids, gate_up, _ = make(9, 3, 4, 20, 24)
    down, weights = torch.randn(4, 20, 12), torch.rand(9, 3)
    weights[(ids < 0) | (ids >= 4)] = torch.nan  # a dropped slot's weight may be anything
    fused = moe_experts(x[:, 0], ids, weights, gate_up, down, stats=True, backend=backend)
    out = composed(x[:, 0], ids, weights, gate_up, down, stats=True, backend=backend)
    for name, mine, theirs in zip(out._fields, out, fused, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape, name
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert int(out.counts.sum() + out.dropped) == ids.numel()
    plain = composed(x[:, 0], ids, weights, gate_up, down, backend=backend)
    assert torch.equal(plain.y, out.y) and plain.slot_norm.numel() == 0


@pytest.mark.slow
def test_gradients_reach_every_part() -> None:
    x, ids, weight, bias = (t.double() if t.is_floating_point() else t for t in make(4, 2, 3, 5, 6))
    for transposed in (False, True):
        held = weight.transpose(1, 2).contiguous() if transposed else weight
        for rows in (x, x[:, 0]):
            leaves = [t.clone().requires_grad_() for t in (rows, held, bias)]
            assert torch.autograd.gradcheck(
                lambda a, w, b, t=transposed: expert_linear(a, ids, w, b, t, backend="reference"), leaves
            )
    with pytest.raises(routing_kernels.ArgumentError, match="no second derivative"):
        (grad,) = torch.autograd.grad(
            expert_linear(*(x.requires_grad_(), ids, weight, bias)).sum(), x, create_graph=True
        )
        grad.sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_opcheck_and_compiler(backend) -> None:
    x, ids, weight, bias = make(5, 2, 3, 6, 8)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    op = torch.ops.routing_kernels.expert_linear.default
    torch.library.opcheck(op, (leaves[0], ids, leaves[1], leaves[2], False, backend))
    gradient = (torch.ones(5, 2, 8), x.detach(), ids, weight.detach(), False, [True, False, True])
    torch.library.opcheck(torch.ops.routing_kernels.expert_linear_backward.default, gradient)
    down, weights = torch.randn(3, 6, 4), torch.rand(5, 2)
    with torch.no_grad():
        compiled = torch.compile(
            lambda *a: composed(*a, stats=True, backend=backend), fullgraph=True, backend="aot_eager"
        )
        found = compiled(x[:, 0], ids, weights, weight, down)
        want = composed(x[:, 0], ids, weights, weight, down, stats=True, backend=backend)
    torch.testing.assert_close(found.y, want.y)
    assert torch.equal(found.counts, want.counts)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_bad_arguments_are_refused(backend) -> None:
    x, ids, weight, bias = make(5, 2, 3, 6, 8)
    for arguments, problem in (
        ((x[0], ids, weight), "shapes do not fit"),
        ((x, ids, weight.transpose(1, 2).contiguous()), "shapes do not fit"),
        ((x, ids, weight, bias[:, 1:]), "shapes do not fit"),
        ((x, ids.int(), weight), "ids are torch.int32"),
        ((x, ids, weight.half()), "one dtype"),
        ((x, ids, weight.transpose(1, 2).contiguous().transpose(1, 2)), "not contiguous"),
        ((x, ids, weight.to("meta")), "different devices"),
    ):
        with pytest.raises(routing_kernels.ArgumentError, match=problem):
            expert_linear(*arguments, backend=backend)
    with pytest.raises(routing_kernels.ArgumentError, match="two layers of the same experts"):
        composed(x[:, 0], ids, torch.rand(5, 2), weight, torch.randn(2, 6, 4), backend=backend)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_masked_layers_of_experts_are_layers_with_zeros_and_read_what_is_kept_alone(share: float) -> None:
    random = torch.Generator().manual_seed(1)
    x, weights = torch.randn(9, 6, generator=random), torch.rand(9, 2, generator=random)
    ids = torch.randint(-1, 4, (9, 2), generator=random)
    gate_up, down = torch.randn(3, 10, 6, generator=random), torch.randn(3, 6, 5, generator=random)
    kept = [torch.rand(w.shape, generator=random) < share for w in (gate_up, down)]
    layers = []
    for weight, mask in zip((gate_up, down), kept, strict=True):
        hidden = weight.masked_fill(~mask, torch.nan)  # what is not kept may be anything
        layers.append(MaskedExpertLinear(tuple(pack_masked(w, m) for w, m in zip(hidden, mask, strict=True))))
    zeros = [ExpertLinear(w * m) for w, m in zip((gate_up, down), kept, strict=True)]
    for backend in ("cpu", "reference"):
        found = composed_experts(x, ids, weights, *layers, swiglu, stats=True, backend=backend)
        want = composed_experts(x, ids, weights, *zeros, swiglu, stats=True, backend=backend)
        for name, one, other in zip(found._fields, found, want, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, msg=f"{backend}, {name}")
