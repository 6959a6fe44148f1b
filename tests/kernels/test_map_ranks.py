"""Ranks of attention maps: the definition by numpy, every instruction set against the reference, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import routing_kernels
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_isas import ISAS, using
from torch import Tensor


def causal(count: int, size: int, sharpness: float, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, size, size, generator=random) * sharpness
    return logits.masked_fill(torch.ones(size, size, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def by_numpy(square: np.ndarray, rows: np.ndarray, tolerance: float) -> list[float]:
    s = np.linalg.svd(square, compute_uv=False)
    shares = s[s > 0] / s.sum()
    rows = rows / rows.sum(-1, keepdims=True)
    return [
        float((s > tolerance * s[0]).sum()),
        float((s**2).sum() / s[0] ** 2),
        math.exp(-float((shares * np.log(shares)).sum())),
        float(np.mean([-sum(x * math.log(x) for x in row if x > 0) for row in rows])),
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.sampled_from([0.0, 0.5, 3.0, 30.0]), st.sampled_from(ISAS), st.integers(0, 2**31)
)
def test_every_build_is_the_definition(size: int, sharpness: float, isa: str, seed: int) -> None:
    maps = causal(3, size, sharpness, seed)
    with using(isa):
        out = routing_kernels.map_ranks(maps, 0.01, backend="cpu")
    exact = routing_kernels.map_ranks(maps.double(), 0.01)
    for n, one in enumerate(maps.double().numpy()):
        rank, *others = by_numpy(one, one, 0.01)
        s = np.linalg.svd(one, compute_uv=False)
        if np.abs(s / s[0] - 0.01).min() > 1e-6:  # else rounding decides on which side it falls
            assert float(out.rank[n]) == float(exact.rank[n]) == rank
        assert [float(field[n]) for field in out[1:]] == pytest.approx(others, rel=2e-5, abs=2e-6)
        assert [float(field[n]) for field in exact[1:]] == pytest.approx(others, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [64, 100, 256])
def test_large_and_lopsided_maps(isa: str, size: int) -> None:
    plain = causal(1, size, 2.0, size)[0]
    low = plain.clone()
    low[:, 1:] *= 1e-3  # all but a sink is small: singular values over five orders of magnitude
    repeated = plain.clone()
    repeated[size // 2 :] = repeated[size // 2 - 1]  # half of the singular values are zero
    turned = plain.flip(0).flip(1)
    maps = torch.stack([plain, low, repeated, turned, torch.eye(size), torch.full((size, size), 1 / size)])
    with using(isa):
        out = routing_kernels.map_ranks(maps, 0.003, backend="cpu")
    exact = routing_kernels.map_ranks(maps, 0.003, backend="reference")
    assert (out.rank - exact.rank).abs().max() == 0
    for ours, theirs in zip(out, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_rows_of_a_longer_map_at_their_own_columns(isa: str) -> None:
    whole = causal(6, 50, 1.0, 4).reshape(2, 3, 50, 50)
    columns = torch.stack([torch.arange(0, 44, 4), torch.arange(5, 49, 4)])
    rows = torch.stack([m[:, at] for m, at in zip(whole, columns, strict=True)])
    with using(isa):
        out = routing_kernels.map_ranks(rows, 0.05, columns, backend="cpu")
        again = routing_kernels.map_ranks(rows[0], 0.05, columns[0], backend="cpu")
        alone = routing_kernels.map_ranks(rows[1:, 2:], 0.05, columns[1:], backend="cpu")
    assert out.rank.shape == (2, 3)
    for b, at in enumerate(columns.numpy()):
        for n in range(3):
            one = whole[b, n].double().numpy()
            expected = by_numpy(one[np.ix_(at, at)], one[at], 0.05)
            assert [float(field[b, n]) for field in out] == pytest.approx(expected, rel=2e-5)
    for field, first, last in zip(out, again, alone, strict=True):
        assert torch.equal(field[0], first) and torch.equal(field[1, 2], last[0, 0])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_nothing_and_numbers_that_are_not(backend: str) -> None:
    maps = torch.stack([torch.zeros(3, 3), torch.eye(3), torch.eye(3)])
    maps[1, 2, 1] = torch.nan
    out = routing_kernels.map_ranks(maps, backend=backend)
    assert out.rank.tolist() == [0, 0, 3]
    assert [float(field[0]) for field in out] == [0.0] * 4
    assert all(math.isnan(field[1]) for field in out[1:])
    assert [float(field[2]) for field in out] == pytest.approx([3, 3, 3, 0])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_opcheck(backend: str) -> None:
    arguments = (causal(2, 5, 1.0, 0), torch.empty(0, 5, dtype=torch.int64), 0.01, backend)
    torch.library.opcheck(torch.ops.routing_kernels.map_ranks.default, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_compiles_without_a_graph_break(backend: str) -> None:
    maps = causal(2, 9, 1.0, 0)
    compiled = torch.compile(
        lambda m: routing_kernels.map_ranks(m, backend=backend), fullgraph=True, backend="aot_eager"
    )
    for found, want in zip(compiled(maps), routing_kernels.map_ranks(maps, backend=backend), strict=True):
        assert torch.equal(found, want)


MAP = torch.eye(4)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((MAP.half(),), "maps are torch.float16"),
        ((MAP, 1.0), "tolerance is 1.0"),
        ((MAP, -0.1), "tolerance is -0.1"),
        ((MAP[:3],), r"shape \[3, 4\] is not square"),
        ((MAP[:0, :0],), "not square"),
        ((MAP[:3], 0.1, torch.tensor([0, 1])), "do not fit maps"),
        ((MAP[:3], 0.1, torch.tensor([0.0, 1.0, 2.0])), "do not fit maps"),
        ((MAP[None, :3], 0.1, torch.zeros(2, 3, dtype=torch.int64)), "do not fit maps"),
        ((MAP[:3], 0.1, torch.tensor([0, 1, 4])), "from 0 to 4 of 4"),
    ],
)
def test_refusals(arguments: tuple[object, ...], problem: str) -> None:
    with pytest.raises(routing_kernels.ArgumentError, match=problem):
        routing_kernels.map_ranks(*arguments)


def test_there_is_no_kernel_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routing_kernels.ops.ranks.resolve", lambda *_: ("triton", "interpreter"))
    with pytest.raises(routing_kernels.BackendError, match="no triton kernel for map_ranks"):
        routing_kernels.map_ranks(MAP, backend="triton")
