"""A model in which every token chooses every expert: logits are told from weights, recorded, and can be edited."""

from __future__ import annotations

import torch

import workbench as wb
from workbench.conformance import families as kit

PROMPT = [3, 1, 4, 1, 5, 9]


def test_logits_are_read_recorded_and_edited_where_every_expert_is_chosen():
    model = kit.build("mixtral", 0, num_experts_per_tok=4, num_local_experts=4)
    with wb.open(model, None, store=":memory:") as bench:
        run = bench.run(PROMPT)
        logits = run.tensor("router_logits", layers=0)
        given = run.tensor("resid_mid", layers=0)
        block = bench.model.model.layers[0]
        expected = torch.nn.functional.linear(block.post_attention_layernorm(given), block.mlp.gate.weight)
        torch.testing.assert_close(logits, expected)
        entropy = torch.distributions.Categorical(logits=expected).entropy()
        rows = bench.sql("SELECT entropy, margin FROM router WHERE layer = 0 ORDER BY position").fetchall()
        torch.testing.assert_close(torch.tensor([row[0] for row in rows]), entropy)
        assert {row[1] for row in rows} == {None}, "no expert is left out that a margin could be to"
        changed = bench.run(PROMPT, plan=wb.Plan([wb.reroute.bias(layers=0, delta=[3.0, 0.0, 0.0, 0.0])]))
        assert not torch.equal(changed.logits, run.logits)
        weights = changed.tensor("expert_weights", layers=0).gather(
            1, changed.tensor("expert_ids", layers=0).argsort(1)
        )
        shifted = (expected + torch.tensor([3.0, 0, 0, 0])).softmax(-1)
        torch.testing.assert_close(weights, shifted)
