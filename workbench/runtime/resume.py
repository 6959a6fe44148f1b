"""Prompts read once and gone on from at their last token: what a plan costs that edits nothing before it.

An edit at the last token of a prompt in layer l leaves every earlier token and every layer below l as they were. So the
prompts are read once under no plan, which gives the keys and values of all layers and the residual stream that enters
each block at the last token. A plan then runs one token through the blocks from l on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.anatomy import Anatomy
from workbench.interventions import Plan, mask, reroute
from workbench.interventions.condition import comparisons
from workbench.interventions.edit import Edit, Span
from workbench.runtime.attach import device_of
from workbench.runtime.cache import keeps_all, new_cache
from workbench.runtime.passes import Pass
from workbench.runtime.replace import replace_forward

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

_TOKEN_LOCAL = (
    reroute.Allow, reroute.Ban, reroute.Bias, reroute.Force, reroute.Permute, reroute.Random, reroute.RankOffset,
    reroute.Replay, reroute.ScoreMix, reroute.Temperature, reroute.Threshold, reroute.TopK, reroute.TopP,
    reroute.Uniform, reroute.Weights, mask.Heads,
)  # fmt: skip
"""Edits whose effect at a token needs nothing of the other tokens of the pass; any other edit gets a full pass."""


def first_edited(plan: Plan, anatomy: Anatomy, length: int) -> int | None:
    """The lowest layer that ``plan`` edits, or asks a signal of, at the last of ``length`` prompt tokens.

    ``num_layers`` if it edits nothing there; ``None`` if it edits an earlier token or in a way that depends on one, so
    that the prompt must be read under the plan.
    """
    first = anatomy.num_layers
    for edit in plan.active:
        if type(edit) not in _TOKEN_LOCAL or _before(edit, length - 1):
            return None
        if _holds(edit, length):
            asked = [] if edit.condition is None else comparisons(edit.condition)
            first = min(
                first, *edit.layers_in(anatomy), *(one.layer for one in asked if one.layer is not None)
            )
    return first


def _before(edit: Edit, last: int) -> bool:
    """Whether ``edit`` may hold for a token before position ``last``, which ends the prompt."""
    tokens = edit.tokens
    if isinstance(tokens, Span):
        return tokens.start < last
    if isinstance(tokens, tuple):
        return min(tokens) < last
    return tokens in ("all", "prompt") and edit.phase != "decode" and last > 0


def _holds(edit: Edit, length: int) -> bool:
    """Whether ``edit``, which holds for no earlier token, holds for the last token of the prompt."""
    tokens = edit.tokens
    if isinstance(tokens, Span):
        return tokens.start < length
    if isinstance(tokens, tuple):
        return min(tokens) < length
    return tokens != "generated" and edit.phase != "decode"


@dataclass
class Prompts:
    """B prompts of L tokens each, read under no plan.

    Attributes
    ----------
    logits
        After the last token [B, V], fp32 on the CPU.
    keys, values
        Of every layer and all tokens, [B, heads, L, D] on the model's device.
    entering
        The residual stream that enters each block at the last token, [B, 1, H].
    last
        The last token of each prompt [B, 1].
    """

    logits: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    entering: list[Tensor]
    last: Tensor

    @property
    def length(self) -> int:
        """L."""
        return self.keys[0].shape[2]


def read_prompts(bench: Bench, ids: Tensor) -> Prompts | None:
    """Read prompts ``ids`` [B, L] under no plan; call it within ``bench.running()``.

    ``None`` for a model that cannot be gone on with in the middle: one whose cache forgets tokens or keeps a state, or
    whose blocks hand on more than one stream.
    """
    cache: Any = new_cache(bench.model)
    entering: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream = args[0] if args else kwargs["hidden_states"]
            if isinstance(stream, Tensor) and stream.ndim == 3:
                entering[layer] = stream[:, -1:].clone()

        return hook

    device = device_of(bench.model)
    ids = ids.to(device)
    with bench.session([Plan()] * len(ids), None, [{}] * len(ids)) as session, ExitStack() as undo:
        for block in bench.anatomy.blocks:
            hook = keep(block.layer)
            undo.callback(block.module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        session.begin(_pass(ids, 0, ids.shape[1]))
        output = bench.model(input_ids=ids, past_key_values=cache, use_cache=True)
    layers = bench.anatomy.num_layers
    whole = len(cache.layers) == layers and keeps_all(cache)
    if not whole or len(entering) != layers:
        return None
    return Prompts(
        output.logits[:, -1].float().cpu(),
        [layer.keys for layer in cache.layers],
        [layer.values for layer in cache.layers],
        [entering[layer] for layer in range(layers)],
        ids[:, -1:],
    )


def resume(
    bench: Bench, prompts: Prompts, rows: Sequence[int], plans: Sequence[Plan], first: int, *, going_on: bool
) -> tuple[Tensor, Any]:
    """Run the last token of ``prompts[rows]`` again, each under its plan of ``plans``, from layer ``first`` on.

    Returns the logits after it [R, V] fp32 on the CPU and, with ``going_on``, a cache of the keys and values of all L
    tokens, from which a text can be gone on with. Blocks below ``first`` are not run.
    """

    cache: Any = new_cache(bench.model)
    at = torch.tensor(rows, device=prompts.last.device)
    before = prompts.length - 1

    def stored(layer: int, tokens: slice) -> None:
        cache.update(prompts.keys[layer][at, :, tokens], prompts.values[layer][at, :, tokens], layer)

    if first == bench.anatomy.num_layers:
        if going_on:
            for layer in range(first):
                stored(layer, slice(None))
        return prompts.logits[list(rows)], cache

    def known(layer: int) -> Callable[..., Any]:
        """A forward that does nothing but hand on what the block of ``layer`` gave and kept before."""

        def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            if going_on:
                stored(layer, slice(before, None))
            entering = prompts.entering[layer + 1][at]
            parts = bench.arity.get(bench.anatomy.layer(layer).module, 0)
            return (entering, *[None] * (parts - 1)) if parts else entering

        return forward

    if before:
        for layer in range(0 if going_on else first, bench.anatomy.num_layers):
            stored(layer, slice(before))
        if (
            first and not going_on
        ):  # transformers takes the mask's length from the first layer; nobody reads these
            heads = prompts.keys[0].shape[1]
            nothing = prompts.keys[0].new_zeros(len(rows), heads, before, 1)
            cache.update(nothing, nothing, 0)
    ids = prompts.last[at]
    with bench.session(plans, None, [{}] * len(plans)) as session, ExitStack() as undo:
        for layer in range(first):
            undo.callback(replace_forward(bench.anatomy.layer(layer).module, known(layer)))
        session.begin(_pass(ids, before, prompts.length))
        output = bench.model(input_ids=ids, past_key_values=cache, use_cache=True)
    return output.logits[:, -1].float().cpu(), cache


def go_on(bench: Bench, cache: Any, ids: Tensor, plans: Sequence[Plan], length: int) -> Tensor:
    """Logits [R, S, V] fp32 on the CPU of texts ``ids`` [R, S] that follow the ``length`` prompt tokens in ``cache``."""
    ids = ids.to(device_of(bench.model))
    with bench.session(plans, None, [{}] * len(plans)) as session:
        session.begin(_pass(ids, length, length))
        output = bench.model(input_ids=ids, past_key_values=cache, use_cache=True)
    return output.logits.float().cpu()


def _pass(ids: Tensor, start: int, prompt_tokens: int) -> Pass:
    positions = torch.arange(start, start + ids.shape[1], device=ids.device).expand(ids.shape)
    prompt = torch.full((ids.shape[0],), prompt_tokens, device=ids.device)
    return Pass(0, positions, None, prompt, ids)
