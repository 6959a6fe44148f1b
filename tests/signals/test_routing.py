"""Margins, ties and entropy against float64 references, with the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workbench.signals import routing

_SCORES = hnp.arrays(
    np.float32, (4, 6), elements=st.one_of(st.floats(-50, 50, width=32), st.sampled_from([0.0, 1.0, -np.inf]))
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(selection=_SCORES, k=st.integers(1, 6))
def test_margins_agree_with_sorting(selection: np.ndarray, k: int) -> None:
    margin, tie = routing.margins(torch.from_numpy(selection), k)
    for token, row in enumerate(selection.astype(np.float64)):
        best = sorted(row, reverse=True)
        if k == 6 or best[k] == -np.inf:
            assert math.isnan(margin[token]) and not tie[token]
        else:
            assert float(margin[token]) == pytest.approx(best[k - 1] - best[k], rel=1e-6, abs=1e-5)
            assert bool(tie[token]) == (best[k - 1] == best[k])
            assert margin[token] >= 0


def test_a_forced_expert_leaves_an_infinite_margin() -> None:
    margin, tie = routing.margins(torch.tensor([[torch.inf, 1.0, 0.0], [torch.inf, torch.inf, 0.0]]), 1)
    assert margin.tolist() == [torch.inf, 0.0] and tie.tolist() == [False, True]


@pytest.mark.parametrize("k", [0, -1, 7])
def test_a_k_that_cannot_be_is_an_error(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}"):
        routing.margins(torch.zeros(2, 6), k)


def test_margins_keep_shape_device_and_float64() -> None:
    margin, tie = routing.margins(torch.rand(2, 3, 6, dtype=torch.float64), 2)
    assert margin.shape == tie.shape == (2, 3) and margin.dtype == torch.float64
    assert routing.margins(torch.rand(2, 6).bfloat16(), 2).margin.dtype == torch.float32
    assert routing.margins(torch.rand(0, 6), 2).margin.shape == (0,)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(logits=_SCORES, score=st.sampled_from(["softmax", "sigmoid", "topk_softmax"]))
def test_entropy_agrees_with_the_definition(logits: np.ndarray, score: str) -> None:
    found = routing.entropy(torch.from_numpy(logits), score)  # type: ignore[arg-type]
    for token, row in enumerate(logits.astype(np.float64)):
        if (row == -np.inf).all():
            assert math.isnan(found[token])
            continue
        weight = 1 / (1 + np.exp(-row)) if score == "sigmoid" else np.exp(row - row.max())
        p = weight / weight.sum()
        expected = -sum(x * math.log(x) for x in p if x > 0)
        assert float(found[token]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert -1e-6 <= found[token] <= math.log(6) + 1e-5


def test_entropy_of_sigmoids_that_underflow_together_is_still_right() -> None:
    found = routing.entropy(torch.full((1, 4), -200.0), "sigmoid")
    assert float(found) == pytest.approx(math.log(4), rel=1e-6)
