"""What recording costs in rows: exact counts of what was dropped, thinning, and rows that do not depend on batching."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.runtime import recorder as recording
from workbench.runtime.rows import digest
from workbench.store import TABLES, Store, columns
from workbench.store.store import _convert

TOKEN_TABLES = ("routing", "router", "contribution", "sparsity")


@pytest.fixture
def taken(monkeypatch):
    """Every pass that is taken from here on."""
    found = []
    own = Store.defer

    def defer(self, digest, item):
        found.append(item)
        return own(self, digest, item)

    monkeypatch.setattr(Store, "defer", defer)
    return found


def made(store, items):
    """Rows by table that the digest makes of ``items``."""
    spec = columns.read_columns(store.cursor())
    found: dict[str, int] = {}
    for table, values in digest(items):
        found[table] = found.get(table, 0) + _convert(spec, table, values).num_rows
    return {table: rows for table, rows in found.items() if rows}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmoe", "llama"])
@pytest.mark.parametrize(
    "record", [wb.Record(scores=True), wb.Record(scores=0.5, every=3), wb.Record(routing=False)]
)
def test_dropped_rows_would_be_counted_exactly(bench, taken, family, record):
    one = bench(family)
    plan = wb.Plan([wb.skip.block(layers=1)])
    one.run([[1, 2, 3, 4, 5, 6, 7], [8, 9, 10]], plans=[plan, plan], record=record)
    one.run([1, 2, 3, 4], record=record)
    assert len(taken) == 2
    for item in taken:
        assert item.count() == made(one.store, [item])
    total: dict[str, int] = {}
    for item in taken:
        for table, rows in item.count().items():
            total[table] = total.get(table, 0) + rows
    assert made(one.store, taken) == total
    for table, rows in total.items():
        assert one.sql(f"SELECT count(*) FROM {table}").fetchone() == (rows,)


def test_a_store_without_room_says_in_the_run_what_is_missing(bench, monkeypatch):
    model = bench("olmoe", kernels="cpu")
    whole = model.run([1, 2, 3, 4, 5])
    expected = {
        table: model.sql(f"SELECT count(*) FROM {table} WHERE run = ?", [whole.id]).fetchone()[0]
        for table in TABLES
        if table in ("routing", "router", "contribution", "sparsity", "attention_rank", "expert_stat", "cost")
    }
    assert all(expected.values())
    writer = model.store._writer
    monkeypatch.setattr(writer, "policy", "drop")
    monkeypatch.setattr(writer, "_capacity", 1)
    monkeypatch.setattr(writer, "_bytes", 1)  # something waits all the time
    lost = model.run([1, 2, 3, 4, 5])
    monkeypatch.setattr(writer, "_bytes", 0)
    assert torch.equal(lost.logits, whole.logits)
    (dropped,) = model.sql("SELECT dropped FROM run WHERE run = ?", [lost.id]).fetchone()
    assert json.loads(dropped) == expected
    assert model.sql("SELECT count(*) FROM routing WHERE run = ?", [lost.id]).fetchone() == (0,)
    assert model.sql("SELECT count(*) FROM token WHERE run = ?", [lost.id]).fetchone() == (5,)
    assert model.sql("SELECT dropped FROM run WHERE run = ?", [whole.id]).fetchone() == (None,)


@pytest.mark.slow
@pytest.mark.parametrize(("pressure", "stride"), [(0.0, 1), (0.49, 1), (0.5, 2), (0.75, 4), (0.9, 8)])
def test_sampling_keeps_fewer_tokens_the_fuller_the_queue_is(bench, monkeypatch, pressure, stride):
    model = bench("olmoe", kernels="cpu")
    monkeypatch.setattr(model.store, "policy", "sample")
    monkeypatch.setattr(Store, "pressure", property(lambda self: pressure))
    run = model.run(list(range(1, 20)))
    kept = list(range(0, 19, stride))
    for table in TOKEN_TABLES:
        found = model.sql(f"SELECT DISTINCT position FROM {table} WHERE run = ? ORDER BY ALL", [run.id])
        assert [row[0] for row in found.fetchall()] == kept
    (tokens,) = model.sql("SELECT sum(tokens) FROM expert_stat WHERE layer = 0").fetchone()
    k = model.anatomy.layer(0).moe.top_k
    assert tokens == 19 * k, "sums are over every token"
    (dropped,) = model.sql("SELECT dropped FROM run WHERE run = ?", [run.id]).fetchone()
    layers = model.anatomy.num_layers
    if stride == 1:
        assert dropped is None
    else:
        missing = (19 - len(kept)) * layers
        assert json.loads(dropped) == {
            "routing": missing * k, "router": missing, "contribution": missing, "sparsity": missing * k,
        }  # fmt: skip


def test_every_nth_token(bench):
    model = bench("olmoe")
    run = model.run(list(range(1, 12)), record=wb.Record(every=4))
    found = model.sql("SELECT DISTINCT position FROM routing WHERE run = ? ORDER BY ALL", [run.id]).fetchall()
    assert found == [(0,), (4,), (8,)]


def test_a_share_of_the_score_vectors_estimates_them_all(bench):
    model = bench("olmoe")
    prompts = [list(np.random.default_rng(n).integers(1, 50, 60)) for n in range(20)]
    model.run([[int(t) for t in p] for p in prompts], record=wb.Record(scores=0.25))
    rows, weight, shares = model.sql(
        "SELECT count(*), sum(1 / share), count(DISTINCT share) FROM router_scores WHERE layer = 0"
    ).fetchone()
    assert shares == 1 and weight == 4 * rows
    assert abs(weight - 1200) < 4 * (1200 * 3) ** 0.5, "within four standard deviations of Bernoulli draws"
    per_layer = model.sql(
        "SELECT count(DISTINCT (run, position)) = count(*) FROM router_scores WHERE layer = 1"
    )
    assert per_layer.fetchone() == (True,)


def test_rows_do_not_depend_on_what_is_digested_together(bench, taken):
    model = bench("olmoe", kernels="cpu")
    for n in range(3):
        model.run(list(range(1 + n, 9 + 2 * n)))
    spec = columns.read_columns(model.store.cursor())

    def rows(groups):
        found: dict[str, list] = {}
        for group in groups:
            for table, values in digest(group):
                found.setdefault(table, []).extend(_convert(spec, table, values).to_pylist())
        return {table: sorted(map(str, values)) for table, values in found.items()}

    assert rows([taken]) == rows([[item] for item in taken])


def test_a_record_that_asks_for_nothing_sensible_is_refused():
    with pytest.raises(wb.errors.WorkbenchError, match="share of tokens"):
        wb.Record(scores=1.5)
    with pytest.raises(wb.errors.WorkbenchError):
        wb.Record(every=0)


def test_drawn_tokens_are_spread_evenly():
    positions = np.arange(4096, dtype=np.int32)
    tokens = recording.Tokens(np.arange(4096), np.zeros(4096, int), np.full(4096, 2**60 + 3), positions, True)
    for share in (0.1, 0.5, 0.9):
        drawn = recording.sampled(wb.Record(scores=share), tokens)
        assert abs(len(drawn) / 4096 - share) < 0.03
        assert abs(np.mean(drawn) / 4096 - 0.5) < 0.03
