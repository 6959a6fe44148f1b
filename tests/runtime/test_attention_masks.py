"""Attention masks in blocks: what is kept, what it costs, how much attention it holds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_models import build_tiny
from torch import Tensor

import workbench as wb
from workbench.conformance.families import build
from workbench.errors import EditRefused
from workbench.runtime.attach import AttentionCall
from workbench.runtime.attention_patterns import kept_blocks

IDS = [(7 * n * n + 3 * n) % 64 for n in range(60)]
BLOCK = 16


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)


def logits_where(family: str, allowed: Tensor, layers: list[int], ids: list[int] = IDS) -> Tensor:
    """Logits of a fresh model whose ``layers`` see only ``allowed`` [N or 1, S, S]."""
    model = build_tiny(family)
    seen = allowed & torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    for layer in layers:
        model.model.layers[layer].self_attn.register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | {"attention_mask": seen[None]}), with_kwargs=True
        )
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def blocks(size: int = len(IDS)) -> tuple[Tensor, Tensor]:
    at = torch.arange(size) // BLOCK
    return at[:, None], at[None, :]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmoe", "llama"])
@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_static_patterns_keep_the_blocks_they_say(bench: Any, family: str, kernels: str) -> None:
    one = bench(build_tiny(family), kernels=kernels)
    query, key = blocks()
    same = query == key
    wanted = {
        wb.mask.attention([1, 2], "window", window=16, block=BLOCK): (key + 1) * BLOCK > query * BLOCK - 16,
        wb.mask.attention([1, 2], "window", window=1, block=BLOCK, sinks=0): key >= query - 1,
        wb.mask.attention([1, 2], "strided", stride=2, block=BLOCK, sinks=0): key % 2 == 0,
        wb.mask.attention([1, 2], "explicit", blocks=[(2, 1), (3, 0)], block=BLOCK, sinks=0): (
            ((query == 2) & (key == 1)) | ((query == 3) & (key == 0))
        ),
    }
    for edit, kept in wanted.items():
        kept = kept | same | (key * BLOCK < edit.sinks)
        run = one.run(IDS, edit)
        close(run.logits, logits_where(family, kept[None], [1, 2]))
        causal = torch.ones(60, 60, dtype=torch.bool).tril()
        density = float((kept & causal).sum() / causal.sum())
        rows = one.sql(
            "SELECT DISTINCT layer, round(density, 4) FROM attention_mask WHERE run = ? ORDER BY 1", [run.id]
        )
        assert rows.fetchall() == [(layer, pytest.approx(density, abs=1e-3)) for layer in (1, 2)]
        work = "SELECT sum(executed), sum(skipped) FROM cost WHERE run = ? AND op = 'attention_blocks'"
        done, left = one.sql(work, [run.id]).fetchone()
        lower = int((kept[::BLOCK, ::BLOCK] & torch.ones(4, 4, dtype=torch.bool).tril()).sum()) * 4 * 2
        # The model's own attention computes everything and masks, and says so.
        assert (done, left) == ((lower, 80 - lower) if kernels == "auto" else (80, 0))


def test_one_head_and_some_tokens(bench: Any) -> None:
    one = bench("llama")
    query, key = blocks()
    kept = (query == key).expand(4, 60, 60).clone()
    kept[[0, 1, 3]] = True
    run = one.run(IDS, wb.mask.attention(1, "explicit", blocks=[], block=BLOCK, sinks=0, heads=[2]))
    close(run.logits, logits_where("llama", kept, [1]))
    tokens = [33, 34, 40, 58]
    some = torch.ones(60, 60, dtype=torch.bool)
    some[tokens] = (query == key)[tokens]
    run = one.run(IDS, wb.mask.attention(1, "explicit", blocks=[], block=BLOCK, sinks=0, tokens=tokens))
    close(run.logits, logits_where("llama", some[None], [1]))
    assert torch.equal(run.logits[:33], one.run(IDS, record=None).logits[:33])


@pytest.mark.slow
def test_recall_is_the_difference_of_the_log_sums_and_the_oracle_is_the_best(bench: Any) -> None:
    one = bench("llama")
    common: dict[str, Any] = {"keep": 0.5, "block": BLOCK, "sinks": 0}
    found: dict[str, tuple[float, float]] = {}
    for pattern, more in (
        ("oracle", {}), ("pooled", {}), ("vertical-slash", {"last": 16}), ("channels", {"channels": 4}),
        ("clusters", {"clusters": 2}), ("hierarchical", {}), ("random", {}),
    ):  # fmt: skip
        run = one.run(IDS, wb.mask.attention(1, pattern, **common, **more))
        rows = one.sql(
            "SELECT density, recall, error FROM attention_mask WHERE run = ? ORDER BY head", [run.id]
        ).fetchall()
        assert len(rows) == 4 and all(0 < recall <= 1 and error >= 0 for _, recall, error in rows)
        found[pattern] = rows[0][0], sum(row[1] for row in rows) / 4
    densities = {round(density, 5) for density, _ in found.values()}
    assert len(densities) == 1, found  # a control stands at the same density as what it controls
    assert all(recall <= found["oracle"][1] + 1e-6 for _, recall in found.values())
    assert found["random"][1] < found["oracle"][1]
    pattern = one.run(IDS, record=None).tensor("attn_pattern", layers=[1])[0]
    edit = wb.mask.attention(1, "strided", stride=2, block=BLOCK, sinks=0)
    query, key = blocks()
    kept = (key % 2 == 0) | (query == key)
    log_sums = [pattern.masked_fill(~k, 0).log().logsumexp(-1) for k in (kept, torch.ones_like(kept))]
    want = (log_sums[0] - log_sums[1]).exp().mean(-1)
    run = one.run(IDS, edit)
    rows = one.sql("SELECT recall FROM attention_mask WHERE run = ? ORDER BY head", [run.id]).fetchall()
    torch.testing.assert_close(torch.tensor(rows).squeeze(), want, rtol=1e-4, atol=1e-5)


def searched(query: Tensor, key: Tensor, count: int, keep: int) -> set[int]:
    """The blocks that halving spans ends at, for the mean query [D] of a block: spans as (first, last + 1) in a list."""
    spans = min(2 * keep, count)
    edges = [round(n * count / spans) for n in range(spans + 1)]
    open_ = [(edges[n], edges[n + 1]) for n in range(spans)]
    while True:
        shown = [float(query @ key[min((a + b) * BLOCK // 2, len(key) - 1)]) for a, b in open_]
        best = sorted(range(len(open_)), key=lambda n: -shown[n])[:keep]
        open_ = [open_[n] for n in best]
        if all(b - a == 1 for a, b in open_):
            return {a for a, _ in open_}
        halves = [((a, (a + b + 1) // 2), ((a + b + 1) // 2, b)) for a, b in open_]
        open_ = [half for pair in halves for half in pair if half[1] > half[0]]


def test_a_hierarchical_search_keeps_the_blocks_that_halving_spans_ends_at() -> None:
    draw = torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 2, 300, 8, generator=draw), torch.randn(1, 1, 300, 8, generator=draw)
    call = AttentionCall(query, key, key, None, 0.3, None, None)
    edit = wb.mask.attention(0, "hierarchical", keep=0.2, block=BLOCK, sinks=0)
    kept = kept_blocks(edit, call, 0)
    for row in range(19):
        count, keep = row + 1, math.ceil(0.2 * (row + 1))
        for head in range(2):
            found = searched(query[0, head, row * BLOCK : (row + 1) * BLOCK].mean(0), key[0, 0], count, keep)
            mine = set(kept[head, row].nonzero().squeeze(-1).tolist())
            assert (
                len(mine) == keep and row in mine
            )  # the block on the diagonal takes the place of the worst found
            assert mine - {row} <= found and len(found - mine) <= 1
    # Where the keys of a neighbourhood agree, the search finds what scoring every block finds.
    slow = torch.sin(torch.arange(320) / 40.0)[None, None, :, None] * torch.ones(8)
    even = AttentionCall(torch.ones(1, 1, 320, 8), slow, slow, None, 1.0, None, None)
    kept = kept_blocks(edit, even, 0)[0, -1]
    means = slow[0, 0].reshape(20, BLOCK, 8).mean((1, 2))
    best = set(means[:-1].topk(3).indices.tolist()) | {19}
    assert set(kept.nonzero().squeeze(-1).tolist()) == best


@pytest.mark.slow
def test_a_mass_is_reached_with_the_fewest_blocks(bench: Any) -> None:
    one = bench("llama")
    recalls = []
    for mass in (0.5, 0.8, 0.99):
        run = one.run(IDS, wb.mask.attention(1, "oracle", mass=mass, block=BLOCK, sinks=0))
        rows = one.sql("SELECT density, recall FROM attention_mask WHERE run = ?", [run.id]).fetchall()
        recalls.append(sum(recall for _, recall in rows) / 4)
        assert recalls[-1] >= mass - 1e-6
    assert recalls == sorted(recalls)


@pytest.mark.slow
def test_identities_and_estimators_in_generation(bench: Any) -> None:
    one = bench("olmoe")
    base = one.run(IDS, record=None).logits
    for edit in (
        wb.mask.attention("all", "random", keep=1.0, block=BLOCK), wb.mask.attention("all", "oracle", mass=1.0, block=BLOCK),
        wb.mask.attention("all", "window", window=64, block=BLOCK),
    ):  # fmt: skip
        assert torch.equal(one.run(IDS, edit, record=None).logits, base)
    with pytest.raises(EditRefused, match="looks at later tokens"):
        one.generate(IDS[:40], 3, wb.mask.attention(1, "pooled", keep=0.5, block=BLOCK))
    held = one.generate(
        IDS[:40], 3, wb.mask.attention(1, "pooled", keep=0.5, block=BLOCK, sinks=0, phase="prefill")
    )
    assert not torch.equal(held.logits[:40], one.run(IDS[:40], record=None).logits)
    decode = wb.mask.attention("all", "window", window=8, block=BLOCK, sinks=0, phase="decode")
    text = one.generate(IDS[:40], 4, decode)
    assert torch.equal(text.logits[:40], one.generate(IDS[:40], 4, record=None).logits[:40])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_the_recorded_error_is_that_of_the_heads_and_sinks_stay(
    bench: Any, family: str, kernels: str
) -> None:
    """gpt-oss has a score without a value in every softmax: it is part of both sums, and of both outputs."""
    one = bench(build(family) if family == "gpt_oss" else build_tiny(family), kernels=kernels)
    query, key = blocks()
    pattern = one.run(IDS, record=None).tensor("attn_pattern", layers=[1])[0]
    kept = (query == key) | (key == 0)
    sink = (1 - pattern.sum(-1)) if family == "gpt_oss" else 0 * pattern.sum(-1)
    assert bool((sink > 0.005).all()) == (family == "gpt_oss")
    base = one.run(IDS)
    for tokens in ("all", slice(16, None)):
        run = one.run(IDS, wb.mask.attention(1, "explicit", blocks=[], block=BLOCK, tokens=tokens))
        stored = "SELECT recall, error FROM attention_mask WHERE run = ? ORDER BY head"
        recall, error = torch.tensor(one.sql(stored, [run.id]).fetchall()).T
        torch.testing.assert_close(recall, ((pattern * kept).sum(-1) + sink).mean(-1), rtol=1e-4, atol=1e-5)
        dense, masked = (
            r.tensor("attn_head_out", layers=[1])[0].transpose(0, 1).flatten(1) for r in (base, run)
        )
        want = (masked - dense).norm(dim=-1) / dense.norm(dim=-1)
        torch.testing.assert_close(error, want, rtol=1e-3, atol=1e-4)
