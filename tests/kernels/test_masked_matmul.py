"""Products with masked weights: packing and unpacking, every instruction set, and what is left unread."""

from __future__ import annotations

import math

import pytest
import routing_kernels
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_isas import DTYPES, ISAS, NORM_TOLERANCE, using
from routing_kernels import masked_matmul, n_of_m, pack_masked
from torch import Tensor


def make(
    tokens: int, rows: int, columns: int, dtype: torch.dtype, share: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, K], weight [N, K], mask [N, K]."""
    random = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(tokens, columns, generator=random), torch.randn(rows, columns, generator=random)
    return x.to(dtype), weight.to(dtype), torch.rand(rows, columns, generator=random) < share


shapes = st.tuples(st.integers(0, 70), st.integers(0, 40), st.integers(0, 70))


@settings(max_examples=100, deadline=None)
@given(
    shapes,
    st.sampled_from([*ISAS, "reference"]),
    st.sampled_from(DTYPES),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.integers(0, 2**31),
)
def test_it_is_the_product_with_zeros(shape, isa, dtype, share, seed):
    x, weight, mask = make(*shape, dtype, share, seed)
    packed = pack_masked(weight, mask)
    assert torch.equal(packed.dense(), torch.where(mask, weight, 0))
    assert torch.equal(packed.row_nnz, mask.sum(1))
    with using(ISAS[0] if isa == "reference" else isa):
        y = masked_matmul(x, packed, backend="reference" if isa == "reference" else "cpu")
    zeroed = torch.where(mask, weight.double(), 0)
    size = x.double().norm(dim=1, keepdim=True) * zeroed.norm(dim=1) + 1e-30
    assert y.dtype == dtype and y.shape == shape[:2]
    assert ((y.double() - x.double() @ zeroed.T).abs() <= NORM_TOLERANCE[dtype] * size).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_of_four_and_a_row_that_does_not_see_the_others(isa, dtype):
    x, weight, _ = make(9, 21, 64, dtype, 1.0, 0)
    mask = n_of_m(weight)
    assert (mask.unflatten(1, (16, 4)).sum(2) == 2).all()
    kept, left = weight.abs().where(mask, torch.inf), weight.abs().where(~mask, 0)
    assert (kept.unflatten(1, (16, 4)).amin(2) >= left.unflatten(1, (16, 4)).amax(2)).all()
    with using(isa):
        y = masked_matmul(x, pack_masked(weight, mask), backend="cpu")
        for t in range(9):
            assert torch.equal(
                y[t : t + 1], masked_matmul(x[t : t + 1], pack_masked(weight, mask), backend="cpu")
            )
        # A kept zero changes nothing, so masking has the bits of the dense product by the same kernel.
        dense = pack_masked(torch.where(mask, weight, 0), torch.ones_like(mask))
        assert torch.equal(y, masked_matmul(x, dense, backend="cpu"))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("isa", ISAS)
def test_what_is_not_kept_is_not_seen(isa, backend):
    x, weight, mask = make(5, 6, 37, torch.float32, 0.5, 0)
    mask[:, 11] = False
    mask[2, 12] = True
    weight[~mask] = math.nan
    x[:, 11], x[3, 12] = math.inf, math.nan
    with using(isa):
        y = masked_matmul(x, pack_masked(weight, mask), backend=backend)
    assert y[[0, 1, 2, 4]].isfinite().all()
    assert torch.equal(y[3].isnan(), mask[:, 12])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_token_that_is_not_finite_changes_nobody_elses_bits(isa, dtype, odd):
    x, weight, mask = make(7, 13, 61, dtype, 0.5, 1)
    packed, strange = pack_masked(weight, mask), x.clone()
    strange[3, 17] = odd
    with using(isa):
        plain, beside = masked_matmul(x, packed, backend="cpu"), masked_matmul(strange, packed, backend="cpu")
    others = [t for t in range(7) if t != 3]
    assert torch.equal(plain[others], beside[others])
    assert torch.equal(beside[3].isfinite(), ~mask[:, 17])
    assert torch.equal(plain[3, ~mask[:, 17]], beside[3, ~mask[:, 17]])


def test_two_threads_give_the_bits_of_one():
    x, weight, mask = make(70, 600, 500, torch.float32, 0.5, 0)
    packed = pack_masked(weight, mask)
    alone = masked_matmul(x.T.contiguous().T, packed)
    torch.set_num_threads(2)
    try:
        assert torch.equal(masked_matmul(x, packed), alone)
    finally:
        torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_opcheck(backend):
    x, weight, mask = make(3, 5, 20, torch.float32, 0.5, 0)
    packed = pack_masked(weight, mask)
    arguments = (x.requires_grad_(), packed.values.requires_grad_(), packed.bits, packed.start, backend)
    torch.library.opcheck(torch.ops.routing_kernels.masked_matmul.default, arguments)


@pytest.mark.slow
def test_gradients_and_compiler():
    x, weight, mask = make(3, 5, 20, torch.float64, 0.5, 0)
    x, weight = x.requires_grad_(), weight.requires_grad_()

    def product(x: Tensor, weight: Tensor) -> Tensor:
        return masked_matmul(x, pack_masked(weight, mask))

    assert torch.autograd.gradcheck(product, (x, weight))
    assert torch.autograd.gradgradcheck(product, (x, weight))
    packed = pack_masked(weight.detach().float(), mask)
    compiled = torch.compile(lambda x: masked_matmul(x, packed), fullgraph=True, backend="aot_eager")
    single = x.detach().float()
    assert torch.equal(compiled(single), masked_matmul(single, packed))


@pytest.mark.parametrize("isa", ISAS)
def test_bits_and_rows_altered_by_hand_are_found(isa):
    x, weight, mask = make(3, 70, 200, torch.float32, 0.5, 0)
    packed = pack_masked(weight, mask)
    for row, byte in ((0, 0), (37, 11), (69, packed.bits.shape[1] - 1)):
        bits = packed.bits.clone()
        bits[row, byte] ^= 16
        for backend in ("cpu", "reference"):
            with using(isa), pytest.raises(routing_kernels.ArgumentError, match="Make them with pack_masked"):
                masked_matmul(x, packed._replace(bits=bits), backend)
    for row, far in ((1, 1 << 40), (5, -3)):
        start = packed.start.clone()
        start[row] += far
        with using(isa), pytest.raises(routing_kernels.ArgumentError, match="Make them with pack_masked"):
            masked_matmul(x, packed._replace(start=start), "cpu")


def test_what_was_right_and_is_altered_in_place_is_found():
    x, weight, mask = make(2, 40, 100, torch.float32, 0.5, 0)
    packed = pack_masked(weight, mask)
    first = masked_matmul(x, packed, "cpu")
    assert torch.equal(masked_matmul(x, packed, "cpu"), first)  # unchecked, the second time
    packed.bits[7, 3] ^= 4
    with pytest.raises(routing_kernels.ArgumentError, match="Make them with pack_masked"):
        masked_matmul(x, packed, "cpu")
    packed.bits[7, 3] ^= 4
    assert torch.equal(masked_matmul(x, packed, "cpu"), first)
    packed.start[5] -= 1
    with pytest.raises(routing_kernels.ArgumentError, match="Make them with pack_masked"):
        masked_matmul(x, packed, "cpu")


X, WEIGHT, MASK = make(3, 5, 20, torch.float32, 0.5, 0)
PACKED = pack_masked(WEIGHT, MASK)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_bad_arguments_are_refused(backend):
    refused = [
        (lambda: masked_matmul(X[:, :9], PACKED, backend), "has 20 columns. Give x as"),
        (lambda: masked_matmul(X.double(), PACKED), "Give both one dtype"),
        (
            lambda: masked_matmul(X, PACKED._replace(bits=PACKED.bits.to("meta")), backend),
            "different devices",
        ),
        (
            lambda: masked_matmul(X, PACKED._replace(start=PACKED.start + 1), "cpu"),
            "Make them with pack_masked",
        ),
        (
            lambda: masked_matmul(X, PACKED._replace(start=PACKED.start * 2), backend),
            "Make them with pack_masked",
        ),
        (lambda: pack_masked(WEIGHT, MASK[:2]), "booleans of the same shape"),
        (lambda: pack_masked(WEIGHT.int(), MASK), "floating-point weight"),
        (lambda: n_of_m(WEIGHT[:, :9]), "has no 2 of every 4"),
        (lambda: n_of_m(WEIGHT, 5, 4), "has no 5 of every 4"),
    ]
    for call, problem in refused:
        with pytest.raises(routing_kernels.ArgumentError, match=problem):
            call()
