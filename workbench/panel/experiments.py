"""The experiments of the store and how far each is, from the runs that carry its number as a label."""

from __future__ import annotations

import json
from typing import Any

from workbench.panel import answers
from workbench.panel.ran import finite

MOST = 20
"""Experiments listed."""

QUIET = 30.0
"""Seconds without a new run after which an unfinished experiment is taken for interrupted."""

_NOT_RANDOM = "coalesce(json_extract_string(r.labels, '$.control'), 'null') IN ('null', '')"
# A prompt's runs begin with the one without a plan, so that the number of those so far numbers the prompts.
_RUNS = f"""
WITH mine AS (
    SELECT r.run, json_extract_string(r.labels, '$.experiment') AS experiment,
           coalesce(json_extract_string(r.labels, '$.plan'), '') AS plan, NOT ({_NOT_RANDOM}) AS control, r.started
    FROM run AS r WHERE r.run > ? AND list_contains(?, json_extract_string(r.labels, '$.experiment'))
), losses AS (
    SELECT run, -avg(logprob) AS loss FROM token WHERE run IN (SELECT run FROM mine) GROUP BY run
), prompts AS (
    SELECT m.*, l.loss, count(*) FILTER (m.plan = 'base') OVER (PARTITION BY m.experiment ORDER BY m.run) AS prompt
    FROM mine AS m LEFT JOIN losses AS l USING (run)
), compared AS (
    SELECT *, loss - max(CASE WHEN plan = 'base' THEN loss END) OVER (PARTITION BY experiment, prompt) AS change
    FROM prompts
)
SELECT experiment, plan, control, count(*), avg(loss), avg(change) FILTER (plan <> 'base'),
       epoch(now() AT TIME ZONE 'UTC') - epoch(max(started))
FROM compared GROUP BY experiment, plan, control ORDER BY experiment, min(run)
"""


def listed(cursor: Any) -> answers.Experiments:
    """The newest experiments, with the runs, losses and changes of every plan so far."""
    found = cursor.execute(
        "SELECT experiment, name, created, CAST(config AS VARCHAR) FROM experiment ORDER BY experiment DESC LIMIT ?",
        [MOST],
    ).fetchall()
    if not found:
        return answers.Experiments(rows=[])
    plans: dict[str, list[answers.PlanProgress]] = {}
    quiet: dict[str, float] = {}
    for experiment, plan, control, runs, loss, change, since in cursor.execute(
        _RUNS, [min(row[0] for row in found), [str(row[0]) for row in found]]
    ).fetchall():
        plans.setdefault(experiment, []).append(
            answers.PlanProgress(
                plan=plan, control=control, runs=runs, loss=finite(loss), change=finite(change)
            )
        )
        quiet[experiment] = min(
            quiet.get(experiment, float("inf")), since if since is not None else float("inf")
        )
    return answers.Experiments(
        rows=[_row(row, plans.get(str(row[0]), []), quiet.get(str(row[0]))) for row in found]
    )


def _row(row: tuple[Any, ...], plans: list[answers.PlanProgress], quiet: float | None) -> answers.Experiment:
    experiment, name, created, config = row
    runs, expected = sum(plan.runs for plan in plans), _expected(config)
    unfinished = expected is None or runs < expected
    return answers.Experiment(
        id=str(experiment),
        name=name or "",
        created="" if created is None else str(created)[:19],
        runs=runs,
        expected=expected,
        running=unfinished and quiet is not None and quiet < QUIET,
        config=config or "",
        plans=plans,
    )


def _expected(config: str | None) -> int | None:
    """Runs of a sweep: every prompt without a plan, and under each plan and its random controls."""
    try:
        data = json.loads(config or "{}")
    except ValueError:
        return None
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("plans"), dict)
        or not isinstance(data.get("prompts"), int)
    ):
        return None
    return int(data["prompts"] * (1 + len(data["plans"]) * (1 + int(data.get("controls") or 0))))
