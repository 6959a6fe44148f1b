"""Flips between precisions and implementations are explained by measured noise; a planted swap never is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_tiny

import workbench as wb
from workbench.errors import StoreError

SCORES = wb.Record(scores=True, contribution=False, sparsity=False, attention_rank=False)


def _texts(count: int, length: int = 48, seed: int = 0) -> list[list[int]]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 64, (length,), generator=random).tolist() for _ in range(count)]


def _near_ties(seed: int = 0) -> Any:
    """A model whose routers hardly tell experts apart, so that rounding flips many choices."""
    model = build_tiny("olmoe", seed)
    for block in model.model.layers:
        block.mlp.gate.weight.data.mul_(0.05)
    return model


def _two_precisions(tmp_path: Any, swap: Any = None) -> Any:
    """Runs of four texts in fp32 and in bf16 in one store, ``swap`` planted in the bf16 model for the last text."""
    store = tmp_path / "runs.duckdb"
    texts = _texts(4)
    with wb.open(_near_ties(), store=store, kernels="model") as wide:
        base = [run.id for run in wide.run(texts, record=SCORES)]
    half = wb.open(_near_ties().to(torch.bfloat16), store=store, kernels="model")
    runs = [run.id for run in half.run(texts[:-1], record=SCORES)]
    undo = swap(half) if swap is not None else None
    runs.append(half.run(texts[-1], record=SCORES).id)
    if undo is not None:
        undo.remove()
    return half, base, runs


def _swap_at(layer: int, token: int, rank: int) -> Any:
    """Plants a swap between router and experts, where no edit is recorded: the last choice becomes that of ``rank``."""

    def plant(bench: Any) -> Any:
        moe = bench.anatomy.layer(layer).moe
        ranked: list[torch.Tensor] = []
        moe.router.register_forward_hook(
            lambda _, __, out: ranked.append(out[0].argsort(-1, descending=True))
        )

        def change(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            ids = args[1].clone()
            ids[token, -1] = ranked[-1][token, rank]
            return (args[0], ids, args[2])

        return moe.experts.register_forward_pre_hook(change)

    return plant


@pytest.mark.slow
def test_flips_between_precisions_are_all_explained(tmp_path: Any) -> None:
    half, base, runs = _two_precisions(tmp_path)
    with half:
        flips = 0
        for one, other in zip(base[1:], runs[1:], strict=True):
            plain = half.diff(one, other)
            assert set(plain.flips["cause"]) <= {"upstream", "tie"}
            found = half.diff(one, other, noise=(base[0], runs[0])).flips
            assert len(found) == len(plain.flips)
            assert set(found["cause"]) <= {"precision", "tie"}
            flips += len(found)
        assert flips >= 5


@pytest.mark.slow
@pytest.mark.parametrize("rank", [2, 5])
def test_a_planted_swap_is_never_explained_away(tmp_path: Any, rank: int) -> None:
    """Not even the swap with the next best, whose margin is as small as any."""
    half, base, runs = _two_precisions(tmp_path, swap=_swap_at(1, 20, rank))
    with half:
        found = half.diff(base[3], runs[3], noise=(base[0], runs[0])).flips
        planted = found[(found["layer"] == 1) & (found["position"] == 20)]
        assert list(planted["cause"]) == ["real"]
        after = found[(found["layer"] > 1) & (found["position"] >= 20)]
        assert set(after["cause"]) <= {"real"}
        before = found[(found["layer"] < 1) | (found["position"] < 20)]
        assert "real" not in set(before["cause"])


@pytest.mark.slow
def test_implementations_and_edits_are_told_apart(bench: Any) -> None:
    one = bench(_near_ties().to(torch.bfloat16), kernels="model")
    texts = _texts(3, seed=1)
    grouped = one.run(texts, record=SCORES)
    one.model.set_experts_implementation("eager")
    eager = one.run(texts, record=SCORES)
    flips = one.diff(grouped[2], eager[2], noise=(grouped[0], eager[0])).flips
    assert set(flips["cause"]) <= {"precision", "tie"}
    edited = one.run(texts[2], wb.reroute.ban(layers=0, experts=[0, 1, 2]), record=SCORES)
    causes = one.diff(eager[2], edited, noise=(grouped[0], eager[0])).flips
    assert set(causes[causes["layer"] == 0]["cause"]) == {"edit"}
    assert set(causes[causes["layer"] > 0]["cause"]) <= {"real", "tie"}


def test_noise_that_cannot_be_measured_is_refused(bench: Any) -> None:
    one = bench("olmoe")
    texts = _texts(2)
    scored, other = one.run(texts, record=SCORES)
    bare = one.run(texts[0])
    with pytest.raises(StoreError, match="did not read the same tokens"):
        one.diff(scored, bare, noise=(scored, other))
    with pytest.raises(StoreError, match="no recorded scores"):
        one.diff(scored, bare, noise=(scored, bare))
