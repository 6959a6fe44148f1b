"""What the panel shows, computed from the store and from the logits of a run; no model, no torch, no browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import AddressError
from workbench.interventions import Edit, Plan, Span, reroute, skip
from workbench.panel import protocol

if TYPE_CHECKING:
    from workbench.panel.history import History
    from workbench.panel.session import Ran

NEXT_ROWS = 10
"""Candidates of each run in the next-token table."""

_FACTS = ("attn_norm", "attn_cos", "mlp_norm", "mlp_cos", "block_norm", "influence")


def bench_facts(key: str, bench: Any) -> protocol.BenchFacts:
    """The model of ``bench`` in a few words and numbers."""
    anatomy = bench.anatomy
    moes = {layer: anatomy.layer(layer).moe for layer in anatomy.moe_layers}
    return protocol.BenchFacts(
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


def plan_card(history: History) -> protocol.PlanCard:
    """The plan that holds now, in words and as data."""
    plan = history.plan
    return protocol.PlanCard(
        version=history.version,
        hash=plan.hash,
        edits=[_edit_card(edit) for edit in plan.edits],
        text=plan.to_json(),
        python=plan.to_python(),
        warnings=plan.collisions(),
        undo=history.can_undo,
        redo=history.can_redo,
    )


def _edit_card(edit: Edit) -> protocol.EditCard:
    data = edit.model_dump(mode="json")
    return protocol.EditCard(
        kind=edit.kind,
        text=edit.describe(),
        enabled=edit.enabled,
        layers=None if edit.layers == "all" else list(edit.layers),
        experts=list(edit.named_experts()) if isinstance(edit, reroute.Bias) else data.get("experts", []),
        delta=_raised(edit),
        tokens=data["tokens"],
        phase=edit.phase,
    )


def _raised(edit: Edit) -> float | None:
    """What a bias of one expert adds to its logit; ``None`` for any other edit."""
    if not isinstance(edit, reroute.Bias) or edit.at != "logits" or not isinstance(edit.delta, dict):
        return None
    return next(iter(edit.delta.values())) if len(edit.delta) == 1 else None


def routing_map(
    bench: Any, base: int, edited: int | None, texts: list[str]
) -> tuple[protocol.RoutingMap, list[memoryview]]:
    """The map of the edited run, or of the base run where there is none, with the flips between the two."""
    run = base if edited is None else edited
    facts = bench.anatomy
    layers, tokens = facts.num_layers, len(texts)
    choices = max((facts.layer(layer).moe.top_k for layer in facts.moe_layers), default=0)
    experts, weights = _choices(bench, run, choices, layers, tokens)
    router = _columns(bench, "SELECT layer, position, margin, entropy, edited FROM router WHERE run = ?", run)
    depth = _columns(
        bench, "SELECT layer, position FROM depth WHERE run = ? AND unit = 'block' AND event = 'skip'", run
    )
    block = _columns(bench, "SELECT layer, position, influence FROM contribution WHERE run = ?", run)
    skipped = _skipped(depth, layers, tokens)
    flips = np.zeros((layers, tokens), np.uint8)
    if edited is not None and choices:
        before, _ = _choices(bench, base, choices, layers, tokens)
        differs = np.any(np.sort(before, axis=0) != np.sort(experts, axis=0), axis=0)
        differs &= np.any(before >= 0, axis=0) & np.any(
            experts >= 0, axis=0
        )  # of two texts one may be shorter
        flips = (differs & (skipped == 0)).astype(np.uint8)  # a block that does not run makes no choice
    arrays = {
        "experts": experts,
        "weights": weights,
        "margin": _grid(router, "margin", layers, tokens),
        "entropy": _grid(router, "entropy", layers, tokens),
        "influence": _grid(block, "influence", layers, tokens),
        "flip": flips,
        "edited": np.nan_to_num(_grid(router, "edited", layers, tokens)).astype(np.uint8),
        "skipped": skipped,
    }
    message = protocol.RoutingMap(
        run=str(run),
        base=str(base),
        edited=edited is not None,
        texts=texts,
        layers=list(range(layers)),
        experts=max((facts.layer(layer).moe.num_experts for layer in facts.moe_layers), default=0),
        arrays=[
            protocol.MapArray(name=name, dtype=str(array.dtype), shape=list(array.shape))
            for name, array in arrays.items()
        ],
    )
    return message, [memoryview(array.tobytes()) for array in arrays.values()]


def inspect(
    bench: Any, base: Ran, edited: Ran | None, plan: Plan, cell: protocol.Cell
) -> protocol.Inspection:
    """Every expert of one cell: what it scored, whether it was chosen, and what ``plan`` says about it."""
    run = edited or base
    layer, position = cell.layer, cell.position
    if not 0 <= layer < bench.anatomy.num_layers:
        raise AddressError(f"There is no layer {layer}.", f"Layers are 0 to {bench.anatomy.num_layers - 1}.")
    if not 0 <= position < len(run.texts):
        raise AddressError(
            f"There is no token {position} in this run.", f"Tokens are 0 to {len(run.texts) - 1}."
        )
    now = _cell(bench, run.id, cell)
    before = now if edited is None else _cell(bench, base.id, cell)
    moe = bench.anatomy.layer(layer).moe
    verdicts = _verdicts(plan, layer, position, run.prompt_tokens)
    rows = []
    for expert in range(moe.num_experts if moe is not None else 0):
        chosen, native = expert in now["weights"], expert in before["weights"]
        rows.append(
            protocol.ExpertRow(
                expert=expert,
                score=_at(now["scores"], expert),
                base=_at(before["scores"], expert),
                logit=_at(now["logits"], expert),
                weight=now["weights"].get(expert),
                base_weight=before["weights"].get(expert),
                state=verdicts.get(expert) or ("chosen" if chosen else "native" if native else ""),
                chosen=chosen,
                native=native,
            )
        )
    return protocol.Inspection(
        run=str(run.id),
        layer=layer,
        position=position,
        text=run.texts[position],
        choices=moe.top_k if moe is not None else 0,
        skipped=any(isinstance(e, skip.Block) and layer in e.layers_in(bench.anatomy) for e in plan.active),
        margin=_finite(now["margin"]),
        entropy=_finite(now["entropy"]),
        tie=bool(now["tie"]),
        edited=bool(now["edited"]),
        experts=rows,
        facts=now["facts"],
    )


def next_tokens(bench: Any, base: Ran, edited: Ran | None, position: int | None) -> protocol.NextTokens:
    """The likeliest next tokens of both runs with their probabilities, and how far the distributions are apart."""
    last = min(len(ran.logits) for ran in (base, edited) if ran is not None) - 1
    at = last if position is None else position
    if not 0 <= at <= last:
        raise AddressError(f"There is no token {at} in this run.", f"Tokens are 0 to {last}.")
    before = _log_softmax(base.logits[at])
    after = None if edited is None else _log_softmax(edited.logits[at])
    named = dict.fromkeys(_top(before))
    if after is not None:
        named |= dict.fromkeys(_top(after))
    rows = [
        protocol.NextRow(
            token=token,
            text=bench.token_text(token),
            base=math.exp(before[token]),
            edited=None if after is None else math.exp(after[token]),
        )
        for token in named
    ]
    rows.sort(key=lambda row: -max(row.base, row.edited or 0.0))
    divergence = None if after is None else max(0.0, float(np.sum(np.exp(before) * (before - after))))
    return protocol.NextTokens(position=at, last=at == last, rows=rows, divergence=divergence)


def trials(bench: Any, ran: Ran, layer: int, position: int) -> protocol.Trials:
    """Every exchange of one chosen expert of a cell for another, best first."""
    import torch

    from workbench.runtime.run import Run

    tokens = torch.tensor(ran.tokens)
    run = Run(
        ran.id, tokens, torch.from_numpy(ran.logits), math.nan, "", tuple(ran.texts), ran.plan, ran.prompt_tokens, bench
    )  # fmt: skip
    found = bench.counterfactual(run, position, layer)
    followed = len(ran.tokens) - 1 - position
    target = ran.tokens[position + 1] if followed else int(ran.logits[position].argmax())
    return protocol.Trials(
        run=str(ran.id),
        layer=layer,
        position=position,
        target=bench.token_text(target),
        followed=followed,
        rows=[
            protocol.Trial(
                removed=int(row.removed),
                expert=int(row.expert),
                change=_finite(row.change),
                next_change=_finite(row.next_change),
            )
            for row in found.itertuples()
        ],
    )


def _choices(bench: Any, run: int, choices: int, layers: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Experts [k, L, T] int16 and weights [k, L, T] fp32 of a run, heaviest first."""
    experts = np.full((choices, layers, tokens), -1, np.int16)
    weights = np.full((choices, layers, tokens), np.nan, np.float32)
    rows = _columns(
        bench,
        "SELECT layer, position, expert, weight, "
        "row_number() OVER (PARTITION BY layer, position ORDER BY weight DESC, slot) - 1 AS place "
        "FROM routing WHERE run = ? AND expert >= 0",
        run,
    )
    keep = (rows["place"] < choices) & (rows["position"] < tokens)
    at = tuple(rows[name][keep].astype(np.int64) for name in ("place", "layer", "position"))
    experts[at] = rows["expert"][keep]
    weights[at] = rows["weight"][keep]
    return experts, weights


