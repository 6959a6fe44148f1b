"""Sparsity against numpy, and the same numbers from sums as from the vector."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workbench.signals import sparsity

_VECTORS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 30)),
    elements=st.one_of(
        st.just(0.0), st.floats(2**-20, 1000, width=32), st.floats(-1000, -(2**-20), width=32)
    ),
)


@settings(max_examples=150, deadline=None)
@given(a=_VECTORS, threshold=st.sampled_from([0.0, 0.01, 1.0]))
def test_every_number_agrees_with_numpy(a: np.ndarray, threshold: float) -> None:
    found = sparsity.activation(torch.from_numpy(a), threshold)
    width = a.shape[-1]
    for at, row in enumerate(a.astype(np.float64)):
        assert float(found.zero_share[at]) == pytest.approx((row == 0).mean())
        assert float(found.below_share[at]) == pytest.approx((np.abs(row) < np.float32(threshold)).mean())
        l1, l2 = np.abs(row).sum(), np.linalg.norm(row)
        if l2 == 0 or width == 1:
            assert math.isnan(found.hoyer[at])
        else:
            expected = (math.sqrt(width) - l1 / l2) / (math.sqrt(width) - 1)
            assert float(found.hoyer[at]) == pytest.approx(expected, abs=1e-5)
            assert 0 <= found.hoyer[at] <= 1


def test_the_ends_of_hoyers_measure() -> None:
    one_hot, equal = torch.zeros(1, 64), torch.full((1, 64), -0.3)
    one_hot[0, 5] = 7.0
    assert sparsity.activation(one_hot, 0.01).hoyer.item() == pytest.approx(1.0)
    assert sparsity.activation(equal, 0.01).hoyer.item() == pytest.approx(0.0, abs=1e-6)


def test_sums_give_what_the_vector_gives() -> None:
    a = torch.randn(4, 2, 50).relu()
    direct = sparsity.activation(a, 0.1)
    sums = sparsity.from_sums(
        50, (a == 0).sum(-1).int(), (a.abs() < 0.1).sum(-1).int(), a.abs().sum(-1), a.square().sum(-1).sqrt()
    )
    for x, y in zip(direct, sums, strict=True):
        assert x.shape == (4, 2) and x.dtype == torch.float32
        torch.testing.assert_close(x, y)


def test_the_activations_of_a_half_precision_model() -> None:
    a = torch.randn(3, 40).relu().bfloat16()
    for x, y in zip(sparsity.activation(a, 0.5), sparsity.activation(a.float(), 0.5), strict=True):
        assert torch.equal(x, y)


def test_a_vector_without_neurons_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one neuron"):
        sparsity.from_sums(0, *(torch.zeros(1) for _ in range(4)))
