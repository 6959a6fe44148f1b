"""What an edit says it does: in words, every one of which a catalogue can translate."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from workbench.interventions import Edit, Plan, mask, patch, reroute, skip
from workbench.interventions.custom import Custom
from workbench.said import Said

FILE = "ab" * 32
EDITS: list[tuple[Edit, str]] = [
    (reroute.ban(3, 5), "ban expert 5 in layer 3, all tokens"),
    (reroute.ban([1, 2], [5, 6], tokens=slice(4, 9)), "ban experts 5, 6 in layers 1, 2, tokens 4 to 8"),
    (reroute.ban(3, 5, tokens=slice(4, 5), steps=2), "ban expert 5 in layer 3, token 4, step 2"),
    (reroute.ban(3, 5, tokens=[4, 6]), "ban expert 5 in layer 3, tokens 4, 6"),
    (reroute.allow("all", [1, 2], tokens="prompt_last"), "allow only experts 1, 2 in all layers, the last prompt token"),
    (reroute.force(1, 2, tokens=slice(3, None)), "force expert 2 in layer 1, tokens 3 to the end"),
    (reroute.force(1, 2, weight=0.5, phase="decode"), "force expert 2 at weight 0.5 in layer 1, all tokens, decode only"),
    (reroute.bias(1, {2: 1.5, 4: -1}, rows=2), "bias expert 2 by +1.5, expert 4 by -1 in layer 1, all tokens, row 2"),
    (reroute.bias(1, [0.5, 1.0]), "bias all experts by a vector in layer 1, all tokens"),
    (reroute.temperature(1, 2.5, steps=slice(0, 3)), "router temperature 2.5 in layer 1, all tokens, steps 0 to 2"),
    (reroute.temperature(1, 2, steps=[1, 4]), "router temperature 2 in layer 1, all tokens, steps 1, 4"),
    (reroute.top_k(1, 3, where="margin < 0.05"), "use the 3 best experts in layer 1, all tokens, where margin < 0.05"),
    (reroute.top_p(1, 0.5), "use experts up to a share of 0.5 in layer 1, all tokens"),
    (reroute.threshold(1, 0.1, phase="prefill"),
     "use experts with a share of at least 0.1 in layer 1, all tokens, prefill only"),
    (reroute.rank_offset(1, 2), "leave out the 2 best experts in layer 1, all tokens"),
    (reroute.random(1, seed=7), "random experts (seed 7) in layer 1, all tokens"),
    (reroute.permute(1, [1, 0, 2]), "permute experts (2 exchanged) in layer 1, all tokens"),
    (reroute.uniform(1), "uniform weights in layer 1, all tokens"),
    (reroute.weights(1, scale=0.5), "scale all weights by 0.5 in layer 1, all tokens"),
    (reroute.weights(1, scale={2: 0.5}), "scale the weight of expert 2 by 0.5 in layer 1, all tokens"),
    (reroute.weights(1, values=[0.5, 0.25]), "weights 0.5, 0.25 in layer 1, all tokens"),
    (reroute.weights(1, add=[0.5, 0.25]), "add to the weights by expert in layer 1, all tokens"),
    (reroute.replay(12), "replay the routes of run 12 in all layers, all tokens"),
    (reroute.scores(1, [0.5, 0.5], alpha=0.5), "mix scores with given ones at 0.5 in layer 1, all tokens"),
    (reroute.scores(1, [0.5, 0.5], alpha=0.5, how="add"), "add given scores at 0.5 in layer 1, all tokens"),
    (reroute.smooth(1, by="window", window=3), "smooth scores by a window of 3 tokens (alpha 1) in layer 1, all tokens"),
    (reroute.smooth(1, by="attention"), "smooth scores by attention (alpha 1) in layer 1, all tokens"),
    (reroute.group(1, by="sentence"), "route each sentence by its mean so far in layer 1, all tokens"),
    (reroute.copy_layer(2, 1), "copy the choice of layer 1 (source weights) in layer 2, all tokens"),
    (
        reroute.capacity(1, 1.5, order="random", overflow="drop", causal=False),
        "at most 1.5 x the mean load per sequence, at random (seed 0), drop the rest in layer 1, all tokens",
    ),
    (reroute.expert_choice(1, 2.0), "experts choose tokens, 2 x the mean load each, per sequence in layer 1, all tokens"),
    (reroute.balanced(1, 1.0), "balanced loads (exact, at most 1 x the mean) per sequence in layer 1, all tokens"),
    (reroute.merge(1, {4: 2}), "merge expert 4 into 2 in layer 1, all tokens"),
    (reroute.pseudo(1, [3], output="copy"), "copy output for expert 3 in layer 1, all tokens"),
    (skip.block(4), "skip the block in layer 4, all tokens"),
    (skip.attention(4, tokens="generated"), "skip the attention in layer 4, generated tokens"),
    (skip.mlp(4, tokens="prompt"), "skip the MLP in layer 4, prompt tokens"),
    (skip.repeat(4, 2), "run the block 2 times in layer 4, all tokens"),
    (skip.alias(4, 2, unit="mlp"), "run the MLP of layer 2 in layer 4, all tokens"),
    (skip.path([0, 2, 2]), "run the blocks 0, 2, 2 in all layers, all tokens"),
    (skip.tokens(4, capacity=0.5), "send only tokens in the top 50% by norm through the block in layer 4, all tokens"),
    (skip.tokens(4, threshold=0.5), "send only tokens above 0.5 by norm through the block in layer 4, all tokens"),
    (skip.policy("middle", radius=1.5), "middle skipping of the block (radius 1.5) in all layers, all tokens"),
    (mask.experts(1, [3]), "mask expert 3 in layer 1, all tokens"),
    (mask.heads(1, [3, 4], replacement="mean", source=FILE), "mask heads 3, 4 with mean in layer 1, all tokens"),
    (mask.neurons(1, ratio=0.5, expert=2), "mask 50% of the neurons by random of expert 2 in layer 1, all tokens"),
    (mask.channels(1, [3]), "mask channel 3 of resid_post in layer 1, all tokens"),
    (mask.tokens(1, tokens=[3]), "hide from all others in layer 1, token 3"),
    (mask.activations(1, sparsity=0.5, source=FILE), "leave out 50% of the activations (magnitude) in layer 1, all tokens"),
    (mask.activations(1, threshold=0.5), "leave out small ones of the activations (magnitude) in layer 1, all tokens"),
    (mask.attention(1, "window", window=64), "keep the window blocks in layer 1, all tokens"),
    (mask.attention(1, "window", window=64, heads=[2]), "keep the window blocks of heads 2 in layer 1, all tokens"),
    (mask.weights(1, ratio=0.5), "mask weights of all projections (50% unstructured, magnitude) in layer 1, all tokens"),
    (mask.weights(1, ["up_proj"], shape="n:m", n=2, m=4), "mask weights of up_proj (2:4, magnitude) in layer 1, all tokens"),
    (mask.direction(1, [1.0, 0.0]), "ablate a direction of resid_post in layer 1, all tokens"),
    (mask.direction(1, [1.0, 0.0], op="add", value=2), "add 2 x a direction of resid_post in layer 1, all tokens"),
    (
        mask.direction(1, sae=FILE, features=[2, 5], op="clamp", value=2),
        "clamp to 2 features 2, 5 of resid_post in layer 1, all tokens",
    ),
    (mask.direction(1, sae=FILE, features=[2]), "ablate feature 2 of resid_post in layer 1, all tokens"),
    (patch("resid_post", 12, 3, tokens="each_step"),
     "patch resid_post from run 12 in layer 3, the token each step predicts from"),
]  # fmt: skip


def bare(value: Any) -> str:
    """What is left of a sentence whose templates have lost their words: what no catalogue would change."""
    if not isinstance(value, Said):
        return str(value)
    places = re.sub(r"[^%\d]|(?<!%)\d", " ", value.template)
    return re.sub(r"%(\d)", lambda place: bare(value.values[int(place[1]) - 1]), places)


@pytest.mark.parametrize(("edit", "text"), EDITS, ids=lambda value: value if isinstance(value, str) else "")
def test_an_edit_says_what_it_does_in_words_that_can_be_translated(edit: Edit, text: str) -> None:
    said = edit.describe()
    assert said == text and isinstance(said, Said)
    # Only words that the edit was given, by the names of its parameters, stand in it as they are.
    given = json.dumps(edit.model_dump(mode="json")) + getattr(edit, "site", "")
    assert [word for word in re.findall(r"[a-z_]{2,}", bare(said), re.I) if word not in given] == []


def test_every_kind_has_its_words() -> None:
    kinds = {
        d["properties"]["kind"]["const"]
        for d in Plan.json_schema()["$defs"].values()
        if "kind" in d.get("properties", {})
    }
    assert {edit.kind for edit, _ in EDITS} == kinds - {Custom.model_fields["kind"].default}