def _cell(bench: Any, run: int, cell: protocol.Cell) -> dict[str, Any]:
    where = [run, cell.layer, cell.position]
    routing = bench.sql(
        "SELECT expert, weight FROM routing WHERE run = ? AND layer = ? AND position = ? AND expert >= 0",
        where,
    ).fetchall()
    router = bench.sql(
        "SELECT margin, entropy, tie, edited FROM router WHERE run = ? AND layer = ? AND position = ?", where
    ).fetchone()
    scores = bench.sql(
        "SELECT scores, logits FROM router_scores WHERE run = ? AND layer = ? AND position = ?", where
    ).fetchone()
    facts = bench.sql(
        f"SELECT {', '.join(_FACTS)} FROM contribution WHERE run = ? AND layer = ? AND position = ?", where
    ).fetchone()
    sparsity = bench.sql(
        "SELECT avg(zero_share), avg(below_share), avg(hoyer) FROM sparsity WHERE run = ? AND layer = ? AND position = ?",
        where,
    ).fetchone()
    margin, entropy, tie, edited = router or (None, None, False, False)
    named = dict(zip(_FACTS, facts or (), strict=False))
    named |= dict(zip(("zero_share", "below_share", "hoyer"), sparsity or (), strict=False))
    return {
        "weights": {int(expert): float(weight) for expert, weight in routing},
        "scores": scores[0] if scores else None,
        "logits": scores[1] if scores else None,
        "margin": margin,
        "entropy": entropy,
        "tie": tie,
        "edited": edited,
        "facts": {name: _finite(value) for name, value in named.items() if _finite(value) is not None},
    }


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


