"""Every macro against the same quantity computed from its formula with numpy and pandas."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workbench.store import Store, check_select
from workbench.store.schema import TABLE_MACROS, macro_docs


def test_every_macro_is_asked_by_a_test():
    folder = Path(__file__).parent
    texts = [
        path.read_text(encoding="utf-8")
        for path in (*folder.glob("test_macros*.py"), folder / "test_blocks.py", folder / "test_pools.py")
    ]
    asked = {name for text in texts for name in re.findall(r"(?<=FROM )\w+|(?<=\x22)\w+", text)}
    assert set(TABLE_MACROS) <= asked


def test_every_macro_says_what_it_answers_its_formula_and_its_source(store):
    docs = macro_docs()
    assert [doc.name for doc in docs if doc.kind == "table"] == list(TABLE_MACROS)
    assert len(TABLE_MACROS) >= 30
    for doc in docs:
        assert doc.answers and doc.formula and doc.source, doc.name
        assert not doc.answers.endswith(",")
    check_select(
        store.cursor(), "SELECT name, formula FROM macros"
    )  # the query box of the panel may list them
    rows = store.sql("FROM macros").df()
    assert list(rows.name) == [doc.name for doc in docs]
    load = rows[rows.name == "expert_load"].iloc[0]
    assert load.arguments == "run, first := false"
    assert load.formula == "load(l, e) = choices(l, e) / sum_e' choices(l, e')."
    assert load.source.startswith("f_i of Switch Transformers")


@pytest.mark.slow
def test_documented_arguments_are_those_of_the_database(store):
    for doc in macro_docs():
        names = [part.split(":=")[0].strip() for part in doc.arguments.split(",")]
        found = store.sql(
            "SELECT parameters FROM duckdb_functions() WHERE function_name = ?", [doc.name]
        ).fetchall()
        assert found == [(names,)]


def choices(rows: pd.DataFrame) -> dict[tuple[int, int, int], set[int]]:
    """Chosen experts by run, position and layer."""
    return {key: set(group) for key, group in rows.groupby(["run", "position", "layer"])["expert"]}


def seen(recording, *, first: bool = False, runs: list[int] | None = None) -> pd.DataFrame:
    rows = recording.routing
    rows = rows[rows.run.isin(runs or recording.runs)]
    return rows if first else rows[rows.position > 0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("first", [False, True])
def test_expert_load(record, seed, first):
    recording = record(seed, tokens=3)
    rows = seen(recording, first=first)
    got = recording.ask("FROM expert_load(?, first := ?)", [recording.runs, first])
    assert list(zip(got.layer, got.expert, strict=True)) == [
        (layer, e) for layer in (1, 2, 5) for e in range(6)
    ]
    for row in got.itertuples():
        layer = rows[rows.layer == row.layer]
        assert row.choices == (layer.expert == row.expert).sum()
        assert row.load == pytest.approx(row.choices / len(layer))
    assert (got.choices == 0).any(), "the recording is small enough to leave experts unused"


def test_expert_load_of_one_run_a_list_and_a_subquery_agree(record):
    recording = record()
    run = recording.runs[1]
    one = recording.ask("FROM expert_load(?)", [run])
    pd.testing.assert_frame_equal(one, recording.ask("FROM expert_load(?)", [[run]]))
    pd.testing.assert_frame_equal(one, recording.ask("FROM expert_load((SELECT max(run) FROM run))"))
    assert recording.ask("FROM expert_load([])").empty


def test_expert_load_without_a_run_row_lists_the_experts_seen(store):
    store.write("routing", {"run": 1, "step": 0, "position": [1, 2], "layer": 0, "slot": 0, "expert": [7, 3],
                            "weight": 1.0, "rank": 0})  # fmt: skip
    store.flush()
    assert store.sql("SELECT expert, choices FROM expert_load(1)").fetchall() == [(3, 1), (7, 1)]


def test_load_balance(record):
    recording = record(1)
    got = recording.ask("FROM load_balance(?)", [recording.runs])
    rows = seen(recording)
    for row in got.itertuples():
        counts = np.bincount(rows[rows.layer == row.layer].expert, minlength=6)
        p = counts / counts.sum()
        entropy = -np.sum(p[p > 0] * np.log(p[p > 0]))
        assert (row.experts, row.unused) == (6, (counts == 0).sum())
        np.testing.assert_allclose(
            [row.entropy, row.effective, row.imbalance], [entropy, np.exp(entropy), p.max() * 6]
        )


def test_routing_entropy(store):
    rng = np.random.default_rng(3)
    n = 40
    frame = pd.DataFrame({"run": rng.integers(1, 3, n), "position": rng.integers(0, 5, n), "layer": rng.integers(0, 3, n),
                          "margin": rng.random(n), "entropy": rng.random(n), "tie": rng.random(n) < 0.3})  # fmt: skip
    store.write(
        "router", {"step": 0, "edited": False, "dropped": 0, **{c: frame[c].to_numpy() for c in frame}}
    )
    store.flush()
    got = store.sql("FROM routing_entropy([1, 2])").df().set_index("layer")
    want = frame[frame.position > 0].groupby("layer")
    np.testing.assert_allclose(got.entropy, want.entropy.mean(), rtol=1e-6)
    np.testing.assert_allclose(got.margin, want.margin.mean(), rtol=1e-6)
    np.testing.assert_allclose(got.ties, want.tie.mean())
    assert list(got.tokens) == list(want.size())


@pytest.mark.parametrize("k", [1, 2, 4])
def test_coactivation(record, k):
    recording = record(2, k=k)
    got = recording.ask("FROM coactivation(?)", [recording.runs])
    pairs: Counter[tuple[int, int, int]] = Counter()
    single: Counter[tuple[int, int]] = Counter()
    tokens: Counter[int] = Counter()
    for (_, _, layer), chosen in choices(seen(recording)).items():
        tokens[layer] += 1
        single.update((layer, e) for e in chosen)
        pairs.update((layer, a, b) for a, b in combinations(sorted(chosen), 2))
    assert {(r.layer, r.expert, r.other): r.tokens for r in got.itertuples()} == dict(pairs)
    for r in got.itertuples():
        a, b, n = single[r.layer, r.expert], single[r.layer, r.other], tokens[r.layer]
        np.testing.assert_allclose(
            [r.probability, r.lift, r.jaccard],
            [r.tokens / n, r.tokens * n / (a * b), r.tokens / (a + b - r.tokens)],
        )


def test_expert_affinity_joins_a_layer_to_the_next_routed_one(record):
    recording = record(4)
    got = recording.ask("FROM expert_affinity(?)", [recording.runs])
    chosen = choices(seen(recording))
    count: Counter[tuple[int, int, int, int]] = Counter()
    single: Counter[tuple[int, int]] = Counter()
    following = {1: 2, 2: 5}
    for (run, position, layer), experts in chosen.items():
        single.update((layer, e) for e in experts)
        if layer in following:
            after = following[layer]
            count.update((layer, after, a, b) for a in experts for b in chosen[run, position, after])
    assert {(r.layer, r.next_layer, r.expert, r.next_expert): r.tokens for r in got.itertuples()} == dict(
        count
    )
    np.testing.assert_allclose(
        got.probability, [r.tokens / single[r.layer, r.expert] for r in got.itertuples()]
    )


def test_specialisation_and_label_information(record):
    recording = record(5, runs=3)
    recording.store.write("run", {"run": [999], "labels": None})
    recording.store.flush()
    got = recording.ask("FROM specialisation(?, 'language')", [[*recording.runs, 999]])
    rows = seen(recording).assign(label=lambda r: np.where(r.run % 2, "en", "fr"))
    information = recording.ask("FROM label_information(?, 'language')", [recording.runs]).set_index("layer")
    for layer, group in rows.groupby("layer"):
        joint = pd.crosstab(group.expert, group.label).to_numpy().astype(float)
        table = got[got.layer == layer].pivot(index="expert", columns="label").fillna(0)
        np.testing.assert_array_equal(table["choices"], joint)
        np.testing.assert_allclose(table["load"], joint / joint.sum(0))
        np.testing.assert_allclose(table["share"], joint / joint.sum(1, keepdims=True))
        outer = joint.sum(1, keepdims=True) * joint.sum(0)
        np.testing.assert_allclose(table["lift"], joint * joint.sum() / outer)
        p = joint / joint.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            mutual = np.nansum(p * np.log(p / (p.sum(1, keepdims=True) * p.sum(0))))
        pe = p.sum(1)
        np.testing.assert_allclose(information.information[layer], mutual, atol=1e-12)
        np.testing.assert_allclose(information.entropy[layer], -np.sum(pe * np.log(pe)))
        np.testing.assert_allclose(information.share[layer], mutual / -np.sum(pe * np.log(pe)))
        assert information.choices[layer] == joint.sum()


def two_runs(store: Store, seed: int) -> dict[str, object]:
    """Two runs that share 5 of 8 tokens, whose choices differ now and then, with ties and edits."""
    rng = np.random.default_rng(seed)
    tokens = {1: [3, 1, 4, 1, 5, 9, 2, 6], 2: [3, 1, 4, 1, 5, 8, 2, 6]}
    chosen: dict[tuple[int, int, int], list[int]] = {}
    state: dict[tuple[int, int, int], tuple[float, bool, bool]] = {}
    for run, ids in tokens.items():
        store.write("token", {"run": run, "step": 0, "position": list(range(8)), "token": ids,
                              "text": [f" {t}" for t in ids], "part": "prompt"})  # fmt: skip
        for position in range(8):
            for layer in (0, 3):
                experts = [int(e) for e in rng.permutation(4)[:2]]
                margin, tie, edited = (
                    float(np.float32(rng.random())),
                    rng.random() < 0.2,
                    run == 2 and rng.random() < 0.3,
                )
                chosen[run, position, layer] = experts
                state[run, position, layer] = (margin, bool(tie), bool(edited))
                store.write("routing", {"run": run, "step": 0, "position": position, "layer": layer, "slot": [0, 1],
                                        "expert": experts, "weight": [0.7, 0.3], "rank": [0, 1]})  # fmt: skip
                store.write("router", {"run": run, "step": 0, "position": position, "layer": layer, "margin": margin,
                                       "tie": tie, "edited": edited})  # fmt: skip
    store.flush()
    return {"chosen": chosen, "state": state}


def expected_flips(facts: dict, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], tuple]:
    chosen, state = facts["chosen"], facts["state"]
    flips = {}
    for before, after in pairs:
        for layer in (0, 3):
            a, b = (1, before, layer), (2, after, layer)
            if set(chosen[a]) != set(chosen[b]):
                cause = "edit" if state[b][2] else "tie" if state[a][1] or state[b][1] else "upstream"
                flips[after, layer] = (chosen[a], chosen[b], state[a][0], state[b][0], cause)
    return flips


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_flips_and_shared_prefix(store, seed):
    facts = two_runs(store, seed)
    assert [row[0] for row in store.sql("FROM shared_prefix(1, 2)").fetchall()] == [0, 1, 2, 3, 4]
    want = expected_flips(facts, [(p, p) for p in range(5)])
    got = store.sql("FROM flips(1, 2)").fetchall()
    assert {(p, layer): tuple(rest) for p, layer, *rest in got} == want
    assert want, "the recording has flips"
    assert {row[-1] for row in got} <= {"edit", "tie", "upstream"}
    assert store.sql("FROM flips(1, 1)").fetchall() == []


def test_flips_aligned_compares_the_positions_it_is_given(store):
    facts = two_runs(store, 7)
    for base, run in (([6, 2], [7, 0]), ([6, 6, 2], [7, 0, 3])):  # one position may stand for several
        got = store.sql("FROM flips_aligned(1, 2, ?, ?)", [base, run]).fetchall()
        pairs = list(zip(base, run, strict=True))
        assert {(p, layer): tuple(rest[:-2]) for p, layer, *rest in got} == expected_flips(facts, pairs)
        assert {(row[0], row[-1]) for row in got} <= {(after, before) for before, after in pairs}


def test_flips_ignore_the_order_of_a_choice(store):
    for run, experts in ((1, [4, 2]), (2, [2, 4])):
        store.write("token", {"run": run, "step": 0, "position": 0, "token": 9})
        store.write("routing", {"run": run, "step": 0, "position": 0, "layer": 0, "slot": [0, 1], "expert": experts,
                                "weight": [0.7, 0.3], "rank": [0, 1]})  # fmt: skip
    store.flush()
    assert store.sql("FROM flips(1, 2)").fetchall() == []


def test_layer_contribution(store):
    rng = np.random.default_rng(0)
    names = ["attn_norm", "attn_cos", "mlp_norm", "mlp_cos", "block_norm", "influence"]
    frame = pd.DataFrame(rng.random((30, 6)).astype(np.float32), columns=names)
    frame["layer"], frame["position"] = np.arange(30) % 3, np.arange(30) // 3
    store.write("contribution", {"run": 4, "step": 0, **{c: frame[c].to_numpy() for c in frame}})
    store.flush()
    for first in (False, True):
        want = (frame if first else frame[frame.position > 0]).groupby("layer")[names].mean()
        got = store.sql("FROM layer_contribution(4, first := ?)", [first]).df().set_index("layer")
        np.testing.assert_allclose(got[names], want, rtol=1e-6)
        assert list(got.tokens) == [10 if first else 9] * 3


def test_arank_profile(store):
    rng = np.random.default_rng(1)
    n = 24
    frame = pd.DataFrame({"layer": np.arange(n) % 2, "head": np.arange(n) // 2, "tokens": rng.integers(4, 9, n),
                          "submatrix": np.where(np.arange(n) % 3, "full", "sampled"), "tolerance": 0.01,
                          "rank": rng.integers(1, 4, n), "stable_rank": rng.random(n), "effective_rank": rng.random(n),
                          "entropy": rng.random(n)})  # fmt: skip
    store.write("attention_rank", {"run": 4, "step": 0, "method": "svd", "dtype": "float64",
                                   **{c: frame[c].to_numpy() for c in frame}})  # fmt: skip
    store.flush()
    got = store.sql("FROM arank_profile(4)").df().set_index(["layer", "submatrix"])
    frame["share"] = frame["rank"] / frame.tokens
    names = ["tokens", "rank", "share", "stable_rank", "effective_rank", "entropy"]
    want = frame.groupby(["layer", "submatrix"])[names].mean()
    np.testing.assert_allclose(got[names].sort_index(), want, rtol=1e-6)
    assert got.maps.sum() == n


def test_layer_and_expert_sparsity(store):
    rng = np.random.default_rng(2)
    n = 40
    frame = pd.DataFrame({"position": np.arange(n) // 4, "layer": np.arange(n) % 2, "expert": rng.integers(-1, 3, n),
                          "width": rng.integers(8, 65, n), "zero_share": rng.random(n), "below_share": rng.random(n),
                          "hoyer": rng.random(n)})  # fmt: skip
    store.write(
        "sparsity", {"run": 4, "step": 0, "threshold": 0.5, **{c: frame[c].to_numpy() for c in frame}}
    )
    store.flush()
    kept = frame[frame.position > 0]
    for macro, keys in (("layer_sparsity", ["layer"]), ("expert_sparsity", ["layer", "expert"])):
        got = store.sql(f"FROM {macro}(4)").df().set_index(keys).sort_index()
        for key, group in kept.groupby(keys):
            row = got.loc[key if len(keys) > 1 else key[0]]
            np.testing.assert_allclose(
                row.zero_share, np.average(group.zero_share, weights=group.width), rtol=1e-6
            )
            np.testing.assert_allclose(
                row.below_share, np.average(group.below_share, weights=group.width), rtol=1e-6
            )
            np.testing.assert_allclose(row.hoyer, group.hoyer.mean(), rtol=1e-6)
            assert row.activations == len(group)


@pytest.mark.parametrize("first", [False, True])
def test_chunk_sparsity(record, first):
    recording = record(6, tokens=18)
    chunk = 4
    got = recording.ask("FROM chunk_sparsity(?, ?, first := ?)", [recording.runs, chunk, first]).set_index(
        "layer"
    )
    start = 0 if first else 1
    chosen = choices(seen(recording, first=first))
    for layer in recording.layers:
        unions = []
        for run in recording.runs:
            for low in range(start, 18 - chunk + 1, chunk):
                unions.append(len(set().union(*(chosen[run, p, layer] for p in range(low, low + chunk)))))
        picked = [experts for (_, _, at), experts in chosen.items() if at == layer]
        p = np.array([np.mean([e in experts for experts in picked]) for e in range(6)])
        row = got.loc[layer]
        assert row.chunks == len(unions)
        np.testing.assert_allclose(row.union_share, np.mean(unions) / 6)
        np.testing.assert_allclose(row.null_share, np.mean(1 - (1 - p) ** chunk))
        np.testing.assert_allclose(row.sparsity, 1 - np.mean(unions) / 6)


def test_saliency_counts_only_rows_with_a_norm(record):
    recording = record(7)
    recording.store.write("routing", {"run": recording.runs[0], "step": 1, "position": 50, "layer": 1, "slot": 0,
                                      "expert": 0, "weight": 5.0, "rank": 0, "norm": None})  # fmt: skip
    recording.store.flush()
    got = recording.ask("FROM saliency(?)", [recording.runs]).set_index(["layer", "expert"])
    rows = (
        seen(recording).astype({"weight": float, "norm": float}).assign(product=lambda r: r.weight * r.norm)
    )
    want = rows.groupby(["layer", "expert"]).agg(
        tokens=("weight", "size"), weight_sum=("weight", "sum"), norm_sum=("norm", "sum"),
        weighted_norm_sum=("product", "sum"), saliency=("product", "mean"),
    )  # fmt: skip
    np.testing.assert_allclose(got[list(want)], want, rtol=1e-9)


def test_route_repetition(record):
    recording = record(8)
    rows = seen(recording)
    top = {(r.run, r.position, r.layer): r.expert for r in rows[rows["rank"] == 0].itertuples()}
    chosen = choices(rows)
    got = recording.ask("FROM route_repetition(?)", [recording.runs]).set_index("layer")
    for layer in recording.layers:
        keys = [(run, p) for run, p, at in top if at == layer and (run, p - 1, layer) in top]
        assert got.tokens[layer] == len(keys)
        same = [top[run, p, layer] == top[run, p - 1, layer] for run, p in keys]
        overlap = [bool(chosen[run, p, layer] & chosen[run, p - 1, layer]) for run, p in keys]
        share = np.bincount([e for (_, _, at), e in top.items() if at == layer])
        np.testing.assert_allclose(got.first_choice[layer], np.mean(same))
        np.testing.assert_allclose(got.overlap[layer], np.mean(overlap))
        np.testing.assert_allclose(got.expected[layer], np.sum((share / share.sum()) ** 2))


def test_routing_map(record):
    recording = record(9, k=3)
    run = recording.runs[0]
    recording.store.write("router", {"run": run, "step": 0, "position": 4, "layer": 2, "margin": 0.25, "entropy": 1.5,
                                     "tie": False, "edited": True, "native": [[1, 2, 3]]})  # fmt: skip
    recording.store.flush()
    got = recording.ask("FROM routing_map(?)", [run])
    assert len(got) == 17 * 3
    for row in got.itertuples():
        rows = recording.routing.query("run == @run and position == @row.position and layer == @row.layer")
        assert list(row.experts) == list(rows.expert)
        assert list(row.weights) == list(rows.weight)
        assert row.top == rows.expert[rows.weight.idxmax()]
    marked = got[(got.position == 4) & (got.layer == 2)].iloc[0]
    assert (marked.margin, marked.entropy, bool(marked.edited), list(marked.native)) == (
        0.25,
        1.5,
        True,
        [1, 2, 3],
    )
    assert got.margin.isna().sum() == 17 * 3 - 1


def test_routing_map_and_cell_show_the_last_step_a_position_was_computed_in(store):
    for step, expert in ((0, 3), (2, 5)):
        store.write("routing", {"run": 1, "step": step, "position": 6, "layer": 0, "slot": 0, "expert": expert,
                                "weight": 1.0, "rank": 0})  # fmt: skip
    store.flush()
    assert store.sql("SELECT step, top, experts FROM routing_map(1)").fetchall() == [(2, 5, [5])]
    assert store.sql("SELECT expert FROM cell(1, 0, 6)").fetchall() == [(5,)]


def test_cell_lists_every_scored_expert_with_its_native_choice(store):
    store.write("routing", {"run": 1, "step": 0, "position": 6, "layer": 0, "slot": [0, 1], "expert": [3, 0],
                            "weight": [0.25, 0.75], "rank": [1, 0], "norm": [2.0, 4.0]})  # fmt: skip
    store.write("router", {"run": 1, "step": 0, "position": 6, "layer": 0, "margin": 0.5, "entropy": 1.0, "tie": False,
                           "edited": True, "native": [[3, 2]], "native_weights": [[0.5, 0.5]]})  # fmt: skip
    store.flush()
    columns = "expert, chosen, slot, rank, weight, native, native_weight, score, logit, edited"
    assert store.sql(f"SELECT {columns} FROM cell(1, 0, 6)").fetchall() == [
        (3, True, 0, 1, 0.25, True, 0.5, None, None, True),
        (0, True, 1, 0, 0.75, False, None, None, None, True),
        (2, False, None, None, None, True, 0.5, None, None, True),
    ]
    store.write("router_scores", {"run": 1, "step": 0, "position": 6, "layer": 0, "scores": [[0.1, 0.2, 0.3, 0.4]],
                                  "logits": [[1.0, 2.0, 3.0, 4.0]]})  # fmt: skip
    store.flush()
    got = store.sql("SELECT expert, score, logit, margin FROM cell(1, 0, 6)").fetchall()
    assert [row[0] for row in got] == [3, 0, 2, 1]
    assert got[-1] == (1, pytest.approx(0.2), 2.0, 0.5)
