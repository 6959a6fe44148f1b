"""Questions that need the model again: every exchange of a cell, the patterns of heads, the effect of each edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from workbench.errors import PromptError
from workbench.interventions import Plan
from workbench.panel import answers, replies
from workbench.panel.ran import Ran, finite, log_softmax
from workbench.said import said

HEAD_TOKENS = 192
"""Tokens that a pattern is shown for, the last ones of a longer run."""


def trials(bench: Any, ran: Ran, layer: int, position: int) -> replies.Trials:
    """Every exchange of one chosen expert of a cell for another, best first."""
    assert ran.logits is not None
    found = bench.counterfactual(_as_run(bench, ran), position, layer)
    followed = len(ran.tokens) - 1 - position
    target = ran.tokens[position + 1] if followed else int(ran.logits[position].argmax())
    return replies.Trials(
        run=str(ran.id),
        layer=layer,
        position=position,
        target=bench.token_text(target),
        followed=followed,
        rows=[
            replies.Trial(
                removed=int(row.removed),
                expert=int(row.expert),
                change=finite(row.change),
                next_change=finite(row.next_change),
            )
            for row in found.itertuples()
        ],
    )


def heads(bench: Any, ran: Ran, layer: int) -> tuple[answers.Heads, list[memoryview]]:
    """What every head of a layer attends to, at the last :data:`HEAD_TOKENS` tokens."""
    assert ran.logits is not None
    pattern = _as_run(bench, ran).tensor("attn_pattern", layers=layer).float().cpu().numpy()
    first = max(0, pattern.shape[-1] - HEAD_TOKENS)
    shown = np.rint(255 * np.sqrt(np.clip(pattern[:, first:, first:], 0, 1))).astype(np.uint8)
    array = replies.MapArray(name="attention", dtype="uint8", shape=list(shown.shape))
    return answers.Heads(run=str(ran.id), layer=layer, first=first, array=array), [
        memoryview(shown.tobytes())
    ]


def contributions(bench: Any, ran: Ran, layer: int, position: int) -> answers.Contributions:
    """What the parts of a cell add directly to the logit of the token that follows: the run is read again, unrecorded."""
    import torch

    from workbench.runtime.attach import device_of
    from workbench.runtime.passes import Pass
    from workbench.runtime.record import Record

    assert ran.logits is not None
    bench.anatomy.layer(layer)  # refuses a layer that there is not
    size = len(ran.logits)
    if not 0 <= position < size:
        raise PromptError(
            said("Token %1 has not been read by the model yet.", position),
            said("Select one of the tokens 0 to %1.", size - 1),
        )
    device = device_of(bench.model)
    ids = torch.tensor([ran.tokens[:size]], device=device)
    now = Pass(
        0,
        torch.arange(size, device=device).unsqueeze(0),
        None,
        torch.tensor([ran.prompt_tokens], device=device),
        ids,
    )
    with bench.running(), bench.session([ran.plan], Record(logit_effect=True), [{}]) as session:
        session.begin(now)
        bench.model(input_ids=ids, use_cache=False)
        capture = session.captures.get(layer)
        found = None if capture is None else capture.effects
        if capture is None or found is None:
            raise PromptError(
                said("Block %1 did not run, so that nothing of it reaches the next token.", layer),
                said("Select another layer."),
            )
        values = {
            name: rows[position].float().cpu().tolist()
            for name, rows in found.values.items()
            if rows.ndim == 2
        }
        chosen = [] if capture.ids is None else capture.ids[position].cpu().tolist()
        target = int(found.targets[position])
    each = values.get("expert", [])
    return answers.Contributions(
        run=str(ran.id),
        layer=layer,
        position=position,
        target=bench.token_text(target),
        experts=[
            answers.ExpertEffect(expert=int(expert), effect=finite(effect))
            for expert, effect in zip(chosen, each, strict=False)
            if expert >= 0
        ],
        attention=finite(values["attn"][0]) if "attn" in values else None,
        mlp=finite(values["mlp"][0]) if "mlp" in values else None,
    )


def effects(
    bench: Any, version: int, plan: Plan, base: Ran, edited: Ran, progress: Callable[[float], None]
) -> answers.Effects:
    """The edited run against the same tokens under the plan without one edit, for every enabled edit.

    Next-token distributions are compared by KL(plan || plan without the edit) in nats, over the tokens whose logits the
    run has. One forward pass an edit, unrecorded.
    """
    assert edited.logits is not None and base.logits is not None
    active = [index for index, edit in enumerate(plan.edits) if edit.enabled]
    if not active:
        raise PromptError(said("The plan has no enabled edit."), said("Add one, or enable one."))
    size = len(edited.logits)
    whole = log_softmax(edited.logits)
    rows = []
    for done, index in enumerate(active):
        progress(done / len(active))
        rest = plan.without(index)
        if rest.active:
            logits = np.asarray(
                bench.run(edited.tokens[:size], plan=rest, record=None).logits, dtype=np.float32
            )
        elif base.tokens[:size] == edited.tokens[:size]:
            logits = base.logits[:size]
        else:
            logits = np.asarray(bench.run(edited.tokens[:size], record=None).logits, dtype=np.float32)
        other = log_softmax(logits)
        each = np.maximum(0.0, np.sum(np.exp(whole) * (whole - other), axis=-1))
        rows.append(
            answers.Effect(
                index=index,
                kl=float(each.mean()),
                last=float(each[-1]),
                changed=bool(whole[-1].argmax() != other[-1].argmax()),
            )
        )
    return answers.Effects(version=version, rows=rows)


def _as_run(bench: Any, ran: Ran) -> Any:
    import torch

    from workbench.runtime.run import Run

    assert ran.logits is not None
    return Run(
        ran.id, torch.tensor(ran.tokens), torch.from_numpy(ran.logits), ran.plan, ran.prompt_tokens, bench
    )
