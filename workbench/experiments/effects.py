"""What skipping or masking does to later layers and later tokens: effects on updates, outputs and representations.

Every function writes what it measures into the table ``effect`` of the bench's store, under an experiment of its own whose
number the frame carries in ``attrs["experiment"]``; the macros ``skip_matrix``, ``layer_effect``, ``recovery_layer`` and
``tolerable_sparsity`` read it from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis import Tolerable, tolerable
from workbench.errors import EditRefused, PromptError
from workbench.experiments.experiment import start
from workbench.interventions import Plan, skip
from workbench.interventions.skip.base import Unit
from workbench.runtime.bench import Bench
from workbench.runtime.prompts import Prompt, several
from workbench.runtime.run import Run

_OPS = {"block": "block", "attention": "attn", "mlp": "mlp"}
_SKIPS = {"block": skip.block, "attention": skip.attention, "mlp": skip.mlp}


def skip_effects(
    bench: Bench, prompts: Sequence[Prompt], *, unit: Unit = "block", future: bool = False,
    layers: Sequence[int] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The effect of skipping each layer ``s`` on every later layer ``l``, and on the output.

    With D_l the update that layer l makes to the residual stream of a token,
    ``effect = max ||D_l - D_l^s|| / max(||D_l||, 1e-6)``, and for the output (``layer`` is NA)
    ``max ||p - p^s||_2`` of the next-token distributions; ``mean`` is the mean in place of the maximum, both over tokens and
    prompts. The first token is never skipped. With ``future`` the skip holds for the first half of each prompt and the
    effect is measured in the second, so that it can only have come through attention (keys and values of skipped tokens
    are computed). Source: Csordas, Manning, Potts 2025, "Do Language Models Use Their Depth Efficiently?".
    """
    size = bench.anatomy.num_layers
    chosen = range(size) if layers is None else layers
    found: dict[tuple[int, int | None], list[Tensor]] = {}
    for prompt in several(prompts):
        ids = bench.token_ids(prompt)
        if len(ids) < 4:
            raise PromptError(
                f"A prompt of {len(ids)} tokens is too short.", "Give prompts of at least 4 tokens."
            )
        half = len(ids) // 2
        base = bench.run(ids, record=None)
        before, logits = _updates(base), base.logits.softmax(-1)
        for s in chosen:
            tokens = slice(1, half if future else None)
            kind = _SKIPS[unit]
            edit = kind(s, tokens=tokens) if unit == "mlp" else kind(s, tokens=tokens, kv="compute")  # type: ignore[operator]
            run = bench.run(ids, edit, record=None)
            at = slice(half if future else 1, None)
            after = _updates(run)
            for layer in range(s + 1, size):
                change = (after[layer, at] - before[layer, at]).norm(dim=-1)
                found.setdefault((s, layer), []).append(
                    change / before[layer, at].norm(dim=-1).clamp(min=1e-6)
                )
            found.setdefault((s, None), []).append((run.logits.softmax(-1) - logits)[at].norm(dim=-1))
    rows = [
        {"skipped": s, "layer": layer, "effect": float(torch.cat(values).max()), "mean": float(torch.cat(values).mean())}
        for (s, layer), values in found.items()
    ]  # fmt: skip
    frame = pd.DataFrame(rows).astype({"layer": "Int64"})
    which = "future" if future else "current"
    wide = frame.rename(columns={"effect": "largest"}).melt(["skipped", "layer"], ["largest", "mean"], "name")
    about = {"unit": unit, "tokens": which, "prompts": len(prompts)}
    return _kept(bench, "skip effects", about, frame, wide.assign(unit=_OPS[unit], tokens=which))


def _kept(
    bench: Bench, name: str, about: Mapping[str, Any], frame: pd.DataFrame, rows: pd.DataFrame
) -> pd.DataFrame:
    """``frame`` with the number of the experiment under which ``rows`` were written into the store."""
    number = start(bench, name, about)
    columns = {str(column): [None if pd.isna(v) else v for v in rows[column]] for column in rows}
    bench.store.write("effect", {"experiment": number, **columns})
    frame.attrs["experiment"] = number
    return frame


def _updates(run: Run) -> Tensor:
    """What each layer adds to the residual stream of every token, [L, S, H] on the CPU."""
    layers = list(range(run.bench.anatomy.num_layers))
    return (run.tensor("resid_post", layers=layers) - run.tensor("resid_pre", layers=layers)).float().cpu()


