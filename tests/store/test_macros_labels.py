"""Macros over labels, vocabulary and pairs of runs against numpy, hashlib, scipy and scikit-learn."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, hypergeom
from sklearn.metrics import mutual_info_score


def digest(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def kept(recording) -> pd.DataFrame:
    return recording.routing[recording.routing.position > 0]


def write_tokens(recording, seed: int = 0, ids: int = 4) -> dict[tuple[int, int], int]:
    rng = np.random.default_rng(seed)
    tokens = {(run, position): int(rng.integers(ids)) for run in recording.runs for position in range(17)}
    recording.store.write("token", {"run": [r for r, _ in tokens], "step": 0, "position": [p for _, p in tokens],
                                    "token": list(tokens.values()), "text": [f" {t}" for t in tokens.values()]})  # fmt: skip
    recording.store.flush()
    return tokens


@pytest.fixture
def three(record):
    """Six runs under three languages, one without a label, whose loads differ by language."""
    recording = record(0, runs=6)
    recording.store.cursor().execute("DELETE FROM run")
    labels = {101: "en", 102: "fr", 103: "de", 104: "en", 105: "fr", 106: None}
    recording.store.write("run", {"run": list(labels), "num_experts": 6,
                                  "labels": [{"language": v} if v else {} for v in labels.values()]})  # fmt: skip
    recording.store.flush()
    recording.labels = {run: label for run, label in labels.items() if label}
    return recording


def test_group_divergence(three):
    got = three.ask("FROM group_divergence(?, 'language')", [three.runs])
    rows = kept(three).assign(label=lambda r: r.run.map(three.labels)).dropna()
    assert len(got) == 9
    for row in got.itertuples():
        loads = [np.bincount(rows[(rows.layer == row.layer) & (rows.label == label)].expert, minlength=6)
                 for label in (row.label, row.other)]  # fmt: skip
        assert row.label < row.other
        assert row.divergence == pytest.approx(jensenshannon(*loads) ** 2)


def test_disjoint_loads_diverge_by_ln_2(store):
    store.write("run", {"run": [1, 2], "labels": [{"l": "a"}, {"l": "b"}]})
    store.write("routing", {"run": [1, 2], "step": 0, "position": 1, "layer": 0, "slot": 0, "expert": [3, 5],
                            "weight": 1.0, "rank": 0})  # fmt: skip
    store.flush()
    assert store.sql("SELECT divergence FROM group_divergence([1, 2], 'l')").fetchone()[0] == pytest.approx(
        np.log(2)
    )
    assert store.sql("SELECT divergence FROM load_divergence(1, 2)").fetchone()[0] == pytest.approx(np.log(2))


def test_risk_difference(three):
    got = three.ask("FROM risk_difference(?, 'language', 'en', 'de')", [three.runs])
    rows = kept(three).assign(label=lambda r: r.run.map(three.labels))
    for row in got.itertuples():
        at = rows[rows.layer == row.layer]
        rates = []
        for label in ("en", "de"):
            part = at[at.label == label]
            tokens = part.groupby(["run", "position"]).expert.apply(set)
            rates.append(np.mean([row.expert in chosen for chosen in tokens]))
        np.testing.assert_allclose([row.rate, row.other_rate, row.difference], [*rates, rates[0] - rates[1]])
    assert got.difference.is_monotonic_decreasing and len(got) == 18


def test_label_null_deals_the_labels_among_the_runs(three):
    shuffles = 19
    got = three.ask("FROM label_null(?, 'language', shuffles := ?)", [three.runs, shuffles])
    rows = kept(three)
    runs = sorted(three.labels)
    for row in got.itertuples():
        at = rows[(rows.layer == row.layer) & rows.run.isin(runs)]
        observed = mutual_info_score(at.expert, at.run.map(three.labels))
        null = []
        for deal in range(1, shuffles + 1):
            order = sorted(runs, key=lambda run, deal=deal: digest(f"{run}:{deal}"))
            dealt = dict(zip(runs, [three.labels[run] for run in order], strict=True))
            null.append(mutual_info_score(at.expert, at.run.map(dealt)))
        p = (1 + sum(v >= observed - 1e-12 for v in null)) / (1 + shuffles)
        np.testing.assert_allclose([row.information, row.null_mean, row.null_sd, row.p_value, row.shuffles],
                                   [observed, np.mean(null), np.std(null), p, shuffles], rtol=1e-9)  # fmt: skip
    plain = three.ask("FROM label_information(?, 'language')", [three.runs])
    np.testing.assert_allclose(got.information, plain.information)


def conditional(experts: pd.Series, ids: pd.Series) -> float:
    return float(
        sum(len(g) * entropy(np.bincount(g)) for _, g in experts.groupby(ids.to_numpy())) / len(experts)
    )


def expected_null(experts: pd.Series, keys: list, tokens: dict) -> float:
    """H(expert | id) where the ids are dealt anew, as expected: term by term of the hypergeometric distribution."""
    places = sorted(set(keys))
    k = len(experts) / len(places)
    total = 0.0
    for n in np.bincount([tokens[place] for place in places]):
        if n:
            total -= n * k * np.log(n * k)
            for held in np.bincount(experts):
                x = np.arange(1, n + 1)
                total += float(hypergeom.pmf(x, len(places), held, n) @ (x * np.log(x)))
    return -total / len(experts)


@pytest.mark.parametrize(("ids", "tokens"), [(9, 17), (2, 300), (150, 300)])
def test_context_independence(record, ids, tokens):
    recording = record(1, runs=3, tokens=tokens)
    rng = np.random.default_rng(0)
    ids_of = {(run, position): int(rng.integers(ids)) for run in recording.runs for position in range(tokens)}
    recording.store.write("token", {"run": [r for r, _ in ids_of], "step": 0, "position": [p for _, p in ids_of],
                                    "token": list(ids_of.values())})  # fmt: skip
    recording.store.flush()
    got = recording.ask("FROM context_independence(?)", [recording.runs])
    assert len(got) == len(recording.layers)
    for row in got.itertuples():
        at = kept(recording).query("layer == @row.layer")
        keys = list(zip(at.run, at.position, strict=True))
        h = entropy(np.bincount(at.expert))
        own = conditional(at.expert, pd.Series([ids_of[key] for key in keys]))
        null = expected_null(at.expert, keys, ids_of)
        np.testing.assert_allclose([row.choices, row.ids, row.conditional, row.entropy, row.share],
                                   [len(at), len({ids_of[key] for key in keys}), own, h, own / h])  # fmt: skip
        # Entropies of hundreds of choices differ from ln 6 by little: what is held is how far the null is from H.
        assert 1 - row.null_share == pytest.approx(1 - null / h, rel=1e-6 if ids > 2 else 0.01)


def test_experts_fixed_by_the_id_leave_no_entropy(record):
    recording = record(2)
    tokens = write_tokens(recording, ids=6)
    recording.store.cursor().execute("DELETE FROM routing")
    recording.store.write(
        "routing",
        {
            "run": [r for r, _ in tokens],
            "step": 0,
            "position": [p for _, p in tokens],
            "layer": 0,
            "slot": 0,
            "expert": list(tokens.values()),
            "weight": 1.0,
            "rank": 0,
        },
    )
    recording.store.flush()
    row = recording.ask("FROM context_independence(?)", [recording.runs]).iloc[0]
    assert row.share == pytest.approx(0, abs=1e-12) and row.null_share > 0.5


def test_token_specialisation(record):
    recording = record(3, runs=3)
    tokens = write_tokens(recording)
    rows = kept(recording).query("rank == 0").copy()
    rows["token"] = [tokens[r.run, r.position] for r in rows.itertuples()]
    got = recording.ask("FROM token_specialisation(?, least := 12)", [recording.runs])
    wanted = rows.groupby(["layer", "token"]).filter(lambda g: len(g) >= 12)
    assert 0 < len(got) == wanted.groupby(["layer", "token"]).ngroups
    for row in got.itertuples():
        layer = rows[rows.layer == row.layer]
        mine = layer[layer.token == row.token].expert
        counts = np.bincount(mine, minlength=6)
        assert (row.tokens, row.expert, row.text) == (len(mine), counts.argmax(), f" {row.token}")
        share = counts.max() / len(mine)
        np.testing.assert_allclose(
            [row.share, row.lift], [share, share / (layer.expert == row.expert).mean()]
        )


def test_route_stability_and_loss_change_on_the_shared_prefix(record):
    recording = record(4, runs=3)
    base, *others = recording.runs
    rng = np.random.default_rng(0)
    prefix = {others[0]: 17, others[1]: 9}
    logprob = rng.normal(-2, 1, (3, 17)).astype(np.float32)
    for place, run in enumerate(recording.runs):
        tokens = np.arange(17)
        tokens[prefix.get(run, 17) :] += 50
        recording.store.write("token", {"run": run, "step": 0, "position": np.arange(17), "token": tokens,
                                        "logprob": [None, *logprob[place, 1:].tolist()]})  # fmt: skip
    recording.store.flush()
    rows = kept(recording)
    chosen = {key: set(group) for key, group in rows.groupby(["run", "position", "layer"]).expert}
    top = rows[rows["rank"] == 0].set_index(["run", "position", "layer"]).expert
    got = recording.ask("FROM route_stability(?, ?)", [base, others])
    assert len(got) == 6
    for row in got.itertuples():
        pairs = [((base, p, row.layer), (row.run, p, row.layer)) for p in range(1, prefix[row.run])]
        both = np.array([len(chosen[a] & chosen[b]) for a, b in pairs])
        either = np.array([len(chosen[a] | chosen[b]) for a, b in pairs])
        np.testing.assert_allclose(
            [row.tokens, row.overlap, row.jaccard, row.unchanged, row.top, row.chance],
            [len(pairs), np.mean(both / 2), np.mean(both / either), np.mean(both == 2),
             np.mean([top[a] == top[b] for a, b in pairs]), 2 / 6],
        )  # fmt: skip
    change = recording.ask("FROM loss_change(?, ?)", [base, others])
    for place, row in enumerate(change.itertuples(), start=1):
        before, after = (-logprob[i, 1 : prefix[row.run]].astype(float).mean() for i in (0, place))
        np.testing.assert_allclose([row.tokens, row.base_loss, row.loss, row.change],
                                   [prefix[row.run] - 1, before, after, after - before])  # fmt: skip


def test_a_run_is_stable_against_itself(record):
    recording = record(5)
    write_tokens(recording)
    got = recording.ask("FROM route_stability(?, ?)", [recording.runs[0], recording.runs[0]])
    assert (got[["overlap", "jaccard", "unchanged", "top"]] == 1).all(axis=None)


def test_load_divergence(record):
    recording = record(6, runs=3)
    base, *others = recording.runs
    got = recording.ask("FROM load_divergence(?, ?)", [base, others])
    assert len(got) == 6
    for row in got.itertuples():
        rows = kept(recording)
        loads = [np.bincount(rows[(rows.run == run) & (rows.layer == row.layer)].expert, minlength=6)
                 for run in (base, row.run)]  # fmt: skip
        assert row.divergence == pytest.approx(jensenshannon(*loads) ** 2)


@pytest.mark.parametrize("last", [False, True])
def test_route_neighbours(record, last):
    recording = record(7, runs=5)
    rows = recording.routing.astype({"weight": float})
    rows = rows[rows.position == 16] if last else rows[rows.position > 0]
    vectors = rows.pivot_table(
        index="run", columns=["layer", "expert"], values="weight", aggfunc="sum", fill_value=0
    )
    unit = vectors / np.sqrt((vectors**2).sum(axis=1)).to_numpy()[:, None]
    cosine = unit @ unit.T
    got = recording.ask(
        "FROM route_neighbours(?, ?, k := 2, last := ?)", [recording.runs[:2], recording.runs, last]
    )
    assert list(got.run) == [101, 101, 102, 102] and list(got.place) == [1, 2, 1, 2]
    for run in (101, 102):
        want = cosine[run].drop(run).sort_values(ascending=False).head(2)
        part = got[got.run == run]
        assert list(part.other) == list(want.index)
        np.testing.assert_allclose(part.similarity, want)


def test_pairs_of_labels_are_listed_once(three):
    got = three.ask("FROM group_divergence(?, 'language')", [three.runs])
    pairs = list(zip(got.label[got.layer == 1], got.other[got.layer == 1], strict=True))
    assert pairs == list(combinations(["de", "en", "fr"], 2))


def test_token_specialisation_by_label(record):
    recording = record(seed=5)
    labels = {0: "a", 1: "a", 2: "b", 5: "b", 9: None}
    for run in recording.runs:
        values = {"position": list(labels), "value": list(labels.values())}
        recording.store.write("token_label", {"run": run, "label": "kind", **values})
        recording.store.write("token_label", {"run": run, "position": [3], "label": "other", "value": ["a"]})
    found = recording.ask("FROM token_specialisation_by_label(?, 'kind')", [recording.runs])
    rows = recording.routing[recording.routing.position.isin([1, 2, 5])].assign(
        label=lambda f: f.position.map(labels)
    )
    counts = rows.groupby(["layer", "expert", "label"]).size()
    assert len(found) == len(counts)
    for one in found.itertuples():
        n = counts[one.layer, one.expert, one.label]
        of_layer = counts[one.layer]
        of_label, of_expert = of_layer.xs(one.label, level="label").sum(), of_layer[one.expert].sum()
        assert one.choices == n
        assert one.load == pytest.approx(n / of_label) and one.share == pytest.approx(n / of_expert)
        assert one.lift == pytest.approx(n * of_layer.sum() / (of_expert * of_label))


def test_a_run_without_routing_is_nobodys_neighbour(record):
    recording = record(8, runs=3)
    got = recording.ask("FROM route_neighbours([101, 999], [101, 102, 103, 999], k := 9)")
    assert sorted(zip(got.run, got.other, got.place, strict=True)) == sorted(
        (101, other, place + 1) for place, other in enumerate(got.other)
    )
    assert sorted(got.other) == [102, 103]
