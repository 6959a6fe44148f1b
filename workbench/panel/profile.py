"""What an expert is for, as far as the store can tell: which tokens it gets, with whom, and how often."""

from __future__ import annotations

from typing import Any

from workbench.panel import answers
from workbench.panel.ran import finite

RUNS = 300
"""The newest runs of a model that a profile looks at."""

_TOKENS, _PEERS = 24, 8
_MINE = (
    "SELECT run FROM run WHERE checkpoint IS NOT DISTINCT FROM ? AND model IS NOT DISTINCT FROM ? "
    "ORDER BY run DESC LIMIT ?"
)


def profile(cursor: Any, checkpoint: str | None, model: str, layer: int, expert: int) -> answers.Profile:
    """An expert over the newest :data:`RUNS` runs of a model.

    The lift of a token's text is P(expert | text) / P(expert), over all tokens of these runs that were routed in the layer.
    """
    runs = [row[0] for row in cursor.execute(_MINE, [checkpoint, model, RUNS]).fetchall()]
    count, choices, weight, used = cursor.execute(
        "SELECT count(*) FILTER (expert = ?), count(*), avg(weight) FILTER (expert = ?), "
        "count(DISTINCT run) FILTER (expert = ?) FROM routing WHERE layer = ? AND list_contains(?, run)",
        [expert, expert, expert, layer, runs],
    ).fetchone()
    tokens = cursor.execute(
        "WITH routed AS (SELECT r.run, r.position, bool_or(r.expert = ?) AS here FROM routing AS r "
        "  WHERE r.layer = ? AND list_contains(?, r.run) GROUP BY r.run, r.position), "
        "named AS (SELECT t.run, t.position, any_value(t.text) AS text FROM token AS t WHERE list_contains(?, t.run) "
        "  GROUP BY t.run, t.position), "
        "counted AS (SELECT n.text, count(*) FILTER (q.here) AS mine, count(*) AS times FROM routed AS q "
        "  JOIN named AS n USING (run, position) GROUP BY n.text) "
        "SELECT text, mine, (mine / times) / (SELECT sum(mine) / sum(times) FROM counted) FROM counted WHERE mine > 0 "
        "ORDER BY mine DESC, text LIMIT ?",
        [expert, layer, runs, runs, _TOKENS],
    ).fetchall()
    peers = cursor.execute(
        "WITH mine AS (SELECT run, position, step FROM routing WHERE layer = ? AND expert = ? AND list_contains(?, run)) "
        "SELECT r.expert, count(*) / ? FROM routing AS r JOIN mine AS m USING (run, position, step) "
        "WHERE r.layer = ? AND r.expert <> ? GROUP BY r.expert ORDER BY count(*) DESC, r.expert LIMIT ?",
        [layer, expert, runs, max(1, count), layer, expert, _PEERS],
    ).fetchall()
    return answers.Profile(
        layer=layer,
        expert=expert,
        runs=used,
        count=count,
        share=count / choices if choices else 0.0,
        weight=finite(weight),
        tokens=[
            answers.TokenShare(text=text or "", count=mine, lift=finite(lift) or 0.0)
            for text, mine, lift in tokens
        ],
        peers=[answers.PeerShare(expert=other, share=share) for other, share in peers],
    )
