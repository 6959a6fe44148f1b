"""Macros of paths, prediction and depth against numpy and scikit-learn."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

LAYERS = [1, 2, 5]


def tops(recording) -> pd.DataFrame:
    """Best expert by token (rows) and layer (columns)."""
    rows = recording.routing.query("position > 0 and rank == 0")
    return rows.pivot(index=["run", "position"], columns="layer", values="expert")


def test_path_counts_and_summary(record):
    recording = record(0, runs=6, experts=3)
    # A token that misses a layer is no path.
    recording.store.write("routing", {"run": recording.runs[0], "step": 0, "position": 90, "layer": 1, "slot": 0,
                                      "expert": 0, "weight": 1.0, "rank": 0})  # fmt: skip
    recording.store.flush()
    table = tops(recording)
    counted = Counter(map(tuple, table.to_numpy()))
    got = recording.ask("FROM path_counts(?)", [recording.runs])
    assert {tuple(row.path): row.tokens for row in got.itertuples()} == dict(counted)
    marginal = {layer: table[layer].value_counts(normalize=True) for layer in LAYERS}
    for row in got.itertuples():
        expected = np.prod([marginal[layer][e] for layer, e in zip(LAYERS, row.path, strict=True)])
        np.testing.assert_allclose([row.share, row.expected, row.lift],
                                   [row.tokens / len(table), expected, row.tokens / len(table) / expected])  # fmt: skip
    summary = recording.ask("FROM path_summary(?)", [recording.runs]).iloc[0]
    h = entropy(list(counted.values()))
    independent = sum(entropy(m) for m in marginal.values())
    np.testing.assert_allclose(
        [
            summary.tokens,
            summary.paths,
            summary.entropy,
            summary.effective,
            summary.independent,
            summary.correlation,
        ],
        [len(table), len(counted), h, np.exp(h), independent, independent - h],
    )
    assert recording.ask("FROM path_summary([])").empty


def test_layer_information(record):
    recording = record(1, runs=4)
    table = tops(recording)
    got = recording.ask("FROM layer_information(?)", [recording.runs])
    assert list(zip(got.layer, got.other, strict=True)) == [(1, 2), (1, 5), (2, 5)]
    for row in got.itertuples():
        mutual = mutual_info_score(table[row.layer], table[row.other])
        least = min(entropy(np.bincount(table[layer])) for layer in (row.layer, row.other))
        np.testing.assert_allclose([row.information, row.share], [mutual, mutual / least])
        assert row.tokens == len(table)


def test_lookahead(record):
    recording = record(2, runs=5, k=2)
    rows = recording.routing.query("position > 0")
    chosen = {key: set(group) for key, group in rows.groupby(["run", "position", "layer"]).expert}
    best = tops(recording)
    got = recording.ask("FROM lookahead(?)", [recording.runs]).set_index("layer")
    assert list(got.index) == [1, 2]
    for layer, after in ((1, 2), (2, 5)):
        seen: dict[int, Counter[int]] = defaultdict(Counter)
        popular: Counter[int] = Counter()
        for (run, position), top in best[layer].items():
            if position % 2 == 0:
                seen[top].update(chosen[run, position, after])
                popular.update(chosen[run, position, after])

        def most(counter: Counter[int]) -> set[int]:
            return set(sorted(counter, key=lambda e: (-counter[e], e))[:2])

        recall, baseline = [], []
        for (run, position), top in best[layer].items():
            if position % 2:
                recall.append(len(most(seen[top]) & chosen[run, position, after]) / 2)
                baseline.append(len(most(popular) & chosen[run, position, after]) / 2)
        row = got.loc[layer]
        np.testing.assert_allclose([row.tokens, row.recall, row.baseline],
                                   [len(recall), np.mean(recall), np.mean(baseline)])  # fmt: skip


def test_lookahead_is_perfect_where_the_next_layer_repeats_the_last(store):
    experts = np.random.default_rng(0).integers(0, 4, 200)
    for layer in (0, 3):
        store.write("routing", {"run": 1, "step": 0, "position": np.arange(200), "layer": layer, "slot": 0,
                                "expert": experts, "weight": 1.0, "rank": 0})  # fmt: skip
    store.flush()
    row = store.sql("FROM lookahead(1)").df().iloc[0]
    assert row.recall == 1 and row.baseline < 0.5


def test_depth_score_and_skip_effect(store):
    rng = np.random.default_rng(3)
    names = ["attn_norm", "mlp_norm", "block_norm", "influence"]
    cells = [(position, layer) for position in range(6) for layer in range(4)]
    values = rng.random((2, len(cells), 4)).astype(np.float32)
    for run in (0, 1):
        store.write("contribution", {"run": run + 1, "step": 0, "position": [p for p, _ in cells],
                                     "layer": [lay for _, lay in cells],
                                     **{n: values[run, :, i] for i, n in enumerate(names)}})  # fmt: skip
    store.write(
        "depth",
        {"run": 2, "step": 0, "position": [1, 2], "layer": 2, "unit": "block", "event": ["skip", "execute"]},
    )
    store.write("token", {"run": 2, "step": 0, "position": list(range(6)), "token": 1})
    store.flush()
    cube = values.astype(float).reshape(2, 6, 4, 4)[:, 1:]  # run, position, layer, name
    got = store.sql("FROM depth_score([1, 2])").df()
    for row in got.itertuples():
        means = cube[row.run - 1].mean(0)
        want = (np.arange(4)[:, None] * means).sum(0) / means.sum(0)
        np.testing.assert_allclose([row.attn, row.mlp, row.block, row.influence], want)
    effect = store.sql("FROM skip_effect(1, 2)").df()
    change = cube[1] - cube[0]
    np.testing.assert_allclose(effect.block_norm, change[..., 2].mean(0))
    np.testing.assert_allclose(effect.influence, change[..., 3].mean(0))
    np.testing.assert_allclose(effect.largest, (np.abs(change[..., 2]) / cube[0][..., 2]).max(0))
    assert list(effect.skipped) == [False, False, True, False] and list(effect.tokens) == [5] * 4
    assert store.sql("FROM depth_events(2)").fetchall() == [
        (2, "block", "execute", 1, 0.2),
        (2, "block", "skip", 1, 0.2),
    ]


def test_step_cost(store):
    store.write(
        "cost",
        {
            "run": 1,
            "step": [0, 1, 0],
            "layer": [3, 3, 3],
            "op": ["moe", "moe", "attn"],
            "backend": "cpu",
            "flops": [8.0, 2.0, 6.0],
            "bytes": 4.0,
            "seconds": [1.0, 2.0, 1.0],
            "executed": 5,
            "skipped": 1,
        },
    )
    store.write("cost", {"run": 1, "step": 0, "layer": None, "op": "forward", "seconds": 9.0})
    store.flush()
    columns = "layer, op, calls, seconds, share, flops, rate, executed, skipped"
    assert store.sql(f"SELECT {columns} FROM step_cost(1)").fetchall() == [
        (None, "forward", 1, 9.0, 1.0, None, None, None, None),
        (3, "attn", 1, 1.0, 0.25, 6.0, 6.0, 5, 1),
        (3, "moe", 2, 3.0, 0.75, 10.0, 10 / 3, 10, 2),
    ]
