"""Every other expert at a cell: what the text that followed would have been worth."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from workbench.errors import EditRefused, PromptError
from workbench.interventions import Plan, reroute
from workbench.interventions.edit import Edit
from workbench.runtime.attach import device_of
from workbench.runtime.cache import can_repeat, new_cache
from workbench.runtime.history import History
from workbench.runtime.passes import Pass
from workbench.runtime.run import Run

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

_ROWS = 64


def counterfactual(
    bench: Bench, run: Run, token: int, layers: Sequence[int], target: int | None = None
) -> pd.DataFrame:
    """Exchange each chosen expert of ``token`` for each other expert, one at a time, in each of ``layers``.

    The tokens before ``token`` are read once; the rest is run for all exchanges together, in batches. The run's own plan
    holds throughout, and the weights are the family's own for the new set.

    Parameters
    ----------
    token
        Absolute position in ``run``.
    target
        The next token (id) whose log-probability at ``token`` is asked for; by default the one that followed, or for the
        last token the most likely one.

    Returns
    -------
    One row per exchange, best first: ``layer``, ``removed``, ``expert`` (the one that came in), ``next_change`` (change in
    nats of the log-probability of the target after ``token``), ``change`` (of all tokens that followed, summed; equal to
    ``next_change`` for the last token), and ``plan``: the run's plan with the exchange, ready to run.
    """
    size = len(run.logits)
    if not 0 <= token < size:
        raise PromptError(
            f"Token {token} was not computed in this run.", f"It computed tokens 0 to {size - 1}."
        )
    if any(edit.couples() for edit in run.plan.active):
        raise EditRefused(
            "The run's plan lets the sequences of a batch compete, and exchanges are tried in batches.",
            "Ask for the exchanges of a run with another plan.",
        )
    asked = _exchanges(bench, run, token, layers)
    follows = run.tokens[token + 1 :]
    wanted = (
        target if target is not None else int(follows[0]) if len(follows) else int(run.logits[token].argmax())
    )
    plans = [Plan([*run.plan, *exchange]) for _, _, _, exchange in asked]
    for plan in plans[:1]:
        bench.check(plan, run.prompt_tokens, size, run.labels)
    values = _values(bench, run, token, [run.plan, *plans], wanted)
    rows = [
        {"layer": layer, "removed": out, "expert": into, "next_change": float(n - values[0][0]),
         "change": float(c - values[0][1]), "plan": plan}
        for (layer, out, into, _), (n, c), plan in zip(asked, values[1:], plans, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows).sort_values("change", ascending=False, ignore_index=True)


def _exchanges(
    bench: Bench, run: Run, token: int, layers: Sequence[int]
) -> list[tuple[int, int, int, list[Edit]]]:
    if run.id is None:
        raise PromptError(
            "A run that was not recorded has no choices to exchange.", "Run it with record=wb.Record()."
        )
    found = []
    for layer in layers:
        moe = bench.anatomy.layer(layer).moe
        if moe is None or not moe.proved:
            reason = "it has no router" if moe is None else moe.reason
            raise EditRefused(f"Layer {layer} cannot be re-routed: {reason}.", "Choose a layer that can.")
        query = "SELECT expert FROM routing WHERE run = ? AND layer = ? AND position = ? ORDER BY slot"
        chosen = [expert for (expert,) in bench.sql(query, [run.id, layer, token]).fetchall()]
        for out in chosen:
            for into in sorted(set(range(moe.num_experts)) - set(chosen)):
                rest = [expert for expert in chosen if expert != out]
                # All at once where the family uses as many: a ban could move the token to other groups of experts. With
                # more, the next best comes in for `out`; it is then the lowest of the choices, whose place a force takes.
                exchange: list[Edit] = [reroute.force(layer, [*rest, into], tokens=[token])]
                if len(chosen) > moe.top_k:
                    removed = reroute.ban(layer, out, tokens=[token])
                    exchange = [removed, reroute.force(layer, into, tokens=[token])]
                found.append((layer, out, into, exchange))
    if not found:
        raise EditRefused(
            "There is no other expert to exchange for.", "Choose layers that recorded their routing."
        )
    return found


def _values(bench: Bench, run: Run, token: int, plans: list[Plan], target: int) -> list[tuple[float, float]]:
    """For each plan the log-probability in nats of ``target`` after ``token``, and of all tokens that followed."""
    ids = run.tokens[: len(run.logits)].to(device_of(bench.model))
    follows = run.tokens[token + 1 :]
    found: list[tuple[float, float]] = []
    with bench.running():
        prefix, past = new_cache(bench.model), History()
        # Where later tokens may change earlier ones the prefix is not the same for all exchanges, and where a cache cannot
        # be repeated it is read with each of them.
        ahead = any(edit.looks_ahead() for edit in run.plan.active)
        first = 0 if ahead or not can_repeat(prefix) else token
        if first:
            _pass(bench, run, [run.plan], ids[:first].unsqueeze(0), 0, prefix, past)
        for start in range(0, len(plans), _ROWS):
            batch = plans[start : start + _ROWS]
            cache, history = copy.deepcopy(prefix), past.repeated(len(batch))
            if first and len(batch) > 1:
                cache.batch_repeat_interleave(len(batch))
            rows = ids[first:].expand(len(batch), -1)
            log_p = _pass(bench, run, batch, rows, first, cache, history)[:, token - first :].log_softmax(-1)
            after = (
                log_p[:, : len(follows)].gather(-1, follows.expand(len(batch), -1).unsqueeze(-1)).squeeze(-1)
            )
            nexts = log_p[:, 0, target]
            totals = after.sum(-1) if len(follows) else nexts
            found.extend(zip(nexts.tolist(), totals.tolist(), strict=True))
    return found


def _pass(
    bench: Bench, run: Run, plans: list[Plan], ids: Tensor, start: int, cache: Any, past: History
) -> Tensor:
    """Logits [B, S, V] fp32 on the CPU of ``ids`` [B, S] from position ``start`` on."""
    device = ids.device
    positions = torch.arange(start, start + ids.shape[1], device=device).expand(ids.shape)
    prompt = torch.full((ids.shape[0],), run.prompt_tokens, device=device)
    with bench.session(plans, None, [run.labels] * len(plans), history=past) as session:
        session.begin(Pass(0, positions, None, prompt, ids))
        output = bench.model(input_ids=ids, past_key_values=cache, use_cache=True)
    return output.logits.float().cpu()
