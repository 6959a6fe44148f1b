"""Token-wise depth by a router: who runs, what its probability multiplies, and that decoding decides as a pass does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_tiny
from torch import Tensor

import workbench as wb
from workbench.errors import EditRefused, PlanError
from workbench.runtime.depth.routers import DepthRouter

IDS = [5, 17, 3, 60, 22, 9, 41, 8, 33, 2, 19, 50]
LAYER = 1


def router(width: int, bias: float = 0.0) -> DepthRouter:
    """A router that opens for about half of the tokens, with probabilities far from 0 and 1."""
    weight = torch.randn(width, generator=torch.Generator().manual_seed(3)) * 0.1
    return DepthRouter("linear", {f"{LAYER}.weight": weight, f"{LAYER}.bias": torch.tensor([bias])})


def by_hand(keep: list[bool], unit: str, gate: str, weights: DepthRouter) -> tuple[Tensor, Tensor]:
    """Logits of a fresh model in whose layer 1 only the tokens ``keep`` run the unit, scaled by the router's probability;
    keys of the others are absent. Beside them the probabilities."""
    model = build_tiny("llama")
    ran = torch.tensor(keep)
    causal = torch.ones(len(IDS), len(IDS), dtype=torch.bool).tril()
    seen = torch.zeros(len(IDS))
    with torch.no_grad():
        h = model.model.embed_tokens(torch.tensor([IDS]))
        where = model.model.rotary_emb(h, torch.arange(len(IDS))[None])
        for n, layer in enumerate(model.model.layers):
            here = n == LAYER
            p = torch.ones(len(IDS))
            if here:
                x = h[0] / (h[0].square().mean(-1, keepdim=True) + 1e-6).sqrt()
                p = seen = torch.sigmoid(
                    x @ weights.weights[f"{LAYER}.weight"] + weights.weights[f"{LAYER}.bias"]
                )
            runs = {
                name: ran if here and unit in ("block", name) else torch.ones_like(ran)
                for name in ("attention", "mlp")
            }
            share = {
                name: p
                if here and gate in ("both", name) and unit in ("block", name)
                else torch.ones(len(IDS))
                for name in ("attention", "mlp")
            }
            mask = (causal & runs["attention"])[None, None]
            mask = mask | torch.eye(len(IDS), dtype=torch.bool)  # the rows of those that skip are thrown away
            added = layer.self_attn(
                layer.input_layernorm(h), position_embeddings=where, attention_mask=mask, past_key_values=None
            )[0]
            # A block's gate scales what the whole block adds: its MLP reads the attention unscaled.
            inside = (
                h
                + added
                * (runs["attention"] * (share["attention"] if unit != "block" else 1.0))[None, :, None]
            )
            mlp = layer.mlp(layer.post_attention_layernorm(inside))
            if unit == "block" and here:
                attention = (inside - h) * (share["attention"])[None, :, None]
                h = h + (attention + mlp * share["mlp"][None, :, None]) * ran[None, :, None]
            else:
                h = inside + mlp * (runs["mlp"] * share["mlp"])[None, :, None]
        return model.lm_head(model.model.norm(h))[0], seen


@pytest.mark.parametrize(
    ("unit", "gate"),
    [("block", "none"), ("block", "mlp"), ("block", "both"), ("attention", "both"), ("mlp", "both")],
)
def test_the_routers_probability_multiplies_what_it_says(bench: Any, unit: Any, gate: Any) -> None:
    one = bench("llama")
    weights = router(one.anatomy.hidden_size)
    name = one.add(weights.artefact())
    edit = wb.skip.tokens(LAYER, capacity=0.5, score="router", router=name, unit=unit, gate=gate)
    run = one.run(IDS, edit)
    told = one.sql("SELECT position, event FROM depth WHERE run = ? ORDER BY position", [run.id]).fetchall()
    keep = [event == "execute" for _, event in told]
    want, probability = by_hand(keep, unit, gate, weights)
    torch.testing.assert_close(run.logits, want, rtol=2e-4, atol=2e-4)
    # Causal capacity: a token runs if it is among the best half of the tokens up to itself.
    for t, ran in enumerate(keep):
        ahead = int((probability[:t] >= probability[t]).sum())
        assert ran == (ahead < -(-(t + 1) // 2)), t
    text = one.generate(IDS[:8], 4, edit)
    whole = one.run(text.tokens[:-1].tolist(), edit)
    torch.testing.assert_close(text.logits, whole.logits, rtol=2e-4, atol=2e-4)
    batch = one.run([IDS, IDS[:7]], plans=[edit, edit], record=None)
    torch.testing.assert_close(batch[1].logits, one.run(IDS[:7], edit).logits, rtol=2e-4, atol=2e-4)


def test_a_gate_that_is_open_changes_no_bit_and_a_closed_one_lets_nothing_through(bench: Any) -> None:
    one = bench("llama")
    width = one.anatomy.hidden_size
    base = one.run(IDS, record=None).logits
    wide = one.add(router(width, bias=200.0).artefact())
    for gate in ("none", "mlp", "both"):
        edit = wb.skip.tokens(LAYER, threshold=0.5, score="router", router=wide, gate=gate)
        close = one.run(IDS, edit, record=None).logits
        torch.testing.assert_close(close, base, rtol=1e-5, atol=1e-5)
    assert torch.equal(
        one.run(IDS, wb.skip.tokens(LAYER, threshold=0.5, score="router", router=wide)).logits, base
    )
    shut = one.add(router(width, bias=-200.0).artefact())
    run = one.run(IDS, wb.skip.tokens(LAYER, threshold=0.5, score="router", router=shut, gate="both"))
    torch.testing.assert_close(run.logits, one.run(IDS, wb.skip.block(LAYER)).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_token_that_was_dropped_is_never_taken_up_again(bench: Any) -> None:
    """What a capacity drops stays dropped: later tokens do not fill its place, nor does another pass decide anew."""
    one = bench("llama")
    name = one.add(router(one.anatomy.hidden_size).artefact())
    edit = wb.skip.tokens(LAYER, capacity=0.5, score="router", router=name)
    asked = "SELECT position, event FROM depth WHERE run = ? ORDER BY position"
    whole = one.sql(asked, [one.run(IDS, edit).id]).fetchall()
    for length in range(1, len(IDS)):
        assert one.sql(asked, [one.run(IDS[:length], edit).id]).fetchall() == whole[:length]
    live = one.live(IDS[:6], edit)
    for _ in range(4):
        live.step()
    text = live.tokens[:-1]
    run = live.finish()
    assert one.sql(asked, [run.id]).fetchall() == one.sql(asked, [one.run(text, edit).id]).fetchall()


def test_refusals(bench: Any) -> None:
    one = bench("llama")
    name = one.add(router(one.anatomy.hidden_size).artefact())
    with pytest.raises(PlanError, match="needs the probability"):
        wb.skip.tokens(LAYER, capacity=0.5, gate="mlp")
    with pytest.raises(EditRefused, match="scales the MLP of a block"):
        one.run(IDS, wb.skip.tokens(LAYER, capacity=0.5, score="router", router=name, gate="mlp", unit="mlp"))
    with pytest.raises(PlanError, match="not at hand"):
        one.run(IDS, wb.skip.tokens(LAYER, capacity=0.5, score="router", router="0" * 32))
