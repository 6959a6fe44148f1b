"""Macros over masks and work, against sums made by hand."""

from __future__ import annotations

import pytest

from workbench.store import Store


@pytest.fixture
def rows(tmp_path):
    with Store.open(str(tmp_path / "depth.duckdb")) as opened:
        opened.write("attention_mask", {
            "run": [1, 1, 1, 2], "step": [0, 1, 0, 0], "layer": [0, 0, 0, 0], "head": [0, 0, 1, 0],
            "pattern": "window", "block": 16, "density": [0.5, 0.3, 0.5, 0.1], "recall": [0.8, 0.8, 1.0, 0.1],
            "error": [0.1, 0.3, 0.0, 0.9],
        })  # fmt: skip
        opened.write("cost", {
            "run": [1, 1, 1, 2], "step": [0, 1, 0, 0], "layer": [3, 3, 3, 3],
            "op": ["block", "block", "sparse_mlp", "block"],
            "backend": "cpu", "executed": [3, 1, 5, 100], "skipped": [9, 1, 5, 0],
        })  # fmt: skip
        opened.flush()
        yield opened


def test_attention_recall_and_work_left(rows):
    found = rows.sql("FROM attention_recall(1)").df()
    assert found["head"].tolist() == [0, 1] and found["maps"].tolist() == [2, 1]
    assert found["density"].tolist() == pytest.approx([0.4, 0.5])
    assert found["recall"].tolist() == pytest.approx([0.8, 1.0])
    assert found["gain"].tolist() == pytest.approx([2.0, 2.0])
    work = rows.sql("FROM work_left(1)").df()
    assert work["op"].tolist() == ["block", "sparse_mlp"]
    assert work["executed"].tolist() == [4, 5] and work["share"].tolist() == pytest.approx([4 / 14, 0.5])
    assert rows.sql("FROM work_left([1, 2])").df()["executed"].tolist() == [104, 5]