def _columns(bench: Any, query: str, run: int) -> dict[str, np.ndarray]:
    columns = bench.sql(query, [run]).fetchnumpy()
    return {name: _plain(column) for name, column in columns.items()}


def _plain(column: np.ndarray) -> np.ndarray:
    """A column without a mask: what is NULL becomes NaN."""
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.filled(column.astype(np.float64), np.nan)
    return column


def _grid(rows: dict[str, np.ndarray], name: str, layers: int, tokens: int) -> np.ndarray:
    grid = np.full((layers, tokens), np.nan, np.float32)
    grid[rows["layer"].astype(np.int64), rows["position"].astype(np.int64)] = rows[name]
    return grid


def _skipped(rows: dict[str, np.ndarray], layers: int, tokens: int) -> np.ndarray:
    grid = np.zeros((layers, tokens), np.uint8)
    grid[rows["layer"].astype(np.int64), rows["position"].astype(np.int64)] = 1
    return grid


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide = wide - wide.max()
    return wide - math.log(float(np.exp(wide).sum()))


def _top(logp: np.ndarray) -> list[int]:
    count = min(NEXT_ROWS, logp.size)
    best = np.argpartition(-logp, count - 1)[:count]
    return [int(token) for token in best[np.argsort(-logp[best], kind="stable")]]


def _at(values: Sequence[float] | None, index: int) -> float | None:
    return None if values is None else _finite(values[index])


def _finite(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity: both become null."""
    return None if value is None or not math.isfinite(value) else float(value)
