"""The runs of the store as the panel lists them, and the difference of two of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np

from workbench.analysis.diff import align, diff
from workbench.errors import StoreError
from workbench.interventions import Plan
from workbench.panel import answers
from workbench.panel.ran import Ran, finite, log_softmax, plan_of
from workbench.panel.replies import sentence
from workbench.said import said

PAGE = 40
"""Runs listed at once."""

FLIPS = 300
"""Flips listed of a comparison."""

_TEXT = 400
_NONE = Plan().hash
_LIST = (
    "SELECT r.run, r.parent, r.started, r.kind, r.model, coalesce(r.text, r.prompt, ''), r.tokens, r.labels, h.plan "
    "FROM run AS r LEFT JOIN (SELECT run, arg_min(plan, step) AS plan FROM run_plan GROUP BY run) AS h ON h.run = r.run "
)


def listed(cursor: Any, text: str, before: int | None) -> answers.Runs:
    """Runs whose prompt, text, model or labels hold ``text`` (in any case), newest first, older than ``before``."""
    wanted = text.strip().lower()
    found = cursor.execute(
        _LIST
        + "WHERE (? = '' OR contains(lower(concat_ws(' ', r.prompt, r.text, r.model, CAST(r.labels AS VARCHAR))), ?)) "
        "AND (? IS NULL OR r.run < ?) ORDER BY r.run DESC LIMIT ?",
        [wanted, wanted, before, before, PAGE + 1],
    ).fetchall()
    rows = _rows(cursor, found[:PAGE])
    return answers.Runs(
        text=text, before=None if before is None else str(before), rows=rows, more=len(found) > PAGE
    )


def one(cursor: Any, run: int) -> answers.RunRow:
    """One run as a row of the list; a run that is still being generated has tokens, but no row yet."""
    found = cursor.execute(_LIST + "WHERE r.run = ?", [run]).fetchall()
    if not found:
        (tokens,) = cursor.execute("SELECT count(*) FROM token WHERE run = ?", [run]).fetchone()
        if not tokens:
            raise StoreError(
                said("Run %1 is not in the store of this bench.", run), said("List the runs again.")
            )
        found = [(run, None, None, "generate", None, "", tokens, None, None)]
    return _rows(cursor, found)[0]


def _rows(cursor: Any, found: list[tuple[Any, ...]]) -> list[answers.RunRow]:
    losses = dict(
        cursor.execute(
            "SELECT run, -avg(logprob) FROM token WHERE list_contains(?, run) GROUP BY run",
            [[row[0] for row in found]],
        ).fetchall()
    )
    rows = []
    for run, parent, started, kind, model, text, tokens, labels, plan in found:
        held = plan_of(cursor, run) if plan is not None else None
        rows.append(
            answers.RunRow(
                id=str(run),
                parent=None if parent is None else str(parent),
                started="" if started is None else started.isoformat(sep=" ", timespec="seconds"),
                kind=kind or "",
                model=model or "",
                text=text[:_TEXT],
                tokens=tokens or 0,
                plan="" if plan is None or plan == _NONE else plan,
                edits=[] if held is None else [sentence(edit.describe()) for edit in held.active],
                labels=_labels(labels),
                loss=finite(losses.get(run)),
            )
        )
    return rows


def _labels(labels: str | None) -> dict[str, str]:
    data = json.loads(labels) if labels else None
    if not isinstance(data, dict):
        return {}
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in data.items()}


def compared(cursor: Any, base: int, run: int, known: tuple[Ran, Ran] | None) -> answers.Comparison:
    """The difference of two recorded runs.

    Parameters
    ----------
    cursor
        A cursor of the store.
    base, run
        Their numbers.
    known
        The run and the base run, where the panel has their logits.
    """
    found = diff(cursor, base, run)
    flips = [_flip(row, found.tokens) for row in found.flips.head(FLIPS).itertuples()]
    ranks = {
        number: dict(cursor.execute("SELECT layer, avg(rank) FROM arank_profile(?) GROUP BY layer", [number]).fetchall())
        for number in (base, run)
    }  # fmt: skip
    counts = Counter(found.flips["layer"].tolist())
    layers = sorted({int(layer) for layer in counts} | set(ranks[base]) | set(ranks[run]))
    return answers.Comparison(
        base=one(cursor, base),
        run=one(cursor, run),
        aligned=len(found.tokens),
        pieces=_pieces(cursor, base, run),
        flips=len(found.flips),
        causes={str(cause): int(count) for cause, count in found.flips["cause"].value_counts().items()},
        first=flips[0] if flips else None,
        rows=flips,
        layers=[
            answers.LayerDiff(
                layer=layer,
                flips=int(counts.get(layer, 0)),
                base_rank=finite(ranks[base].get(layer)),
                run_rank=finite(ranks[run].get(layer)),
            )
            for layer in layers
        ],
        kl=None if known is None else _kl(known[1], known[0]),
    )


def _flip(row: Any, tokens: Any) -> answers.FlipRow:
    texts = tokens.loc[tokens["position"] == row.position, "text"]
    return answers.FlipRow(
        position=int(row.position),
        base_position=int(row.base_position),
        layer=int(row.layer),
        text=str(texts.iloc[0]) if len(texts) else "",
        base_experts=[int(expert) for expert in row.base_experts],
        run_experts=[int(expert) for expert in row.run_experts],
        base_margin=finite(row.base_margin),
        run_margin=finite(row.run_margin),
        cause=row.cause,
    )


def _pieces(cursor: Any, base: int, run: int) -> list[answers.Piece]:
    """Both texts as one: what they share, and what only one of them has."""
    sides = [
        cursor.execute(
            "SELECT arg_max(token, step), arg_max(coalesce(text, ''), step) FROM token WHERE run = ? GROUP BY position "
            "ORDER BY position",
            [number],
        ).fetchall()
        for number in (base, run)
    ]
    pairs = list(align([token for token, _ in sides[0]], [token for token, _ in sides[1]]))
    pieces: list[tuple[str, list[str]]] = []

    def put(side: str, texts: list[str]) -> None:
        if not texts:
            return
        if pieces and pieces[-1][0] == side:
            pieces[-1][1].extend(texts)
        else:
            pieces.append((side, list(texts)))

    i = j = 0
    for left, right in [*pairs, (len(sides[0]), len(sides[1]))]:
        put("base", [text for _, text in sides[0][i:left]])
        put("run", [text for _, text in sides[1][j:right]])
        if left < len(sides[0]):
            put("both", [sides[0][left][1]])
        i, j = left + 1, right + 1
    return [answers.Piece.model_validate({"side": side, "text": "".join(texts)}) for side, texts in pieces]


def _kl(base: Ran, run: Ran) -> float | None:
    """Mean KL(base || run) in nats over the leading positions whose whole history is the same."""
    if base.logits is None or run.logits is None:
        return None
    size = min(len(base.logits), len(run.logits))
    same = next((n for n in range(size) if base.tokens[n] != run.tokens[n]), size)
    if not same:
        return None
    p, q = (log_softmax(ran.logits[:same]) for ran in (base, run) if ran.logits is not None)
    return float(np.maximum(0, (np.exp(p) * (p - q)).sum(-1)).mean())
