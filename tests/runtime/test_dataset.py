"""Streaming a data set into the store."""

from __future__ import annotations

import pandas as pd
import pytest

import workbench as wb


def test_documents_labels_and_token_labels(bench):
    model = bench("olmoe")
    documents = [
        {"tokens": [1, 2, 3, 4], "language": "en", "labels": {"kind": "a"}},
        {"tokens": [5, 6], "language": "fr", "token_labels": {"part": ["x", None]}},
        [7, 8, 9],
    ]
    done = model.record(documents)
    assert (done.documents, done.tokens, len(done.runs)) == (3, 9, 3)
    rows = model.sql(
        "SELECT run, labels->>'document', labels->>'part', labels->>'language', labels->>'kind', tokens FROM run ORDER BY 1"
    ).fetchall()
    assert [row[0] for row in rows] == sorted(done.runs)
    by_document = {row[1]: row[2:] for row in rows}
    assert by_document == {
        "0": ("0", "en", "a", 4), "1": ("0", "fr", None, 2), "2": ("0", None, None, 3),
    }  # fmt: skip
    assert model.sql("SELECT run, position, label, value FROM token_label").fetchall() == [
        (done.runs[1], 0, "part", "x")
    ]
    assert model.sql("SELECT count(DISTINCT run) FROM routing").fetchone() == (3,)


def test_the_budget_is_spent_to_the_token_and_long_documents_are_parted(bench):
    model = bench("olmoe")
    context = model.context
    document = [1 + n % 40 for n in range(2 * context + 5)]
    done = model.record([document, [1, 2, 3]], record=wb.Record(attention_rank=False))
    assert done.tokens == 2 * context + 8 and done.documents == 2
    parts = model.sql("SELECT labels->>'part', tokens FROM run WHERE labels->>'document' = '0' ORDER BY ALL")
    assert parts.fetchall() == [("0", context), ("1", context), ("2", 5)]
    cut = model.record(iter([[1] * 7, [2] * 7, [3] * 7]), tokens=10)
    assert (cut.tokens, cut.documents, len(cut.runs)) == (10, 2, 2)


def test_a_frame_and_labels_by_text(bench):
    model = bench("olmoe")
    frame = pd.DataFrame({"tokens": [[1, 2, 3], [2, 2]], "kind": ["a", "b"]})
    model.record(frame, token_labels=lambda texts: {"two": [t == "2" or None for t in texts]}, progress=True)
    counts = model.sql(
        "SELECT i.labels->>'kind', count(*) FROM token_label AS t JOIN run AS i ON i.run = t.run GROUP BY 1 ORDER BY 1"
    )
    assert counts.fetchall() == [("a", 1), ("b", 2)]
    load = model.sql("SELECT sum(choices) FROM token_specialisation_by_label(?, 'two', first := true)", [
        [row[0] for row in model.sql("SELECT run FROM run").fetchall()]
    ]).fetchone()  # fmt: skip
    sparse = model.anatomy.layer(0).moe
    assert load == (3 * sparse.top_k * len(model.anatomy.moe_layers),)


def test_bad_documents_are_refused(bench):
    model = bench("olmoe")
    with pytest.raises(wb.errors.PromptError, match="Document 0 has none of the fields"):
        model.record([{"body": "x"}])
    with pytest.raises(wb.errors.PromptError, match="Document 0 has 2 tokens, but 1 labels 'a'"):
        model.record([{"tokens": [1, 2], "token_labels": {"a": ["x"]}}])
    with pytest.raises(wb.errors.PromptError, match="budget of 0 tokens"):
        model.record([[1, 2]], tokens=0)
