"""What the panel shows, computed from the store and from the logits of a run; no model, no torch, no browser."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import AddressError
from workbench.interventions import Edit, Plan, Span, reroute, skip
from workbench.panel import replies
from workbench.panel.facts import CellFacts
from workbench.panel.ran import finite, log_softmax
from workbench.panel.replies import sentence
from workbench.said import said

if TYPE_CHECKING:
    from workbench.panel.history import History
    from workbench.panel.ran import Ran

NEXT_ROWS = 10
"""Candidates of each run in the next-token table."""


def bench_facts(key: str, bench: Any) -> replies.BenchFacts:
    """The model of ``bench`` in a few words and numbers."""
    anatomy = bench.anatomy
    moes = {layer: anatomy.layer(layer).moe for layer in anatomy.moe_layers}
    return replies.BenchFacts(
        key=key,
        name=str(bench.name),
        model_type=anatomy.model_type,
        layers=anatomy.num_layers,
        moe_layers=list(moes),
        experts=max((moe.num_experts for moe in moes.values()), default=0),
        top_k=max((moe.top_k for moe in moes.values()), default=0),
        kernels=str(bench.kernels),
        isa=str(bench.isa or ""),
        refused={layer: moe.reason for layer, moe in moes.items() if not moe.proved},
    )


def plan_card(history: History, kept: list[str]) -> replies.PlanCard:
    """The plan that holds now, in words and as data."""
    plan = history.plan
    return replies.PlanCard(
        version=history.version,
        hash=plan.hash,
        edits=_edit_cards(plan),
        text=plan.to_json(),
        python=plan.to_python(),
        warnings=[sentence(line) for line in plan.collisions()],
        kept=kept,
        undo=history.earlier is not None,
        redo=history.later is not None,
        earlier=None if history.earlier is None else _edit_cards(history.earlier),
        later=None if history.later is None else _edit_cards(history.later),
    )


def _edit_cards(plan: Plan) -> list[replies.EditCard]:
    return [_edit_card(edit) for edit in plan.edits]


def _edit_card(edit: Edit) -> replies.EditCard:
    data = edit.model_dump(mode="json")
    return replies.EditCard(
        kind=edit.kind,
        text=sentence(edit.describe()),
        enabled=edit.enabled,
        layers=None if edit.layers == "all" else list(edit.layers),
        experts=list(edit.named_experts()) if isinstance(edit, reroute.Bias) else data.get("experts", []),
        delta=_raised(edit),
        tokens=data["tokens"],
        phase=edit.phase,
        data=_exact(data),
    )


def _exact(value: Any) -> Any:
    """``value`` with integers that a JavaScript number cannot hold as text."""
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    return str(value) if isinstance(value, int) and abs(value) > 2**53 else value


def _raised(edit: Edit) -> float | None:
    """What a bias of one expert adds to its logit; ``None`` for any other edit."""
    if not isinstance(edit, reroute.Bias) or edit.at != "logits" or not isinstance(edit.delta, dict):
        return None
    return next(iter(edit.delta.values())) if len(edit.delta) == 1 else None


def inspect(
    bench: Any,
    read: Callable[[Ran, replies.Cell], CellFacts],
    base: Ran,
    edited: Ran | None,
    plan: Plan,
    cell: replies.Cell,
) -> replies.Inspection:
    """Every expert of one cell: what it scored, whether it was chosen (``read`` tells), and what ``plan`` says about it."""
    run = edited or base
    layer, position = cell.layer, cell.position
    if not 0 <= layer < run.shape.layers:
        raise AddressError(
            said("There is no layer %1.", layer), said("Layers are 0 to %1.", run.shape.layers - 1)
        )
    if not 0 <= position < len(run.texts):
        raise AddressError(
            said("There is no token %1 in this run.", position),
            said("Tokens are 0 to %1.", len(run.texts) - 1),
        )
    now = read(run, cell)
    before = now if edited is None else read(base, cell)
    experts, choices = _sizes(bench, run, layer, now)
    verdicts = {} if run.past else _verdicts(plan, layer, position, run.prompt_tokens)
    rows = []
    for expert in range(experts):
        slot, other = now.slots.get(expert), before.slots.get(expert)
        chosen, native = slot is not None, other is not None
        rows.append(
            replies.ExpertRow(
                expert=expert,
                score=_at(now.scores, expert),
                base=_at(before.scores, expert),
                logit=_at(now.logits, expert),
                weight=None if slot is None else slot.weight,
                base_weight=None if other is None else other.weight,
                output=None if slot is None else finite(slot.output),
                state=verdicts.get(expert) or ("chosen" if chosen else "native" if native else ""),
                chosen=chosen,
                native=native,
            )
        )
    ran_so = run.past or run.plan.hash == plan.hash
    return replies.Inspection(
        run=str(run.id),
        layer=layer,
        position=position,
        text=run.texts[position],
        choices=choices,
        skipped="block skip" in now.events
        if ran_so
        else any(
            isinstance(e, skip.Block) and _covers(e, layer, position, run.prompt_tokens) for e in plan.active
        ),
        events=now.events if ran_so else [],
        margin=now.margin,
        entropy=now.entropy,
        tie=now.tie,
        edited=now.edited,
        experts=rows,
        facts=now.parts,
    )


def _sizes(bench: Any, run: Ran, layer: int, cell: CellFacts) -> tuple[int, int]:
    """Experts and choices of a layer: of a run out of the store what was recorded, as its model may be another one."""
    if run.past:
        return (run.shape.experts, run.shape.choices) if cell.slots else (0, 0)
    moe = bench.anatomy.layer(layer).moe
    return (moe.num_experts, moe.top_k) if moe is not None else (0, 0)


def next_tokens(bench: Any, base: Ran, edited: Ran | None, position: int | None) -> replies.NextTokens:
    """The likeliest next tokens of both runs with their probabilities, and how far the distributions are apart."""
    assert base.logits is not None
    after_logits = None if edited is None else edited.logits
    last = min(len(logits) for logits in (base.logits, after_logits) if logits is not None) - 1
    at = last if position is None else position
    if not 0 <= at <= last:
        raise AddressError(said("There is no token %1 in this run.", at), said("Tokens are 0 to %1.", last))
    before = log_softmax(base.logits[at])
    after = None if after_logits is None else log_softmax(after_logits[at])
    named = dict.fromkeys(_top(before))
    if after is not None:
        named |= dict.fromkeys(_top(after))
    rows = [
        replies.NextRow(
            token=token,
            text=bench.token_text(token),
            base=math.exp(before[token]),
            edited=None if after is None else math.exp(after[token]),
        )
        for token in named
    ]
    rows.sort(key=lambda row: -max(row.base, row.edited or 0.0))
    divergence = None if after is None else max(0.0, float(np.sum(np.exp(before) * (before - after))))
    return replies.NextTokens(position=at, last=at == last, rows=rows, divergence=divergence)


def _verdicts(plan: Plan, layer: int, position: int, prompt_tokens: int) -> dict[int, Any]:
    """What the plan says of each expert in one cell; of a ban and a force the later holds."""
    verdicts: dict[int, str] = {}
    for edit in plan.active:
        if isinstance(edit, reroute.Ban | reroute.Force) and _covers(edit, layer, position, prompt_tokens):
            word = "banned" if isinstance(edit, reroute.Ban) else "forced"
            verdicts.update(dict.fromkeys(edit.experts, word))
    return verdicts


def _covers(edit: Edit, layer: int, position: int, prompt_tokens: int) -> bool:
    """Whether ``edit`` holds in a cell of a run that reads a prompt of ``prompt_tokens`` tokens in one pass."""
    generated = position >= prompt_tokens
    if (edit.layers != "all" and layer not in edit.layers) or edit.phase == (
        "prefill" if generated else "decode"
    ):
        return False
    if edit.where is not None or not isinstance(
        edit.steps, str
    ):  # which tokens that means, only the run can tell
        return False
    match edit.tokens:
        case "all":
            return True
        case "prompt":
            return not generated
        case "prompt_last":
            return position == prompt_tokens - 1
        case "each_step":
            return position >= prompt_tokens - 1
        case "generated":
            return generated
        case Span(start=start, stop=stop):
            return start <= position and (stop is None or position < stop)
        case positions:
            return position in positions


def _top(logp: np.ndarray) -> list[int]:
    count = min(NEXT_ROWS, logp.size)
    best = np.argpartition(-logp, count - 1)[:count]
    return [int(token) for token in best[np.argsort(-logp[best], kind="stable")]]


def _at(values: Sequence[float] | None, index: int) -> float | None:
    return None if values is None else finite(values[index])
