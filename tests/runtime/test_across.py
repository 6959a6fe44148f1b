"""Routing across tokens, layers and rows on a running model: what is executed, cached and uncached, alone and in batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.errors import EditRefused

IDS = [5, 17, 3, 60, 22, 9, 41, 8, 33, 2, 19, 50]
LAYER, E, K = 1, 8, 2


class Words:
    """A tokenizer whose words are numbers; multiples of three end a sentence."""

    def decode(self, ids: list[int]) -> str:
        return "".join(f" {i}." if i % 3 == 0 else f" {i}" for i in ids)

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [int(word.strip(".")) for word in text.split()]}


def choices(bench: Any, run: Any, layer: int = LAYER) -> dict[int, dict[int, float]]:
    found: dict[int, dict[int, float]] = {}
    rows = bench.sql(
        "SELECT position, expert, weight FROM routing WHERE run = ? AND layer = ?", [run.id, layer]
    ).fetchall()
    for position, expert, weight in rows:
        found.setdefault(position, {})[expert] = weight
    return found


def loads(bench: Any, run: Any) -> dict[int, int]:
    rows = bench.sql(
        "SELECT expert, count(*) FROM routing WHERE run = ? AND layer = ? GROUP BY expert", [run.id, LAYER]
    ).fetchall()
    return dict(rows)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_capacity_really_drops(bench: Any, kernels: str) -> None:
    one = bench("olmoe", kernels=kernels)
    base = one.run(IDS)
    whole = wb.reroute.capacity(LAYER, 0.5, causal=False)
    run = one.run(IDS, whole)
    limit = math.ceil(0.5 * K * len(IDS) / E)
    assert max(loads(one, base).values()) > limit >= max(loads(one, run).values())
    dropped = one.sql("SELECT sum(dropped) FROM router WHERE run = ? AND layer = 1", [run.id]).fetchone()[0]
    assert dropped == K * len(IDS) - sum(loads(one, run).values()) > 0
    # A dropped choice counts nothing: the same as its weight set to zero by hand.
    lost = {
        position: [e for e in chosen if e not in choices(one, run).get(position, {})]
        for position, chosen in choices(one, base).items()
    }
    zeros = [
        wb.reroute.weights(LAYER, scale=dict.fromkeys(experts, 0.0), tokens=[position])
        for position, experts in lost.items()
        if experts
    ]
    torch.testing.assert_close(one.run(IDS, wb.Plan(zeros)).logits, run.logits, rtol=1e-5, atol=1e-5)
    then = one.run(IDS, wb.reroute.capacity(LAYER, 1.0, causal=False, overflow="next"))
    assert max(loads(one, then).values()) <= math.ceil(K * len(IDS) / E) and sum(
        loads(one, then).values()
    ) == K * len(IDS)


LOOK_BACK = (
    wb.reroute.capacity(LAYER, 0.8),
    wb.reroute.capacity(LAYER, 0.8, pool="step"),
    wb.reroute.capacity([1, 2], 0.9, overflow="next", where="position > 1"),
    wb.reroute.smooth(LAYER, by="attention"),
    wb.reroute.smooth([0, 1], by="window", window=3, alpha=0.7),
    wb.reroute.smooth(LAYER, by="matrix", matrix=torch.ones(9, 9).tril()),
    wb.reroute.group(LAYER, take="running"),
    wb.reroute.group("all", take="first"),
    wb.reroute.group(LAYER, by="sample"),
    wb.reroute.copy_layer([1, 2], 0, weights="own"),
    wb.reroute.pseudo(LAYER, [0, 1, 2], output="copy"),
)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(edit, id=f"{n}-{edit.kind}", marks=[] if n in (0, 3, 6, 9) else pytest.mark.slow)
        for n, edit in enumerate(LOOK_BACK)
    ],
)
def test_edits_that_look_back_agree_with_and_without_a_cache(bench: Any, tiny: Any, edit: Any) -> None:
    one = bench(tiny("olmoe"), tokenizer=Words())
    run = one.generate(IDS[:6], 5, edit)
    live = one.live(IDS[:6], edit)
    for _ in range(5):
        live.step()
    live.rewind(3)
    branch = live.branch()
    for _ in range(3):
        live.step()
        branch.step()
    assert live.tokens == branch.tokens == run.tokens.tolist()
    torch.testing.assert_close(live.logits, run.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(branch.logits, run.logits, rtol=1e-4, atol=1e-5)
    again = run.tensor("expert_weights", layers=LAYER)
    recorded = choices(one, run)
    for position, weights in enumerate(again.tolist()):
        mine = sorted(w for w in recorded.get(position, {}).values() if w != 0)
        assert sorted(w for w in weights if w != 0) == pytest.approx(mine, rel=1e-3, abs=1e-6)
    # A row of a padded batch is routed as it is alone.
    batch = one.run([IDS, IDS[:7], IDS[2:]], edit, record=None)
    for prompt, row in zip([IDS, IDS[:7], IDS[2:]], batch, strict=True):
        torch.testing.assert_close(
            one.run(prompt, edit, record=None).logits, row.logits, rtol=1e-4, atol=1e-5
        )
    # Later tokens change nothing before them.
    torch.testing.assert_close(
        one.run(IDS, edit, record=None).logits[:7], batch[1].logits, rtol=1e-4, atol=1e-5
    )
    assert wb.Plan.from_json(wb.Plan([edit]).to_json()) == wb.Plan([edit])
    table = (
        one.counterfactual(run, token=4, layers=LAYER) if edit.kind not in ("reroute.copy_layer",) else None
    )
    if table is not None:
        best = table.iloc[0]
        redone = one.run(run.tokens[:-1].tolist(), best["plan"], record=None).logits.log_softmax(-1)
        change = float(redone[4, int(run.tokens[5])] - run.logits[4].log_softmax(-1)[int(run.tokens[5])])
        if "step" not in edit.describe():  # the whole text is one step of the run that is redone
            assert best["next_change"] == pytest.approx(change, abs=1e-3)


def _mixed(bench: Any, weights: torch.Tensor) -> list[set[int]]:
    """The choice when each token's scores are the weighted mean of all tokens' native ones."""
    run = bench.run(IDS)
    logits = run.tensor("router_logits", layers=LAYER)
    scores = weights.double() @ logits.double().softmax(-1)
    return [set(row.topk(K).indices.tolist()) for row in scores]


@pytest.mark.slow
def test_mixed_scores_equal_their_definition(bench: Any, tiny: Any) -> None:
    one = bench(tiny("olmoe"), tokenizer=Words())
    size = len(IDS)
    attention = one.run(IDS).tensor("attn_pattern", layers=LAYER).mean(0)
    window = torch.stack(
        [(torch.arange(size) <= n) & (torch.arange(size) > n - 3) for n in range(size)]
    ).float()
    ends = [i % 3 == 0 for i in IDS]
    group = [sum(ends[:n]) for n in range(size)]
    running = torch.tensor(
        [[float(group[m] == group[n] and m <= n) for m in range(size)] for n in range(size)]
    )
    mean = torch.tensor([[float(group[m] == group[n]) for m in range(size)] for n in range(size)])
    first = torch.tensor([[float(m == group.index(group[n])) for m in range(size)] for n in range(size)])
    matrix = torch.rand(size, size, generator=torch.Generator().manual_seed(2)) + torch.eye(size)
    for edit, weights in (
        (wb.reroute.smooth(LAYER), attention),
        (wb.reroute.smooth(LAYER, by="window", window=3), window),
        (wb.reroute.smooth(LAYER, by="matrix", matrix=matrix, causal=False), matrix),
        (wb.reroute.group(LAYER, take="running"), running),
        (wb.reroute.group(LAYER, take="mean"), mean),
        (wb.reroute.group(LAYER, take="first"), first),
        (wb.reroute.group(LAYER, by="sample", take="mean"), torch.ones(size, size)),
    ):
        run = one.run(IDS, edit)
        wanted = _mixed(one, weights / weights.sum(-1, keepdim=True))
        assert [set(choices(one, run)[n]) for n in range(size)] == wanted, edit.describe()


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_a_copied_layer_and_pseudo_experts_do_what_they_say(bench: Any, kernels: str) -> None:
    one = bench("olmoe", kernels=kernels)
    run = one.run(IDS, wb.reroute.copy_layer(2, 0))
    assert choices(one, run, 2) == choices(one, run, 0) != choices(one, one.run(IDS), 2)
    banned = wb.Plan([wb.reroute.ban(0, 3), wb.reroute.copy_layer([1, 2], 0)])
    assert choices(one, one.run(IDS, banned), 1) == choices(one, one.run(IDS, wb.reroute.ban(0, 3)), 0)

    base = one.run(IDS)
    native = choices(one, base)
    used = sorted({e for chosen in native.values() for e in chosen})[:3]
    zero = one.run(IDS, wb.reroute.pseudo(LAYER, used))
    scaled = one.run(IDS, wb.reroute.weights(LAYER, scale=dict.fromkeys(used, 0.0)))
    torch.testing.assert_close(zero.logits, scaled.logits, rtol=1e-5, atol=1e-5)
    assert not set(used) & {e for chosen in choices(one, zero).values() for e in chosen}

    lost = torch.tensor([sum(w for e, w in native[n].items() if e in used) for n in range(len(IDS))])
    norm = one.model.model.layers[LAYER].post_attention_layernorm
    with torch.no_grad():
        normed = norm(base.tensor("resid_mid", layers=LAYER).unsqueeze(0))[0]
    silent = zero.tensor("mlp_out", layers=LAYER)
    copied = one.run(IDS, wb.reroute.pseudo(LAYER, used, output="copy")).tensor("mlp_out", layers=LAYER)
    torch.testing.assert_close(copied - silent, lost.unsqueeze(-1) * normed, rtol=1e-4, atol=1e-5)
    vector = torch.linspace(-1, 1, 32)
    constant = one.run(IDS, wb.reroute.pseudo(LAYER, used, output="constant", vector=vector))
    torch.testing.assert_close(
        constant.tensor("mlp_out", layers=LAYER) - silent, lost.unsqueeze(-1) * vector, rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_policies_that_look_ahead_or_couple_rows_are_refused_where_they_mislead(bench: Any) -> None:
    one = bench("olmoe")
    for edit in (
        wb.reroute.expert_choice(LAYER),
        wb.reroute.balanced(LAYER),
        wb.reroute.capacity(LAYER, causal=False),
    ):
        with pytest.raises(EditRefused, match="looks at later tokens"):
            one.generate(IDS, 3, edit)
        with pytest.raises(EditRefused, match="looks at later tokens"):
            one.live(IDS, edit)
        one.run(IDS, edit)
    by_step = one.generate(IDS, 4, wb.reroute.expert_choice(LAYER, pool="step"))
    assert loads(one, one.run(IDS, wb.reroute.expert_choice(LAYER))) == dict.fromkeys(range(E), 3)
    assert all(
        len(choices(one, by_step)[n]) == E for n in range(12, 15)
    )  # a pool of one token: every expert takes it
    again = by_step.tensor("expert_ids", layers=LAYER)
    assert {n: set(row) - {-1} for n, row in enumerate(again.tolist()) if set(row) != {-1}} == {
        n: set(chosen) for n, chosen in choices(one, by_step).items()
    }

    together = wb.reroute.balanced(LAYER, pool="batch")
    with pytest.raises(EditRefused, match="compete with each other"):
        one.run([IDS, IDS[:5]], together)
    asked = wb.reroute.balanced(LAYER, pool="batch", couples_rows=True)
    runs = one.run([IDS, IDS[:5]], asked)
    total: dict[int, int] = {}
    for run in runs:
        for expert, count in loads(one, run).items():
            total[expert] = total.get(expert, 0) + count
    assert max(total.values()) <= math.ceil(K * 17 / E) and sum(total.values()) == K * 17
    with pytest.raises(EditRefused, match="2 passes"):
        one.run([IDS, IDS], plans=[wb.Plan([asked]), wb.Plan([asked, wb.skip.block(2)])])
    with pytest.raises(EditRefused, match="in batches"):
        one.counterfactual(one.run(IDS, together), token=3, layers=LAYER)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (wb.reroute.copy_layer(0, 2), "runs earlier"),
        (wb.reroute.group(LAYER), "no tokenizer"),
        (wb.reroute.pseudo(LAYER, 1, output="constant", vector=[1.0, 2.0]), "there are 32 channels"),
        (wb.Plan([wb.reroute.copy_layer(1, 0), wb.reroute.ban(1, 3)]), "a replay fixes"),
        (wb.Plan([wb.reroute.capacity(1), wb.reroute.capacity(1, 2.0)]), "both decide"),
        (wb.Plan([wb.reroute.balanced(1), wb.reroute.top_k(1, 1)]), "both decide"),
    ],
)
def test_what_cannot_act_is_refused(bench: Any, edit: Any, says: str) -> None:
    with pytest.raises(EditRefused, match=says):
        bench("olmoe").run(IDS, edit)


def test_a_mean_that_was_not_kept_is_refused(bench: Any) -> None:
    live = bench("olmoe").live(IDS)
    live.step()
    live.edit(wb.reroute.group(LAYER, by="sample"))
    with pytest.raises(EditRefused, match="were not kept"):
        live.step()
