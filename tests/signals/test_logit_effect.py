"""Direct effects against a float64 restatement, and their sum against the logit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import build_tiny
from torch import nn

import workbench as wb
from workbench.conformance.families import DENSE, OPAQUE, SPARSE, build
from workbench.errors import ModelError, SetupError
from workbench.signals import logit_effect


class Rms(nn.Module):
    def __init__(self, size, one):
        super().__init__()
        self.weight, self.variance_epsilon, self.one = nn.Parameter(torch.randn(size)), 1e-5, one

    def forward(self, x):
        gain = 1 + self.weight if self.one else self.weight
        return x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt() * gain


class Centred(Rms):
    """A layer norm that is no :class:`torch.nn.LayerNorm`, as Cohere has it."""

    def forward(self, x):
        return super().forward(x - x.mean(-1, keepdim=True))


class LayerOne(nn.LayerNorm):
    """One whose gain is one plus its weight, as Nemotron has it."""

    def forward(self, x):
        return nn.functional.layer_norm(x, self.normalized_shape, 1 + self.weight, self.bias, self.eps)


@pytest.mark.parametrize("kind", ["rms", "one", "layer", "layer one", "centred", "none"])
def test_effects_of_parts_sum_to_the_logit(kind):
    torch.manual_seed(0)
    parts = torch.randn(5, 7, 12)
    made = {
        "rms": lambda: Rms(12, False), "one": lambda: Rms(12, True), "layer": lambda: nn.LayerNorm(12),
        "layer one": lambda: LayerOne(12), "centred": lambda: Centred(12, False),
    }  # fmt: skip
    norm = None if kind == "none" else made[kind]()
    if kind.startswith("layer"):
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    rows, bias = torch.randn(7, 12), torch.randn(7)
    final = parts.sum(0)
    of = logit_effect.direction(norm, final, rows, bias)
    total = sum(logit_effect.effect(part, of) for part in parts) + of.constant
    stream = final if norm is None else norm(final)
    wanted = (stream.double() * rows.double()).sum(-1) + bias.double()
    assert torch.allclose(total.double(), wanted, atol=1e-4)


def test_a_norm_that_is_neither_is_refused():
    class Other(nn.Module):
        def forward(self, x):
            return x.tanh()

    with pytest.raises(ValueError, match="neither a layer norm nor an RMS norm"):
        logit_effect.direction(Other(), torch.randn(3, 4), torch.randn(3, 4))


def test_heads_and_experts_against_loops():
    rng = np.random.default_rng(0)
    heads, out_proj = rng.normal(size=(4, 6)), rng.normal(size=(5, 6))
    vector, outputs, weights = rng.normal(size=(4, 5)), rng.normal(size=(4, 2, 5)), rng.random((4, 2))
    of = logit_effect.Direction(torch.from_numpy(vector), torch.zeros(4, dtype=torch.float64))
    found = logit_effect.head_effects(torch.from_numpy(heads), torch.from_numpy(out_proj), of, 3)
    for t in range(4):
        for h in range(3):
            part = out_proj[:, 2 * h : 2 * h + 2] @ heads[t, 2 * h : 2 * h + 2]
            assert np.isclose(found[t, h], part @ vector[t])
    found = logit_effect.expert_effects(torch.from_numpy(outputs), torch.from_numpy(weights), of)
    for t in range(4):
        for j in range(2):
            assert np.isclose(found[t, j], weights[t, j] * outputs[t, j] @ vector[t])


def test_lens_divergence_against_numpy():
    rng = np.random.default_rng(0)
    final, early = rng.normal(size=(3, 9)), rng.normal(size=(3, 9))
    p = np.exp(final) / np.exp(final).sum(-1, keepdims=True)
    q = np.exp(early) / np.exp(early).sum(-1, keepdims=True)
    found = logit_effect.lens_divergence(torch.from_numpy(final), torch.from_numpy(early))
    assert np.allclose(found, (p * np.log(p / q)).sum(-1))
    assert float(logit_effect.lens_divergence(torch.from_numpy(final), torch.from_numpy(final)).max()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmoe", "mixtral", "gpt_oss", "llama"])
def test_recorded_effects_sum_to_the_recorded_logit(bench, family):
    built = build(family) if family == "gpt_oss" else build_tiny(family)
    for name, parameter in built.named_parameters():
        if name.endswith("o_proj.bias"):  # what it adds is no head's
            nn.init.zeros_(parameter)
    model = bench(built)
    record = wb.Record(logit_effect=True, logit_lens=True)
    bare = model.run([3, 1, 4, 1, 5, 9, 2, 6], record=None)
    run, short = model.run([[3, 1, 4, 1, 5, 9, 2, 6], [7, 8, 9]], record=record)
    alone = model.run([3, 1, 4, 1, 5, 9, 2, 6], record=record)
    assert torch.equal(alone.logits, bare.logits), "recording changes no bit"
    for one in (run, short):
        rows = model.sql(
            "SELECT position, any_value(target), sum(effect) FROM logit_effect WHERE run = ? "
            "AND unit IN ('embed', 'attn', 'mlp', 'block') GROUP BY position ORDER BY position",
            [one.id],
        ).fetchall()
        assert [row[0] for row in rows] == list(range(len(one.tokens)))
        assert [row[1] for row in rows][:-1] == one.tokens[1:].tolist()
        assert rows[-1][1] == int(one.logits[-1].argmax())
        for position, target, total in rows:
            assert abs(total - float(one.logits[position, target])) < 1e-3
        error = model.sql("SELECT value FROM metric WHERE run = ? AND name = 'logit_effect_error'", [one.id])
        assert error.fetchone()[0] < 1e-3
    units = dict(
        model.sql(
            "SELECT unit, count(*) FROM logit_effect WHERE run = ? GROUP BY unit", [alone.id]
        ).fetchall()
    )
    layers, attention = model.anatomy.num_layers, model.anatomy.layer(0).attention
    assert units["embed"] == 8 and units["attn"] == units["mlp"] == 8 * layers
    assert units["head"] == 8 * layers * attention.num_heads
    pairs = model.sql(
        "SELECT max(abs(a.effect - h.effect)) FROM (SELECT * FROM logit_effect WHERE unit = 'attn') AS a JOIN "
        "(SELECT run, position, layer, sum(effect) AS effect FROM logit_effect WHERE unit = 'head' GROUP BY ALL) AS h "
        "USING (run, position, layer)"
    ).fetchone()
    assert pairs[0] < 1e-4, "heads sum to attention"
    if family != "llama" and model.kernels != "model":
        worst = model.sql(
            "SELECT max(abs(a.effect - e.effect)) FROM (SELECT * FROM logit_effect WHERE unit = 'mlp') AS a JOIN "
            "(SELECT run, position, layer, sum(effect) AS effect FROM logit_effect WHERE unit = 'expert' GROUP BY ALL) "
            "AS e USING (run, position, layer)"
        ).fetchone()
        assert worst[0] < 1e-4, "selected experts sum to the MLP"
    lens = model.sql(
        "SELECT layer, count(lens_kl), min(lens_kl) FROM contribution WHERE run = ? GROUP BY layer ORDER BY layer",
        [alone.id],
    ).fetchall()
    assert [row[1] for row in lens] == [8] * (layers - 1) + [0] and all(row[2] >= 0 for row in lens[:-1])
    final = alone.logits.log_softmax(-1)
    norm, head = (model.model.get_submodule(p) for p in (model.anatomy.norm_path, model.anatomy.head_path))
    with torch.no_grad():
        early = head(norm(alone.tensor("resid_post", layers=0))).log_softmax(-1)
    wanted = (final.exp() * (final - early)).sum(-1)
    found = model.sql(
        "SELECT lens_kl FROM contribution WHERE run = ? AND layer = 0 ORDER BY position", [alone.id]
    )
    assert np.allclose([row[0] for row in found.fetchall()], wanted, atol=1e-5)


MIXED = {"inkling2_text"}
"""Families that mix the streams of several blocks before the head: no sum of what blocks add is the stream it reads."""


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "model"])
@pytest.mark.parametrize("family", sorted({**SPARSE, **OPAQUE, **DENSE}))
def test_everything_on_request_is_recorded_of_every_family_and_changes_no_bit(bench, family, kernels):
    try:
        model = bench(build(family), kernels=kernels)
    except ModelError as error:
        pytest.skip(str(error))
    prompt = [3, 1, 4, 1, 5, 9, 2, 6]
    others = {"scores": True, "census": True, "attention_map": True, "rank_sketch": 4}
    bare = model.run(prompt, record=None)
    if max(block.streams for block in model.anatomy.blocks) > 1:
        with pytest.raises(SetupError, match="streams side by side"):
            model.run(prompt, record=wb.Record(logit_effect=True, **others))
        assert torch.equal(bare.logits, model.run(prompt, record=wb.Record(**others)).logits)
        return
    run = model.run(prompt, record=wb.Record(logit_lens=True, logit_effect=True, **others))
    assert torch.equal(bare.logits, run.logits)
    ((error,),) = model.sql(
        "SELECT max(value) FROM metric WHERE run = ? AND name = 'logit_effect_error'", [run.id]
    ).fetchall()
    assert (error < 1e-3) == (family not in MIXED), "what is left is told"
