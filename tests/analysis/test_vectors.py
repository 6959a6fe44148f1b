"""Routing vectors against pandas, and what is read from them against plain numpy and planted structure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workbench.analysis import clusters, components, neighbours, probe, routing_vectors
from workbench.errors import StoreError
from workbench.store import Store, connect

EXPERTS, K, TOKENS, LAYERS = 5, 2, 9, [0, 3]


@pytest.fixture
def planted():
    """Twelve runs under two labels; in layer 3 the label decides the experts, in layer 0 nothing does."""
    rng = np.random.default_rng(0)
    labels = {run: "ab"[run % 2] for run in range(1, 13)}
    rows = []
    for run, label in labels.items():
        for position in range(TOKENS):
            for layer in LAYERS:
                tilt = np.zeros(EXPERTS)
                if layer == 3:
                    tilt[:2] = 4 if label == "a" else -4
                experts = np.argsort(-(rng.gumbel(size=EXPERTS) + tilt))[:K]
                weights = np.sort(rng.random(K).astype(np.float32))[::-1]
                rows += [
                    (run, position, layer, slot, e, w)
                    for slot, (e, w) in enumerate(zip(experts, weights, strict=True))
                ]
    frame = pd.DataFrame(rows, columns=["run", "position", "layer", "slot", "expert", "weight"])
    with Store.open(":memory:") as store:
        columns = {name: frame[name].to_numpy() for name in frame}
        store.write("routing", {**columns, "step": 0, "rank": frame["slot"].to_numpy()})
        store.flush()
        yield store.cursor(), frame, labels


def test_rows_are_asked_for_wherever_sql_is_answered(tmp_path):
    with Store.open(tmp_path / "a.duckdb") as store:
        row = {"step": 0, "position": 1, "layer": 2, "slot": 0, "expert": 4, "weight": 0.5, "rank": 0}
        store.write("routing", {"run": 7, **row})
        store.flush()
        for source in (store, store.cursor(), connect(store.path)):
            vectors = routing_vectors(source, 7)
            assert vectors.columns.tolist() == [(2, 4)] and vectors.to_numpy().tolist() == [[0.5]]


def dense(frame: pd.DataFrame) -> dict[tuple[int, int], np.ndarray]:
    """Vector of every token after the first, laid out layer by layer."""
    out: dict[tuple[int, int], np.ndarray] = {}
    for row in frame[frame.position > 0].itertuples():
        vector = out.setdefault((row.run, row.position), np.zeros(len(LAYERS) * EXPERTS))
        vector[LAYERS.index(row.layer) * EXPERTS + row.expert] += float(row.weight)
    return out


def test_vectors_of_tokens_and_runs(planted):
    cursor, frame, labels = planted
    want = dense(frame)
    tokens = routing_vectors(cursor, list(labels), by="token")
    assert list(tokens.columns) == [(layer, e) for layer in LAYERS for e in range(EXPERTS)]
    assert list(tokens.index) == sorted(want)
    np.testing.assert_allclose(tokens.to_numpy(), [want[key] for key in sorted(want)])
    runs = routing_vectors(cursor, list(labels))
    for run in labels:
        np.testing.assert_allclose(
            runs.loc[run], np.mean([v for (r, _), v in want.items() if r == run], axis=0)
        )
    chosen = routing_vectors(cursor, [3], [3], by="token", value="chosen", first=True)
    assert chosen.shape[0] == TOKENS and (chosen.sum(axis=1) == K).all()
    with pytest.raises(StoreError, match="No routing"):
        routing_vectors(cursor, 99)


def test_a_connection_serves_as_well_as_a_cursor(tmp_path):
    with Store.open(tmp_path / "a.duckdb", share=False) as store:
        store.write("routing", {"run": 1, "step": 0, "position": [1, 2], "layer": 0, "slot": 0, "expert": [0, 1],
                                "weight": 0.5, "rank": 0})  # fmt: skip
    with connect(tmp_path / "a.duckdb") as connection:
        assert routing_vectors(connection, 1).to_numpy().tolist() == [[0.25, 0.25]]


def test_neighbours_are_those_of_the_cosine(planted):
    cursor, _, labels = planted
    vectors = routing_vectors(cursor, list(labels))
    unit = vectors.to_numpy() / np.linalg.norm(vectors.to_numpy(), axis=1, keepdims=True)
    cosine = pd.DataFrame(unit @ unit.T, index=vectors.index, columns=vectors.index)
    got = neighbours(vectors, k=3)
    for run in labels:
        want = cosine[run].drop(run).sort_values(ascending=False).head(3)
        part = got[got["item"] == run]
        assert list(part.other) == list(want.index) and list(part.place) == [1, 2, 3]
        np.testing.assert_allclose(part.similarity, want)
    others = neighbours(vectors.loc[[1, 2]], k=1, references=vectors.loc[3:])
    assert [labels[run] for run in others.other] == ["b", "a"]
    with pytest.raises(StoreError, match="12 rows"):
        neighbours(vectors, k=12)


def test_clusters_find_the_planted_labels(planted):
    cursor, _, labels = planted
    vectors = routing_vectors(cursor, list(labels), [3])
    got = clusters(vectors, 2)
    found = pd.crosstab(got["cluster"], [labels[run] for run in got.index]).to_numpy()
    assert sorted(found.ravel()) == [0, 0, 6, 6]
    for _, part in got.groupby("cluster"):
        rows = vectors.loc[part.index]
        np.testing.assert_allclose(part.distance, np.linalg.norm(rows - rows.mean(), axis=1))
    assert got.silhouette.min() > 0.3
    with pytest.raises(StoreError, match="clusters"):
        clusters(vectors, 12)


def test_components_are_those_of_the_singular_values(planted):
    cursor, _, labels = planted
    vectors = routing_vectors(cursor, list(labels))
    centred = vectors.to_numpy() - vectors.to_numpy().mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    got = components(vectors, 3)
    np.testing.assert_allclose(np.abs(got.to_numpy()), np.abs(u * s)[:, :3], atol=1e-9)
    np.testing.assert_allclose(got.attrs["explained"], (s**2 / np.sum(s**2))[:3])
    with pytest.raises(StoreError, match="components"):
        components(vectors, 13)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["run", "token"])
def test_a_probe_reads_the_layer_that_knows_and_not_the_other(planted, by):
    cursor, _, labels = planted
    vectors = routing_vectors(cursor, list(labels), by=by)
    got = probe(vectors, labels, folds=3, permutations=19, by_layer=True, seed=1).set_index("layer")
    assert got.score[3] > 0.9 and got.p_value[3] == pytest.approx(1 / 20)
    assert abs(got.null_mean[3] - 0.5) < 0.25 and got.score[0] < 0.8 and got.p_value[0] > 0.05
    assert list(got.runs) == [12, 12] and list(got.rows) == [12 if by == "run" else 96] * 2


def test_a_probe_never_scores_a_run_it_has_seen():
    """Columns that name the run tell nothing about runs held out: a leak would score 1."""
    runs = np.repeat(np.arange(8), 5)
    index = pd.MultiIndex.from_arrays([runs, np.tile(np.arange(5), 8)], names=["run", "position"])
    columns = pd.MultiIndex.from_tuples([(0, e) for e in range(8)], names=["layer", "expert"])
    vectors = pd.DataFrame(np.eye(8)[runs], index=index, columns=columns)
    got = probe(vectors, {run: run % 2 for run in range(8)}, folds=4, permutations=0).iloc[0]
    assert got.score <= 0.5 and got.p_value is None


def test_probes_that_cannot_be_scored_are_refused(planted):
    cursor, _, labels = planted
    vectors = routing_vectors(cursor, list(labels))
    with pytest.raises(StoreError, match="labels"):
        probe(vectors, dict.fromkeys(labels, "a"))
    with pytest.raises(StoreError, match="folds"):
        probe(vectors, labels, folds=7)
