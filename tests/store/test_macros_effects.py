"""Macros over effects, against tables made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "effects.duckdb")) as opened:
        yield opened


def test_a_skip_matrix_has_one_row_a_pair_and_the_output_last(store):
    store.write("effect", {
        "experiment": [1, 1, 1, 1, 2], "unit": "block", "tokens": "future", "skipped": [0, 0, 0, 0, 0],
        "layer": [2, 2, None, None, 2], "name": ["largest", "mean", "largest", "mean", "largest"],
        "value": [0.5, 0.2, 0.1, 0.05, 9.0],
    })  # fmt: skip
    found = store.sql("SELECT skipped, layer, largest, mean FROM skip_matrix(1)").fetchall()
    assert found == [(0, 2, 0.5, 0.2), (0, None, 0.1, 0.05)]


def test_a_plan_recovers_behind_the_last_layer_that_is_far(store):
    distance = {
        "p": [0.0, 0.5, 0.05, 0.2, 0.01],
        "q": [0.0, 0.5, 0.05, 0.2, 0.3],
        "r": [0.0, 0.0, 0.0, 0.0, 0.0],
    }
    for plan, values in distance.items():
        store.write("effect", {
            "experiment": 1, "plan": plan, "layer": list(range(5)), "name": "distance", "value": values,
        })  # fmt: skip
    found = store.sql("FROM recovery_layer(1)").fetchall()
    assert found == [("p", 1, 4), ("q", 1, None), ("r", None, None)]
    assert store.sql("FROM recovery_layer(1, tolerance := 0.4)").fetchall()[0] == ("p", 1, 2)
    rows = store.sql("SELECT plan, layer, distance, cka FROM layer_effect(1) WHERE plan = 'p'").fetchall()
    assert rows == [("p", n, value, None) for n, value in enumerate(distance["p"])]


def test_a_level_is_tolerable_where_it_and_all_smaller_ones_are(store):
    rng = np.random.default_rng(0)
    means = {0.3: 0.0, 0.5: 0.02, 0.7: 0.5, 0.9: 0.0}
    values = {level: rng.normal(mean, 0.02, 40) for level, mean in means.items()}
    for level, some in values.items():
        store.write("effect", {
            "experiment": 1, "level": level, "task": ["a", "b"] * 20, "item": list(range(40)), "name": "loss_change",
            "value": some + np.array([0.0, 0.05] * 20),
        })  # fmt: skip
    found = store.sql("FROM tolerable_sparsity(1, 0.1)").df()
    assert found["level"].tolist() == list(means) and found["items"].tolist() == [40] * 4
    assert found["tolerable"].tolist() == [True, True, False, False], "0.9 stands behind a level that failed"
    for row, some in zip(found.itertuples(), values.values(), strict=True):
        changed = some + np.array([0.0, 0.05] * 20)
        assert row.upper == pytest.approx(changed.mean() + 1.645 * changed.std(ddof=1) / 40**0.5)
        tasks = {"a": changed[::2].mean(), "b": changed[1::2].mean()}
        assert row.worst_task == max(tasks, key=lambda name: tasks[name])
        assert row.worst_change == pytest.approx(max(tasks.values()))
