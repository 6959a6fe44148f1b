"""A run as the panel holds it: fresh from the model, or taken out of the store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import PlanError, StoreError
from workbench.interventions import Plan
from workbench.panel import replies
from workbench.panel.grids import Shape
from workbench.said import said

if TYPE_CHECKING:
    from workbench.panel.live import Timelines
    from workbench.runtime.live import Live


@dataclass(frozen=True)
class Ran:
    """What the panel keeps of a run; all else is in the store.

    Attributes
    ----------
    logits
        [S, V] fp32, one row less than tokens for a generation; ``None`` for a run out of the store, which keeps none.
    plan
        The plan that was in force.
    model
        The name of the model; of a run out of the store it may be another one than the bench's.
    """

    id: int
    tokens: list[int]
    prompt_tokens: int
    logits: np.ndarray | None
    texts: list[str]
    plan: Plan
    shape: Shape
    model: str

    @property
    def past(self) -> bool:
        """Whether the run was taken out of the store."""
        return self.logits is None

    @property
    def computed(self) -> int:
        """How many of its tokens the model has read; the last one of a generation waits for the next step."""
        return len(self.tokens) if self.logits is None else len(self.logits)

    def card(self) -> replies.RunCard:
        """The run in a few words."""
        return replies.RunCard(
            id=str(self.id), plan=self.plan.hash, tokens=len(self.texts), past=self.past, model=self.model
        )


def fresh(
    bench: Any,
    run: int,
    tokens: list[int],
    prompt_tokens: int,
    logits: np.ndarray,
    texts: list[str],
    plan: Plan,
    slots: int,
) -> Ran:
    """A run that ``bench`` has just made, in which a token has made at most ``slots`` choices in a layer."""
    anatomy = bench.anatomy
    moes = [anatomy.layer(layer).moe for layer in anatomy.moe_layers]
    shape = Shape(
        layers=anatomy.num_layers,
        tokens=len(texts),
        experts=max((moe.num_experts for moe in moes), default=0),
        choices=max(slots, *(moe.top_k for moe in moes)) if moes and slots else 0,
    )
    return Ran(run, tokens, prompt_tokens, logits, texts, plan, shape, str(bench.name))


def generated(lines: Timelines, bench: Any, live: Live) -> Ran:
    """A generation under way, as far as it has come."""
    if live.run is None:
        raise TypeError("the panel records every generation")
    tokens = list(live.tokens)
    return fresh(
        bench, int(live.run), tokens, live.prompt_tokens, live.logits.numpy(), lines.texts(live), live.plan, live.slots
    )  # fmt: skip


def recorded(cursor: Any, run: int) -> Ran:
    """A run of the store.

    Raises
    ------
    StoreError
        The store has no such run, or no tokens of it.
    """
    row = cursor.execute(
        "SELECT model, num_layers, num_experts, top_k, prompt_tokens FROM run WHERE run = ?", [run]
    ).fetchone()
    read = cursor.execute(
        "SELECT position, token, coalesce(text, '') AS text FROM token WHERE run = ? ORDER BY position, step",
        [run],
    ).fetchnumpy()
    # Of a position that was read more than once the last reading counts.
    counts = np.diff(read["position"], append=-1) != 0
    tokens, texts = (read[name][counts].tolist() for name in ("token", "text"))
    if row is None or not tokens:
        raise StoreError(
            said("Run %1 is not in the store of this bench, or it has no tokens.", run),
            said("List the runs again and choose another one."),
        )
    model, layers, experts, top_k, prompt_tokens = row
    last, ranks = None, None
    if layers is not None and not Shape(layers, len(tokens), 0, 0).whole:
        # Of a large run the words of its row are believed: a scan for a token that chose more would take as long as a map.
        ranks = None if top_k is None else top_k - 1
    if layers is None or ranks is None:
        last, ranks = cursor.execute(
            "SELECT max(layer), max(rank) FROM routing WHERE run = ?", [run]
        ).fetchone()
    if layers is None:
        layers = 0 if last is None else last + 1
    choices = 0 if ranks is None else max(ranks + 1, top_k or 0)
    return Ran(
        id=run,
        tokens=tokens,
        prompt_tokens=len(tokens) if prompt_tokens is None else int(prompt_tokens),
        logits=None,
        texts=texts,
        plan=plan_of(cursor, run) or Plan(),
        shape=Shape(int(layers), len(tokens), int(experts or 0), int(choices)),
        model=str(model or ""),
    )


def plan_of(cursor: Any, run: int) -> Plan | None:
    """The plan a recorded run began with; ``None`` if it had none, or one that this version does not know."""
    row = cursor.execute(
        "SELECT p.json FROM run_plan AS h JOIN plan AS p ON p.plan = h.plan WHERE h.run = ? ORDER BY h.step LIMIT 1",
        [run],
    ).fetchone()
    if row is None:
        return None
    try:
        return Plan.from_json(row[0])
    except PlanError:
        return None


def number(run: str) -> int:
    """A run's number from the text that messages carry."""
    if not run.isdecimal() or int(run) >= 2**63:
        raise StoreError(said("%1 is no run.", repr(run)), said("Choose a run from the list."))
    return int(run)


def finite(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity: both become null."""
    return None if value is None or not math.isfinite(value) else float(value)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities fp64 over the last axis."""
    wide = logits.astype(np.float64)
    wide = wide - wide.max(-1, keepdims=True)
    result: np.ndarray = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return result
