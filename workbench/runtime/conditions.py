"""What a condition asks of the tokens of a pass, answered from the pass, its labels and what its routers computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.errors import EditRefused
from workbench.interventions.condition import SIGNALS, Comparison, comparisons
from workbench.interventions.edit import Edit
from workbench.runtime.capture import Capture
from workbench.runtime.passes import Fact, Pass
from workbench.signals import routing

if TYPE_CHECKING:
    from workbench.runtime.hooks.scene import Scene


def facts(scene: Scene, layer: int) -> Fact:
    """What answers the comparisons of an edit that acts in ``layer``."""

    def fact(asked: Comparison) -> Tensor:
        now = scene.now
        if asked.name in SIGNALS:
            source = layer if asked.layer is None else asked.layer
            return asked.compare(_signal(scene, source, asked.name)).reshape(now.positions.shape)
        if asked.name == "position":
            return asked.compare(now.positions)
        if asked.name == "token":
            return asked.compare(now.tokens)
        if asked.name == "part":
            generated = now.positions >= now.of_rows(now.prompt_tokens)
            return generated if (asked.value == "generated") == (asked.sign == "==") else ~generated
        if asked.name == "text":
            return _by_text(scene, now, asked)
        holds = torch.tensor([_label_holds(labels, asked) for labels in scene.labels])
        return now.of_rows(holds.to(now.positions.device))

    return fact


def check_condition(edit: Edit, labels: Mapping[str, Any], has_text: bool) -> None:
    """Refuse a condition on labels that the run does not have, or on texts that its tokens do not have."""
    if edit.needs_text() and not has_text:
        raise EditRefused(
            f"{edit.kind} asks for the text of tokens, but this bench has no tokenizer.",
            "Open the model with a tokenizer, or ask for token ids.",
        )
    for asked in comparisons(edit.condition) if edit.condition is not None else ():
        if asked.name == "label" and asked.key not in labels:
            known = ", ".join(labels) or "none"
            raise EditRefused(
                f"{edit.kind} asks for the label {asked.key!r}, which this run does not have.",
                f"Give it in labels=...; the run has: {known}.",
            )


def _signal(scene: Scene, layer: int, name: str) -> Tensor:
    """A signal of the router of ``layer`` before any edit, for each token of the pass; NaN where the router did not run."""
    now = scene.now
    found = [(part, _of_router(scene, capture, layer, name)) for part, capture in scene.captured(layer)]
    known = [(part, values) for part, values in found if values is not None]
    if not known:
        raise EditRefused(
            f"A condition asks for the {name} of layer {layer}, whose router did not run.",
            "Ask a layer that is not skipped.",
        )
    if known[0][0] is now:
        return known[0][1]
    # The router ran for other tokens than those that ask, so that both are found by row and position.
    size = int(max(int(part.positions.max()) for part in (now, *(part for part, _ in known)))) + 1
    grid = known[0][1].new_full((len(now.prompt_tokens), size), torch.nan)
    numbers = torch.arange(len(now.prompt_tokens), device=grid.device)
    for part, values in known:
        inside = torch.ones_like(part.positions, dtype=torch.bool) if part.valid is None else part.valid
        grid[part.of_rows(numbers)[inside], part.positions[inside]] = values.reshape(part.positions.shape)[
            inside
        ]
    return grid[now.of_rows(numbers), now.positions]


def _of_router(scene: Scene, capture: Capture, layer: int, name: str) -> Tensor | None:
    rule = scene.anatomy.layer(layer).moe.rule  # type: ignore[union-attr]
    if capture.logits is None or capture.native_ids is None or rule is None:
        return None
    if name == "margin":
        selection = rule.selection(rule.scores(capture.logits))
        return routing.margins(selection, capture.native_ids.shape[-1]).margin
    if name == "entropy":
        return routing.entropy(capture.logits, rule.score)
    assert capture.native_weights is not None
    return capture.native_weights.amax(-1)


def _by_text(scene: Scene, now: Pass, asked: Comparison) -> Tensor:
    ids, where = torch.unique(now.tokens, return_inverse=True)
    holds = torch.tensor([asked.compare(scene.token_text(token)) for token in ids.tolist()])
    return holds.to(now.tokens.device)[where]


def _label_holds(labels: Mapping[str, Any], asked: Comparison) -> bool:
    value = labels[str(asked.key)]
    if asked.sign not in ("==", "!=") and not isinstance(value, int | float):
        return False
    return bool(asked.compare(value))
