"""Sites as tensors, and the exchange of experts at a cell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, MOE_FAMILIES, build_tiny, each

import workbench as wb
from workbench.errors import AddressError, EditRefused, PromptError

IDS = [5, 17, 3, 60, 22, 9, 41, 8]


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_residual_sites_are_those_of_the_model(bench: Any, family: str) -> None:
    model = build_tiny(family)
    with torch.no_grad():
        states = model(torch.tensor([IDS]), output_hidden_states=True, use_cache=False).hidden_states
    one = bench(model, kernels="model")
    run = one.run(IDS)
    pre = run.tensor("resid_pre", layers=[0, 1, 2])
    assert torch.equal(pre, torch.cat(states[:3]))
    assert torch.equal(run.tensor("resid_post", layers=1), states[2][0])
    mid, attn, mlp = (run.tensor(site, layers=1) for site in ("resid_mid", "attn_out", "mlp_out"))
    torch.testing.assert_close(pre[1] + attn, mid)
    torch.testing.assert_close(mid + mlp, states[2][0])
    assert torch.equal(run.tensor("resid_post", layers=1, tokens="prompt_last"), states[2][0, -1])


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_attention_sites_multiply_to_what_attention_adds(bench: Any, family: str) -> None:
    one = bench(build_tiny(family), kernels="model")
    run = one.run(IDS)
    heads = run.tensor("attn_head_out", layers=2)
    attention = one.model.model.layers[2].self_attn
    torch.testing.assert_close(
        attention.o_proj(heads.reshape(len(IDS), -1)), run.tensor("attn_out", layers=2)
    )
    pattern = run.tensor("attn_pattern", layers=2)
    assert pattern.shape == (4, len(IDS), len(IDS))
    torch.testing.assert_close(pattern.sum(-1), torch.ones(4, len(IDS)))
    assert run.tensor("attn_pattern", layers=2, tokens=3).shape == (4, len(IDS))
    assert not pattern.triu(1).any()


@pytest.mark.parametrize("family", each(MOE_FAMILIES))
def test_routing_sites_are_what_was_executed(bench: Any, family: str) -> None:
    one = bench(family)
    plan = wb.Plan([wb.reroute.ban(1, [0, 3]), wb.skip.block(2)])
    run = one.run(IDS, plan)
    for layer in (0, 1):
        ids, weights = (run.tensor(site, layers=layer) for site in ("expert_ids", "expert_weights"))
        rows = one.sql(
            "SELECT position, slot, expert, weight FROM routing WHERE run = ? AND layer = ?", [run.id, layer]
        ).fetchall()
        assert all(int(ids[p, s]) == e and float(weights[p, s]) == w for p, s, e, w in rows)
    scores = run.tensor("expert_scores", layers=1)
    assert scores[:, [0, 3]].isneginf().all() and scores[:, [1, 2]].isfinite().all()
    hidden, logits = run.tensor("resid_mid", layers=0), run.tensor("router_logits", layers=0)
    block = one.model.model.layers[0]
    with torch.no_grad():
        torch.testing.assert_close(block.post_attention_layernorm(hidden) @ block.mlp.gate.weight.T, logits)
    with pytest.raises(EditRefused, match="skips it"):
        run.tensor("expert_ids", layers=2)


def test_neurons_of_a_dense_model(bench: Any) -> None:
    one = bench("llama", kernels="model")
    run = one.run(IDS)
    mlp = one.model.model.layers[1].mlp
    torch.testing.assert_close(
        mlp.down_proj(run.tensor("mlp_act", layers=1)), run.tensor("mlp_out", layers=1)
    )
    for site, error in (("router_logits", EditRefused), ("block", AddressError), ("nonsense", AddressError)):
        with pytest.raises(error):
            run.tensor(site, layers=1)
    with pytest.raises(AddressError, match="Token 8 was not computed"):
        run.tensor("resid_pre", layers=0, tokens=8)


@pytest.mark.slow
@pytest.mark.parametrize("family", each(MOE_FAMILIES))
@pytest.mark.parametrize("token", [0, 4, 7])
def test_counterfactual_is_a_run_of_each_exchange(bench: Any, family: str, token: int) -> None:
    one = bench(family)
    run = one.run(IDS)
    table = one.counterfactual(run, token, [0, 2])
    assert len(table) == 2 * 2 * 6 and (table["change"].diff().dropna() <= 0).all()
    chosen = dict(one.sql(
        "SELECT layer, list(expert) FROM routing WHERE run = ? AND position = ? GROUP BY layer", [run.id, token]
    ).fetchall())  # fmt: skip
    base = run.logits.double().log_softmax(-1)
    for row in table.iloc[[0, 5, -1]].itertuples():
        other = one.run(IDS, row.plan)
        now = one.sql(
            "SELECT list(expert) FROM routing WHERE run = ? AND position = ? AND layer = ?",
            [other.id, token, row.layer],
        ).fetchone()[0]
        assert set(now) == set(chosen[row.layer]) - {row.removed} | {row.expert}
        log_p = other.logits.double().log_softmax(-1)
        follows = IDS[token + 1 :]
        if follows:
            change = sum(float(log_p[token + n, t] - base[token + n, t]) for n, t in enumerate(follows))
            first = float(log_p[token, follows[0]] - base[token, follows[0]])
        else:
            best = int(run.logits[token].argmax())
            change = first = float(log_p[token, best] - base[token, best])
        assert row.change == pytest.approx(change, abs=2e-4) and row.next_change == pytest.approx(
            first, abs=2e-4
        )


@pytest.mark.slow
def test_counterfactuals_that_cannot_be_asked(bench: Any) -> None:
    one = bench("olmoe")
    run = one.run(IDS)
    with pytest.raises(PromptError, match="Token 8 was not computed"):
        one.counterfactual(run, 8, 0)
    with pytest.raises(PromptError, match="not recorded"):
        one.counterfactual(one.run(IDS, record=None), 0, 0)
    dense = bench("llama")
    with pytest.raises(EditRefused, match="no router"):
        dense.counterfactual(dense.run(IDS), 0, 0)
