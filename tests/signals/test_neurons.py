"""The neuron census and the union of chunks against loops over recorded activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.anatomy import expert_inputs
from workbench.conformance.families import SPARSE, build
from workbench.errors import ModelError
from workbench.signals import neurons


@pytest.mark.parametrize("padded", [False, True])
def test_census_and_chunks_against_loops(padded):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 11, 6)) * (rng.random((2, 11, 6)) < 0.4)
    lengths = [11, 7] if padded else [11, 11]
    valid = torch.arange(11) < torch.tensor(lengths)[:, None] if padded else None
    found = neurons.census(torch.from_numpy(a), 0.5, valid)
    chunks = neurons.chunk_union(torch.from_numpy(a), 0.5, 4, valid)
    for row, length in enumerate(lengths):
        part = np.abs(a[row, :length])
        assert int(found.tokens[row]) == length
        assert np.array_equal(found.active[row], (part >= 0.5).sum(0))
        assert np.allclose(found.total[row], part.sum(0)) and np.allclose(found.largest[row], part.max(0))
        rate = (part >= 0.5).mean(0)
        for c in range(11 // 4):
            if 4 * c + 4 > length:
                assert chunks.union[row, c].isnan()
                continue
            assert np.isclose(chunks.union[row, c], (part[4 * c : 4 * c + 4] >= 0.5).any(0).mean())
            assert np.isclose(chunks.expected[row, c], (1 - (1 - rate) ** 4).mean())


def test_expert_census_against_loops():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 9, 3))  # expert, token, neuron
    ids = torch.from_numpy(np.stack([rng.permutation(5)[:2] for _ in range(9)]))
    ids[4, 1] = -1
    rows = torch.tensor([0] * 5 + [1] * 4)
    found = neurons.expert_census(lambda e, t: torch.from_numpy(a[e][t.numpy()]), ids, rows, 2, 5, 3, 0.5)
    for row in range(2):
        for expert in range(5):
            at = [t for t in range(9) if rows[t] == row and expert in ids[t].tolist()]
            part = np.abs(a[expert][at]) if at else np.zeros((0, 3))
            assert int(found.tokens[row, expert]) == len(at)
            assert np.array_equal(found.active[row, expert], (part >= 0.5).sum(0))
            assert np.allclose(found.total[row, expert], part.sum(0), atol=1e-6)
            assert np.allclose(found.largest[row, expert], part.max(0, initial=0.0))


def test_recorded_census_of_a_dense_model(bench):
    model = bench("llama")
    prompt = [int(t) for t in np.random.default_rng(0).integers(1, 50, 20)]
    run = model.run(prompt, record=wb.Record(census=True, threshold=0.001))
    a = run.tensor("mlp_act", layers=1).abs()
    rows = model.sql(
        "SELECT rate, tokens, mean, largest FROM neuron_rate WHERE run = ? AND layer = 1 AND expert = -1 ORDER BY neuron",
        [run.id],
    ).fetchall()
    assert np.allclose([r[0] for r in rows], (a >= 0.001).float().mean(0), atol=1e-6)
    assert {r[1] for r in rows} == {20}
    assert np.allclose([r[2] for r in rows], a.mean(0), rtol=1e-4)
    assert np.allclose([r[3] for r in rows], a.amax(0), rtol=1e-4)
    chunks = model.sql(
        "SELECT position, union_share, null_share FROM neuron_chunk WHERE run = ? AND layer = 1 ORDER BY position",
        [run.id],
    )
    found = chunks.fetchall()
    assert [r[0] for r in found] == [0, 8]
    assert np.isclose(found[1][1], float((a[8:16] >= 0.001).any(0).float().mean()))


@pytest.mark.parametrize("family", sorted(SPARSE))
def test_recorded_census_of_experts_of_every_family(bench, family):
    """Biases, transposed weights, interleaved and clamped gates: on the model's kernels, and against what the experts give:
    the down projections of the neurons, weighed, are the output of the bank."""
    try:
        model = bench(build(family), kernels="model")
    except ModelError as error:
        pytest.skip(str(error))
    run = model.run(list(range(1, 15)), record=wb.Record(census=True))
    layer = model.anatomy.moe_layers[0]
    rows = model.sql(
        "SELECT expert, neuron, mean, largest FROM neuron_rate WHERE run = ? AND layer = ? ORDER BY ALL",
        [run.id, layer],
    ).fetchall()
    bank = model.anatomy.layer(layer).moe.experts
    if not hasattr(bank, "_apply_gate"):
        assert not rows
        return
    seen = {}

    def keep(_, args, kwargs, output):
        seen["inputs"], seen["output"] = expert_inputs(args, kwargs), output

    handle = bank.register_forward_hook(keep, with_kwargs=True)
    model.run(list(range(1, 15)), record=None)
    handle.remove()
    hidden, ids, weights = seen["inputs"]
    expected, total = [], torch.zeros_like(seen["output"]).reshape(len(ids), -1)
    for expert in sorted({e for e in ids.flatten().tolist() if 0 <= e < len(bank.down_proj)}):
        token, slot = (ids == expert).nonzero(as_tuple=True)
        up = bank.gate_up_proj if bank.has_gate else bank.up_proj
        bias = (
            (bank.gate_up_proj_bias if bank.has_gate else bank.up_proj_bias)[expert] if bank.has_bias else 0.0
        )
        into = up[expert] if bank.is_transposed else up[expert].T
        made = hidden.reshape(len(ids), -1)[token] @ into + bias
        made = bank._apply_gate(made) if bank.has_gate else bank.act_fn(made)
        down = bank.down_proj[expert] if bank.is_transposed else bank.down_proj[expert].T
        out = made @ down + (bank.down_proj_bias[expert] if bank.has_bias else 0.0)
        if getattr(bank, "has_post_expert_norm", False):
            out = bank.post_expert_norm(out)
        total.index_add_(0, token, out * weights[token, slot, None])
        magnitude = made.abs()
        expected += [
            (expert, n, float(magnitude[:, n].mean()), float(magnitude[:, n].max()))
            for n in range(made.shape[1])
        ]
    assert torch.allclose(total, seen["output"].reshape(len(ids), -1), rtol=1e-3, atol=1e-5), (
        "these are its neurons"
    )
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    np.testing.assert_allclose([row[2:] for row in rows], [row[2:] for row in expected], rtol=1e-4, atol=1e-6)


def test_recorded_census_of_experts(bench):
    model = bench("olmoe", kernels="cpu")
    run = model.run(list(range(1, 15)), record=wb.Record(census=True))
    rows = model.sql(
        "SELECT n.expert, any_value(n.tokens), avg(n.rate), count(*) FROM neuron_rate AS n WHERE n.run = ? AND n.layer = 0 "
        "GROUP BY n.expert ORDER BY n.expert",
        [run.id],
    ).fetchall()
    loads = model.sql(
        "SELECT expert, count(*), avg(1 - below_share) FROM sparsity WHERE run = ? AND layer = 0 GROUP BY ALL ORDER BY ALL",
        [run.id],
    ).fetchall()
    width = model.anatomy.layer(0).mlp.act_width
    assert [(r[0], r[1]) for r in rows] == [(r[0], r[1]) for r in loads]
    assert {r[3] for r in rows} == {width}
    assert np.allclose([r[2] for r in rows], [r[2] for r in loads], atol=1e-5), (
        "the kernel counts the same neurons"
    )
