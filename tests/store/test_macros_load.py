"""Macros of balance, weight, position and norms against numpy, scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy

LAYERS = [1, 2, 5]


def kept(recording, first: bool = False) -> pd.DataFrame:
    rows = recording.routing.astype({"weight": float, "norm": float})
    return rows if first else rows[rows.position > 0]


def gini(values: np.ndarray) -> float:
    """By its definition: mean absolute difference over twice the mean."""
    return float(np.abs(values[:, None] - values[None]).mean() / (2 * values.mean()))


@pytest.mark.parametrize("seed", range(3))
def test_measures_of_balance(record, seed):
    recording = record(seed, tokens=6)
    got = recording.ask("FROM load_balance(?)", [recording.runs]).set_index("layer")
    for layer, rows in kept(recording).groupby("layer"):
        p = np.bincount(rows.expert, minlength=6) / len(rows)
        row = got.loc[layer]
        np.testing.assert_allclose(
            [row.cv, row.max_violation, row.gini], [p.std() / p.mean(), p.max() / p.mean() - 1, gini(p)]
        )


def test_an_even_load_has_no_imbalance(store):
    store.write("routing", {"run": 1, "step": 0, "position": [1, 2, 3, 4], "layer": 0, "slot": 0, "expert": [0, 1, 2, 3],
                            "weight": 1.0, "rank": 0})  # fmt: skip
    store.flush()
    row = store.sql("FROM load_balance(1)").df().iloc[0]
    np.testing.assert_allclose([row.cv, row.max_violation, row.gini, row.effective], [0, 0, 0, 4], atol=1e-15)


def test_expert_importance(record):
    recording = record(3, tokens=3)
    got = recording.ask("FROM expert_importance(?)", [recording.runs])
    rows = kept(recording)
    assert len(got) == 18 and (got.importance == 0).any()
    for row in got.itertuples():
        layer = rows[rows.layer == row.layer]
        mine = layer[layer.expert == row.expert].weight
        np.testing.assert_allclose([row.importance, row.share], [mine.sum(), mine.sum() / layer.weight.sum()])
        assert np.isnan(row.weight) if mine.empty else row.weight == pytest.approx(mine.mean())


@pytest.mark.parametrize("k", [1, 3])
def test_weight_profile_and_dataset_entropy(record, k):
    recording = record(4, k=k)
    rows = kept(recording)
    rows["w"] = rows.weight / rows.groupby(["run", "position", "layer"]).weight.transform("sum")
    profile = recording.ask("FROM weight_profile(?)", [recording.runs]).set_index(["layer", "rank"])
    want = rows.groupby(["layer", "rank"]).agg(weight=("weight", "mean"), share=("w", "mean"))
    np.testing.assert_allclose(profile[["weight", "share"]], want)
    got = recording.ask("FROM dataset_entropy(?)", [recording.runs]).set_index("layer")
    for layer, group in rows.groupby("layer"):
        vectors = group.pivot_table(
            index=["run", "position"], columns="expert", values="w", fill_value=0
        ).to_numpy()
        token, dataset = entropy(vectors, axis=1).mean(), entropy(vectors.mean(0))
        row = got.loc[layer]
        assert row.tokens == len(vectors)
        np.testing.assert_allclose(
            [row.token_entropy, row.dataset_entropy, row.information],
            [token, dataset, dataset - token],
            atol=1e-12,
        )


@pytest.mark.parametrize("first", [False, True])
def test_position_effect(record, first):
    recording = record(5)
    got = recording.ask("FROM position_effect(?, width := 5, first := ?)", [recording.runs, first])
    rows = kept(recording, first)
    assert len(got) == 3 * 4
    for row in got.itertuples():
        layer = rows[rows.layer == row.layer]
        part = layer[layer.position // 5 * 5 == row.from_position]
        p, q = (np.bincount(r.expert, minlength=6) / len(r) for r in (part, layer))
        assert row.choices == len(part)
        np.testing.assert_allclose(
            [row.entropy, row.divergence], [entropy(p), jensenshannon(p, q) ** 2], atol=1e-12
        )


def test_drops_by_position(store):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"run": np.repeat([1, 2], 40), "position": np.tile(np.arange(20), 4),
                          "layer": np.tile(np.repeat([0, 1], 20), 2), "dropped": rng.integers(0, 3, 80)})  # fmt: skip
    store.write("router", {"step": 0, **{name: frame[name].to_numpy() for name in frame}})
    store.write("router", {"run": 1, "step": 1, "position": 30, "layer": 0, "dropped": None})
    store.write("run", {"run": [1, 2], "top_k": [2, 4]})
    store.flush()
    got = store.sql("FROM drops_by_position([1, 2], width := 8)").df()
    assert list(zip(got.layer, got.from_position, strict=True)) == [
        (lay, at) for lay in (0, 1) for at in (0, 8, 16)
    ]
    for row in got.itertuples():
        part = frame.query("position > 0 and layer == @row.layer and position // 8 * 8 == @row.from_position")
        assert (row.tokens, row.dropped) == (len(part), part.dropped.sum())
        slots = part.run.map({1: 2, 2: 4}).sum()
        np.testing.assert_allclose(
            [row.share, row.touched], [part.dropped.sum() / slots, (part.dropped > 0).mean()]
        )


def test_norm_rank(record):
    recording = record(6, k=3)
    rows = kept(recording)
    rows["place"] = rows.groupby(["run", "position", "layer"]).norm.rank(ascending=False).astype(int) - 1
    rows["same"] = rows.place == rows["rank"]
    want = rows.groupby(["layer", "rank"])[["norm", "place", "same"]].mean()
    got = recording.ask("FROM norm_rank(?)", [recording.runs]).set_index(["layer", "rank"])
    np.testing.assert_allclose(got[["norm", "place", "agreement"]], want)


def test_saliency_has_the_frequency(record):
    recording = record(7)
    got = recording.ask("FROM saliency(?)", [recording.runs])
    rows = kept(recording)
    want = rows.groupby(["layer", "expert"]).size() / rows.groupby("layer").size()
    np.testing.assert_allclose(got.frequency, want)


def test_reap(record):
    recording = record(8)
    rng = np.random.default_rng(1)
    run = recording.runs[0]
    cells = [(position, layer) for position in range(17) for layer in LAYERS]
    logits = rng.normal(size=(len(cells), 6)).astype(np.float32)
    recording.store.write("router_scores", {"run": run, "step": 0, "position": [p for p, _ in cells],
                                            "layer": [lay for _, lay in cells], "logits": list(logits)})  # fmt: skip
    recording.store.flush()
    p = dict(zip(cells, softmax(logits.astype(float), axis=1), strict=True))
    rows = kept(recording).query("run == @run").copy()
    rows["p"] = [p[r.position, r.layer][r.expert] for r in rows.itertuples()]
    rows["saliency"] = rows.p * rows.norm
    want = rows.groupby(["layer", "expert"]).agg(tokens=("p", "size"), probability=("p", "mean"), norm=("norm", "mean"),
                                                 saliency=("saliency", "mean"))  # fmt: skip
    got = recording.ask("FROM reap(?)", [recording.runs]).set_index(["layer", "expert"])
    np.testing.assert_allclose(got[list(want)], want, rtol=1e-6)


def test_neuron_summary(store):
    rng = np.random.default_rng(2)
    rates = np.clip(rng.normal(0.5, 0.5, (2, 2, 40)), 0, 1).astype(np.float32)  # run, expert, neuron
    for run in (0, 1):
        for place, expert in enumerate((-1, 3)):
            store.write("neuron_rate", {"run": run, "layer": 2, "expert": expert, "neuron": np.arange(40),
                                        "rate": rates[run, place]})  # fmt: skip
    store.flush()
    got = store.sql("FROM neuron_summary([0, 1])").df()
    for place, row in enumerate(got.itertuples()):
        r = rates[:, place].astype(float).mean(0)
        np.testing.assert_allclose(
            [row.neurons, row.dead, row.constant, row.mean, row.median, row.gini],
            [40, (r == 0).mean(), (r == 1).mean(), r.mean(), np.median(r), gini(r)],
            atol=1e-9,
        )
    assert list(got.expert) == [-1, 3] and (got.dead > 0).any()