def by_layer(bench: Bench, prompts: Sequence[Prompt], plan: Plan) -> pd.DataFrame:
    """How far a plan moves the residual stream behind each layer.

    One row a layer: ``cka``, linear centred kernel alignment of the tokens' residuals without and with the plan (Kornblith
    et al. 2019, arXiv 1905.00414; 1 is the same up to rotation and scale); ``distance``, the mean of
    ``||h - h'|| / ||h||``; ``kl``, the mean Kullback-Leibler divergence in nats of what the final norm and head read from
    both. The first token is left out.
    """
    layers = list(range(bench.anatomy.num_layers))
    pairs: list[tuple[Tensor, Tensor]] = []
    for prompt in several(prompts):
        runs = bench.run(prompt, record=None), bench.run(prompt, plan, record=None)
        first, second = (run.tensor("resid_post", layers=layers)[:, 1:].float() for run in runs)
        pairs.append((first, second))
    base, moved = (torch.cat([pair[n] for pair in pairs], dim=1) for n in (0, 1))
    rows = []
    for layer in layers:
        x, y = base[layer], moved[layer]
        p, q = (_lens(bench, h).log_softmax(-1) for h in (x, y))
        rows.append({
            "layer": layer, "cka": cka(x, y), "distance": float(((x - y).norm(dim=-1) / x.norm(dim=-1)).mean()),
            "kl": float((p.exp() * (p - q)).sum(-1).mean()),
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    wide = frame.melt("layer", ["cka", "distance", "kl"], "name").assign(plan=plan.hash)
    return _kept(bench, "effects by layer", {"plan": plan.hash, "prompts": len(prompts)}, frame, wide)


def tolerable_levels(
    bench: Bench,
    items: pd.DataFrame,
    plans: Mapping[float, Plan],
    tolerance: float,
    *,
    confidence: float = 0.95,
) -> Tolerable:
    """The largest sparsity among ``plans`` (by level) whose loss on ``items`` is bounded.

    The loss of an item is that of its answer after the prompt, in nats (:meth:`Bench.evaluate`); the change is against no
    plan, item by item. ``items`` may have a column ``task``. See :func:`workbench.analysis.tolerable`.
    """
    levels = sorted(plans)
    scored = bench.evaluate(items, plans=[Plan(), *(plans[level] for level in levels)])
    loss = [
        losses[list(choices).index(answer)]
        for losses, choices, answer in zip(scored["losses"], scored["choices"], scored["answer"], strict=True)
    ]
    scored = scored.assign(loss=loss)
    base = scored[scored["plan_number"] == 0].set_index("item")["loss"]
    parts = []
    for number, level in enumerate(levels, start=1):
        part = scored[scored["plan_number"] == number]
        told = {
            "sparsity": level,
            "change": part["loss"].to_numpy() - base[part["item"]].to_numpy(),
            "item": part["item"],
        }
        parts.append(
            pd.DataFrame(told | {"plan": part["plan"]} | ({"task": part["task"]} if "task" in part else {}))
        )
    changes = pd.concat(parts, ignore_index=True)
    rows = changes.rename(columns={"sparsity": "level", "change": "value"}).assign(name="loss_change")
    about = {"tolerance": tolerance, "levels": levels, "items": len(items)}
    kept = _kept(bench, "tolerable sparsity", about, changes, rows)
    found = tolerable(changes, tolerance, confidence=confidence)
    found.table.attrs["experiment"] = kept.attrs["experiment"]
    return found


def recovery_layer(frame: pd.DataFrame, skipped: int, tolerance: float = 0.1) -> int | None:
    """The first layer behind ``skipped`` from which on the residual stays within ``tolerance`` (relative distance) of what
    it is without the plan, in a table of :func:`by_layer`; ``None`` where it never does."""
    later = frame[frame["layer"] > skipped].sort_values("layer")
    found: int | None = None
    for layer, distance in zip(later["layer"], later["distance"], strict=True):
        if distance > tolerance:
            found = None
        elif found is None:
            found = int(layer)
    return found


def cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two sets of vectors [T, H] of the same tokens, from 0 to 1."""
    x, y = (h.double() - h.double().mean(0) for h in (x, y))
    cross = (x.T @ y).square().sum()
    return float(cross / ((x.T @ x).norm() * (y.T @ y).norm()).clamp(min=1e-30))


def _lens(bench: Bench, hidden: Tensor) -> Tensor:
    """Next-token logits that the model's final norm and head read from a residual."""
    norm, head = bench.anatomy.norm_path, bench.anatomy.head_path
    if norm is None:
        raise EditRefused(
            "This model has no final norm, so residuals cannot be read as logits.", "Use distances."
        )
    model = bench.model
    with torch.no_grad():
        hidden = hidden.to(next(model.parameters()).dtype)
        return model.get_submodule(head)(model.get_submodule(norm)(hidden)).float()
