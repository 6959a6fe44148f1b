"""Experiments in the panel: what has run of each, and what its plans have changed, against the sweep's own table."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from workbench.panel.experiments import listed
from workbench.store import Store, new_run_id

BASE, BAN, CONTROL = {"plan": "base"}, {"plan": "ban"}, {"plan": "ban", "control": 0}


def write(store: Store, experiment: int, labels: dict[str, Any], loss: float, started: datetime) -> None:
    run = new_run_id()
    store.write("run", {
        "run": run, "kind": "forward", "model": "made", "tokens": 3, "started": started,
        "labels": json.dumps({"experiment": str(experiment), **labels}),
    })  # fmt: skip
    store.write("token", {
        "run": run, "step": 0, "position": [0, 1, 2], "token": [1, 2, 3], "text": ["a", "b", "c"], "part": "prompt",
        "logprob": [None, -loss, -loss],
    })  # fmt: skip


def begin(store: Store, name: str, prompts: int | None) -> int:
    experiment = new_run_id()
    config = {"plans": {"ban": {}}, "controls": 1} | ({} if prompts is None else {"prompts": prompts})
    store.write("experiment", {
        "experiment": [experiment], "created": [datetime.now(UTC).replace(tzinfo=None)], "name": [name],
        "config": [json.dumps(config)],
    })  # fmt: skip
    return experiment


def test_an_experiment_in_progress_is_compared_prompt_by_prompt() -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    with Store.open(":memory:") as store:
        old = begin(store, "old", 1)
        write(store, old, BASE, 9.0, now - timedelta(hours=1))
        experiment = begin(store, "<b>sweep</b>", 2)
        losses = ((BASE, 2.0), (BAN, 2.5), (CONTROL, 2.25), (BASE, 4.0), (BAN, 4.25))
        for labels, loss in losses:
            write(store, experiment, labels, loss, now)
        store.flush()
        first, second = listed(store.cursor()).rows
    assert (first.id, first.name, first.runs, first.expected, first.running) == (
        str(experiment),
        "<b>sweep</b>",
        5,
        6,
        True,
    )
    base, ban, control = first.plans
    assert (base.plan, base.runs, base.loss, base.change) == ("base", 2, 3.0, None)
    assert (ban.plan, ban.control, ban.runs) == ("ban", False, 2) and ban.change == pytest.approx(
        (0.5 + 0.25) / 2
    )
    assert control.control and control.runs == 1 and control.change == pytest.approx(0.25), (
        "against its own prompt's base"
    )
    assert (second.id, second.running) == (str(old), False), "nothing has run for an hour: it was stopped"


def test_an_experiment_of_unknown_size_has_no_share() -> None:
    with Store.open(":memory:") as store:
        begin(store, "open", None)
        store.flush()
        (row,) = listed(store.cursor()).rows
    assert row.expected is None and row.runs == 0 and row.plans == [] and not row.running


def test_a_store_without_experiments_says_so(driver: Any) -> None:
    driver.compute("run", prompt="one two three")
    driver.control("experiments_of")
    assert driver.view.last("experiments")["rows"] == []
