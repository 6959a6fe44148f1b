"""Gather and scatter of rows: against plain indexing, on every instruction set, with ids that name nobody."""

from __future__ import annotations

import math

import pytest
import routing_kernels
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_isas import DTYPES, ISAS, using
from routing_kernels import gather_rows, scatter_add_rows
from torch import Tensor

shapes = st.tuples(st.integers(0, 12), st.integers(0, 15), st.integers(1, 600))
ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def make(shape: tuple[int, int, int], dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """base [T, D], rows [C, D], ids [C] (some name nobody, some repeat), weights [C]."""
    height, count, width = shape
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(-1, height + 1, (count,), generator=random)
    base, rows = (torch.randn(n, width, generator=random).to(dtype) for n in (height, count))
    return base, rows, ids, torch.randn(count, generator=random)


@settings(max_examples=60, deadline=None)
@given(shapes, st.sampled_from([*ISAS, "reference"]), st.sampled_from(DTYPES), st.integers(0, 2**31))
def test_gather_is_indexing(shape, isa, dtype, seed):
    base, _, ids, _ = make(shape, dtype, seed)
    with using(ISAS[0] if isa == "reference" else isa):
        out = gather_rows(base, ids, stats=True, backend="reference" if isa == "reference" else "cpu")
    padded = torch.cat([base, base.new_zeros(1, shape[2])])
    expected = padded[torch.where((ids >= 0) & (ids < shape[0]), ids, shape[0])]
    assert torch.equal(out.y, expected) and out.y.dtype == dtype
    assert out.dropped == ((ids < 0) | (ids >= shape[0])).sum()
    torch.testing.assert_close(out.row_norm, expected.double().norm(dim=1).float(), rtol=1e-6, atol=0)


@settings(max_examples=80, deadline=None)
@given(
    shapes,
    st.sampled_from([*ISAS, "reference"]),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_scatter_is_index_add(shape, isa, dtype, weighted, seed):
    base, rows, ids, weights = make(shape, dtype, seed)
    before = base.clone()
    scale = weights if weighted else torch.ones_like(weights)
    with using(ISAS[0] if isa == "reference" else isa):
        backend = "reference" if isa == "reference" else "cpu"
        out = scatter_add_rows(base, rows, ids, weights if weighted else None, stats=True, backend=backend)
        plain = scatter_add_rows(base, rows, ids, weights if weighted else None, backend=backend)
    assert torch.equal(out.y, plain.y) and plain.row_norm.numel() == 0 and torch.equal(base, before)
    named = (ids >= 0) & (ids < shape[0])
    added = rows[named].double() * scale[named, None].double()
    exact = base.double().index_add(0, ids[named], added)
    size = base.double().abs().index_add(0, ids[named], added.abs())
    assert ((out.y.double() - exact).abs() <= ROUNDING[dtype] * size).all() and out.y.dtype == dtype
    assert out.dropped == (~named).sum()
    norms = torch.zeros(shape[1], dtype=torch.float64)
    norms[named] = added.norm(dim=1)
    torch.testing.assert_close(out.row_norm.double(), norms, rtol=1e-5, atol=0)


@pytest.mark.parametrize("isa", ISAS)
def test_repetitions_add_in_order(isa):
    """1e8 swallows 1 in float32: only the order given leaves these sums."""
    base, ids = torch.zeros(2, 1), torch.tensor([0, 0, 0, 1, 1, 1])
    rows = torch.tensor([[1e8], [1.0], [-1e8], [1e8], [-1e8], [1.0]])
    with using(isa):
        assert scatter_add_rows(base, rows, ids, backend="cpu").y.tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_what_names_nobody_adds_nothing_and_nan_stays(backend):
    base, rows = torch.ones(3, 5), torch.ones(4, 5)
    rows[1], rows[3] = math.nan, math.nan
    out = scatter_add_rows(
        base,
        rows,
        torch.tensor([0, -1, 2**60, 2]),
        torch.tensor([2.0, math.nan, math.inf, 1.0]),
        True,
        backend,
    )
    assert out.y[:2].tolist() == [[3.0] * 5, [1.0] * 5] and out.y[2].isnan().all()
    assert out.dropped == 2 and out.row_norm[1:3].tolist() == [0, 0] and out.row_norm[3].isnan()


def test_two_threads_give_the_bits_of_one():
    base, rows, ids, weights = make((300, 2000, 512), torch.float32, 0)
    assert torch.get_num_threads() == 1
    alone = scatter_add_rows(base, rows, ids, weights, True), gather_rows(rows, ids, True)
    torch.set_num_threads(2)
    try:
        together = scatter_add_rows(base, rows, ids, weights, True), gather_rows(rows, ids, True)
    finally:
        torch.set_num_threads(1)
    for one, two in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("stats", [False, True])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_opcheck(backend, stats):
    base, rows, ids, weights = make((4, 7, 5), torch.float32, 1)
    base, rows, weights = (t.requires_grad_() for t in (base, rows, weights))
    torch.library.opcheck(torch.ops.routing_kernels.gather_rows.default, (base, ids, stats, backend))
    for w in (weights, None):
        arguments = (base, rows, ids, w, stats, backend)
        torch.library.opcheck(torch.ops.routing_kernels.scatter_add_rows.default, arguments)


@pytest.mark.slow
def test_gradients_against_finite_differences():
    base, rows, ids, weights = (
        t.double() if t.is_floating_point() else t for t in make((4, 7, 5), torch.float32, 1)
    )
    base, rows, weights = (t.requires_grad_() for t in (base, rows, weights))

    def gathered(x: Tensor) -> Tensor:
        return gather_rows(x, ids, stats=True).y

    def scattered(base: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        return scatter_add_rows(base, rows, ids, weights, stats=True).y

    assert torch.autograd.gradcheck(gathered, base) and torch.autograd.gradgradcheck(gathered, base)
    assert torch.autograd.gradcheck(scattered, (base, rows, weights))
    assert torch.autograd.gradgradcheck(scattered, (base, rows, weights))


@pytest.mark.slow
def test_compiles_without_a_graph_break():
    base, rows, ids, weights = make((4, 7, 5), torch.float32, 1)
    base.requires_grad_()

    def there_and_back(base: Tensor, rows: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        return scatter_add_rows(base, gather_rows(base, ids).y * rows, ids, weights).y

    compiled = torch.compile(there_and_back, fullgraph=True, backend="aot_eager")
    found, expected = (f(base, rows, ids, weights) for f in (compiled, there_and_back))
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), base)[0] for y in (found, expected)))


BASE, ROWS, IDS, WEIGHTS = make((4, 7, 5), torch.float32, 1)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((BASE[0], ROWS, IDS), "shapes do not fit"),
        ((BASE, ROWS[:3], IDS), "shapes do not fit"),
        ((BASE, ROWS, IDS, WEIGHTS[:2]), "shapes do not fit"),
        ((BASE, ROWS.double(), IDS), "Give one dtype"),
        ((BASE.int(), ROWS.int(), IDS), "Give one dtype"),
        ((BASE, ROWS, IDS.int()), "ids are torch.int32. Give ids as int64"),
        ((BASE, ROWS, IDS, IDS), "weights are torch.int64"),
        ((BASE, ROWS, IDS.to("meta")), "different devices"),
    ],
)
def test_bad_arguments_are_refused(arguments, problem):
    with pytest.raises(routing_kernels.ArgumentError, match=problem):
        scatter_add_rows(*arguments)
