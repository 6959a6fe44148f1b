"""Contributions against float64 numpy, with zero vectors and nearly unchanged streams."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.signals import contribution


def _cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-8, 1.0, 1e8]), width=st.integers(1, 40))
def test_every_number_agrees_with_numpy(seed: int, scale: float, width: int) -> None:
    random = np.random.default_rng(seed)
    pre, attn, mlp = (
        random.normal(size=(2, 3, width)).astype(np.float32) * np.float32(scale) for _ in range(3)
    )
    mid = pre + attn
    post = mid + mlp
    found = contribution.block(*(torch.from_numpy(x) for x in (pre, attn, mid, mlp, post)))
    pre, attn, mid, mlp, post = (x.astype(np.float64) for x in (pre, attn, mid, mlp, post))
    for at in np.ndindex(2, 3):
        norm = np.linalg.norm
        expected = (
            norm(attn[at]) / norm(pre[at]),
            _cos(attn[at], pre[at]),
            norm(mlp[at]) / norm(mid[at]),
            _cos(mlp[at], mid[at]),
            norm(post[at] - pre[at]) / norm(pre[at]),
            1 - _cos(pre[at], post[at]),
        )
        values = [float(x[at]) for x in found if x is not None]
        assert values == pytest.approx(expected, rel=2e-4, abs=2e-5)


def test_influence_of_a_block_that_changes_almost_nothing_is_not_rounding() -> None:
    random = np.random.default_rng(0)
    pre = random.normal(size=(20, 64))
    post = pre + 1e-4 * random.normal(size=pre.shape)
    found = contribution.whole_block(torch.from_numpy(pre).float(), torch.from_numpy(post).float())
    a, b = pre.astype(np.float32).astype(np.float64), post.astype(np.float32).astype(np.float64)
    a, b = a / np.linalg.norm(a, axis=-1, keepdims=True), b / np.linalg.norm(b, axis=-1, keepdims=True)
    expected = ((a - b) ** 2).sum(-1) / 2
    assert expected.max() < 2e-8  # less than one rounding of a cosine in fp32
    np.testing.assert_allclose(found.influence.numpy(), expected, rtol=0.02)


def test_whole_and_parts_give_the_same_block() -> None:
    pre, attn, mlp = (torch.randn(5, 16) for _ in range(3))
    parts = contribution.block(pre, attn, pre + attn, mlp, pre + attn + mlp)
    whole = contribution.whole_block(pre, pre + attn + mlp)
    assert torch.equal(parts.block_norm, whole.block_norm) and torch.equal(parts.influence, whole.influence)
    assert whole.attn_norm is None and whole.mlp_cos is None


def test_zero_vectors_give_nan_where_and_only_where_undefined() -> None:
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    found = contribution.block(zero, one, one, zero, one)
    assert all(math.isnan(x) for x in (found.attn_norm, found.attn_cos, found.mlp_cos, found.influence))  # type: ignore[arg-type]
    assert math.isnan(found.block_norm) and float(found.mlp_norm) == 0.0  # type: ignore[arg-type]
    same = contribution.block(one, zero, one, zero, one)
    assert float(same.attn_norm) == float(same.block_norm) == float(same.influence) == 0.0  # type: ignore[arg-type]


def test_directions_at_their_ends() -> None:
    a = torch.randn(7, 33)
    turned = contribution.block(a, -a, a, a, -a)
    torch.testing.assert_close(turned.attn_cos, -torch.ones(7))
    torch.testing.assert_close(turned.mlp_cos, torch.ones(7))
    torch.testing.assert_close(turned.influence, torch.full((7,), 2.0))
    assert turned.mlp_cos is not None and turned.mlp_cos.max() <= 1


def test_half_precision_is_computed_in_fp32() -> None:
    a, b = torch.randn(3, 64).bfloat16(), torch.randn(3, 64).bfloat16()
    half = contribution.block(a, b, a, b, b)
    full = contribution.block(*(x.float() for x in (a, b, a, b, b)))
    for x, y in zip(half, full, strict=True):
        assert x is not None and y is not None and x.dtype == torch.float32 and torch.equal(x, y)
